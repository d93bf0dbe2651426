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

_PLAN_CODES: Final = frozenset({4030})
_CONCURRENCY_CODES: Final = frozenset({4032, 4003})
_CREDIT_CODES: Final = frozenset({4033})
_MAX_QUOTED: Final = 300
"""Characters of LiveAvatar's own words that are passed on."""

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
            message=_words(body, detail, content)[:_MAX_QUOTED],
            field=_field(detail),
            retry_after_s=_retry_after_s(headers),
        )


def refusal(answer: Answer) -> GatewayError:
    """Return the error that an answer outside 2xx stands for. The HTTP status decides, then code and words."""
    says = f"LiveAvatar: {answer.message}" if answer.message else f"LiveAvatar answered {answer.status}"
    facts: dict[str, object] = {"endpoint": answer.endpoint, "http_status": answer.status}
    if answer.code is not None:
        facts["upstream_code"] = answer.code
    if answer.message:
        facts["upstream_message"] = answer.message
    if answer.status in (402, 403, 409):
        return _limit(answer, says, facts)
    if answer.status == 401:
        return UpstreamUnauthenticated(
            f"{says}; check LIVEAVATAR_API_KEY (not a HeyGen key; make one at app.liveavatar.com/developers)",
            facts=facts,
        )
    if answer.status == 429:
        return UpstreamRateLimited(says, retry_after_s=answer.retry_after_s or 1.0, facts=facts)
    if answer.status >= 500:
        return _server_error(answer, says, facts)
    if answer.body is None:
        return UpstreamProtocol(f"{says}; is LIVEAVATAR_API_URL right?", retry_after_s=1.0, facts=facts)
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


def _server_error(answer: Answer, says: str, facts: dict[str, object]) -> GatewayError:
    return UpstreamUnreachable(
        f"{says}; it is LiveAvatar's fault", retry_after_s=answer.retry_after_s or 1.0, facts=facts
    )


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
        return content.decode(errors="replace").strip()
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
    return str(location[-1]) if isinstance(location, list) and location else ""


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of `Retry-After`; LiveAvatar counts in one-second windows, so dates are not expected."""
    try:
        return min(max(0.0, float(headers.get("retry-after", ""))), _MAX_RETRY_AFTER_S)
    except ValueError:
        return None
