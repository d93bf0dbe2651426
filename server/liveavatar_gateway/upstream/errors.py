"""What a refusal of LiveAvatar's REST API means. Pure: status, body and headers in, one of our errors out.

Source: LiveAvatar's OpenAPI schema for the shapes; codes and messages as captured by several public clients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    GatewayError,
    UpstreamCreditsExhausted,
    UpstreamPlanRequired,
    UpstreamProtocol,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnauthenticated,
    UpstreamUnreachable,
)
from liveavatar_gateway.upstream.bounds import MAX_KIND_BYTES, bounded

_PLAN_CODES: Final = frozenset({4030})
_CONCURRENCY_CODES: Final = frozenset({4032, 4003})
_CREDIT_CODES: Final = frozenset({4033})
_MAX_QUOTED_BYTES: Final = 300
"""Bytes of LiveAvatar's own words that are passed on."""
_MAX_READ_CHARS: Final = 2000
"""Characters of a text without a known form in which words are looked for."""
FOREIGN: Final = "foreign_answer"
"""Set in the metadata of a refusal that is not in LiveAvatar's form: it proves nothing about a session."""

_MAX_RETRY_AFTER_S: Final = 60.0
"""Longest `Retry-After` that is believed: LiveAvatar's windows are one second, and a proxy may say anything."""

_FIELDS: Final[Mapping[str, str]] = {
    "avatar_id": "spec.avatar_id",
    "max_session_duration": "spec.max_duration",
    "is_sandbox": "spec.sandbox",
    "quality": "spec.video.quality",
    "encoding": "spec.video.encoding",
}
"""LiveAvatar's field names and where the same thing is in our contract."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer, read as far as it can be."""

    endpoint: str
    status: int
    body: Mapping[str, Any] | None
    """The JSON object; None when it is none."""
    code: int | None
    """LiveAvatar's own code from the envelope."""
    message: str
    """The best words found in it."""
    field: str
    """LiveAvatar's name of the field at fault, if it names one."""
    retry_after_s: float | None
    own: bool
    """True when it has one of LiveAvatar's own forms; anything else may come from a proxy on the way."""

    @classmethod
    def of(cls, status: int, content: bytes, headers: Mapping[str, str], *, endpoint: str) -> "Answer":
        """Read an answer whatever its shape: envelope, envelope with field details, or the framework's own."""
        body = _object(content)
        detail = _first_detail(body)
        return cls(
            endpoint=endpoint,
            status=status,
            body=body,
            code=_integer(body.get("code")) if body else None,
            message=bounded(_words(body, detail, content), _MAX_QUOTED_BYTES),
            field=bounded(_field(detail), MAX_KIND_BYTES),
            retry_after_s=_retry_after_s(headers),
            own=_is_own(status, body, detail),
        )


def refusal(answer: Answer) -> GatewayError:
    """Return the error that an answer outside 2xx stands for. The HTTP status decides, then code and words."""
    says = f"LiveAvatar: {answer.message}" if answer.message else f"LiveAvatar answered {answer.status}"
    facts: dict[str, object] = {"endpoint": answer.endpoint, "http_status": answer.status}
    if answer.code is not None:
        facts["upstream_code"] = answer.code
    if answer.message:
        facts["upstream_message"] = answer.message
    if not answer.own:
        facts[FOREIGN] = "true"
    if answer.status == 429:
        return UpstreamRateLimited(says, retry_after_s=answer.retry_after_s or 1.0, facts=facts)
    if answer.status >= 500:
        return _server_error(answer, says, facts)
    if not answer.own:
        return UpstreamProtocol(
            f"something answered {answer.status} for LiveAvatar, not in its form: "
            f"{answer.message or 'nothing'}; is LIVEAVATAR_API_URL right, or a proxy in the way?",
            retry_after_s=1.0,
            facts=facts,
        )
    if answer.status in (402, 403, 409):
        return _limit(answer, says, facts)
    if answer.status == 401:
        return UpstreamUnauthenticated(
            f"{says}; check LIVEAVATAR_API_KEY (not a HeyGen key; make one at app.liveavatar.com/developers)",
            facts=facts,
        )
    return UpstreamRejected(says, field=_FIELDS.get(answer.field, answer.field or None), facts=facts)


def _limit(answer: Answer, says: str, facts: dict[str, object]) -> GatewayError:
    words = answer.message.lower()
    if answer.code in _CREDIT_CODES or "credit" in words or answer.status == 402:
        return UpstreamCreditsExhausted(f"{says}; add credits to the account", facts=facts)
    if answer.code in _CONCURRENCY_CODES or "concurrency" in words or answer.status == 409:
        return CapacityExhausted(
            f"{says}; someone else uses the account too, or GATEWAY_MAX_SESSIONS is above its limit",
            scope="upstream_account",
            retry_after_s=answer.retry_after_s or 1.0,
            facts=facts,
        )
    if answer.code in _PLAN_CODES or "plan" in words:
        return UpstreamPlanRequired(f"{says}; ask for a lower quality, or change the plan", facts=facts)
    return UpstreamRejected(says, field=_FIELDS.get(answer.field, answer.field or None), facts=facts)


def is_denied(error: GatewayError) -> bool:
    """Return whether LiveAvatar itself refused a call for good: then it had no effect.

    A server error or 408 may come after the effect, and an answer that is not in LiveAvatar's form from anybody.
    """
    status = error.metadata.get("http_status", "")
    return status.startswith("4") and status != "408" and FOREIGN not in error.metadata


def is_answered(error: Exception) -> bool:
    """Return whether LiveAvatar itself has answered: then a call is over, and has no effect later on."""
    return isinstance(error, GatewayError) and "http_status" in error.metadata and FOREIGN not in error.metadata


def is_absent(error: GatewayError) -> bool:
    """Return whether LiveAvatar itself says that there is no such session."""
    return is_denied(error) and error.metadata.get("http_status") == "404"


def _is_own(status: int, body: Mapping[str, Any] | None, detail: Mapping[str, Any]) -> bool:
    """Return whether a body is LiveAvatar's envelope or, with 422, a list of details from its framework."""
    if body is None:
        return False
    if status == 422 and isinstance(body.get("detail"), list):
        return isinstance(detail.get("loc"), list) and isinstance(detail.get("msg"), str)
    return _integer(body.get("code")) is not None and "data" in body and isinstance(body.get("message"), str)


def _server_error(answer: Answer, says: str, facts: dict[str, object]) -> GatewayError:
    whose = "LiveAvatar's fault" if answer.own else "the fault of LiveAvatar or of what is in front of it"
    return UpstreamUnreachable(f"{says}; it is {whose}", retry_after_s=answer.retry_after_s or 1.0, facts=facts)


def _object(content: bytes) -> Mapping[str, Any] | None:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _first_detail(body: Mapping[str, Any] | None) -> Mapping[str, Any]:
    for name in ("data", "detail"):
        details = body.get(name) if body else None
        if isinstance(details, list) and details and isinstance(details[0], dict):
            return details[0]
    return {}


def _words(body: Mapping[str, Any] | None, detail: Mapping[str, Any], content: bytes) -> str:
    """Look where the vendor's own web client looks, in its order."""
    if body is None:
        return content[:_MAX_READ_CHARS].decode(errors="replace").strip()
    candidates = (
        detail.get("message"),
        body.get("message"),
        detail.get("msg"),
        body.get("detail"),
        body.get("error"),
    )
    return next((words for words in candidates if isinstance(words, str) and words), "")


def _field(detail: Mapping[str, Any]) -> str:
    location = detail.get("loc")
    name = location[-1] if isinstance(location, list) and location else ""
    return str(name) if isinstance(name, str | int) else ""


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of `Retry-After`; LiveAvatar counts in one-second windows, so dates are not expected."""
    try:
        return min(max(0.0, float(headers.get("retry-after", ""))), _MAX_RETRY_AFTER_S)
    except ValueError:
        return None
