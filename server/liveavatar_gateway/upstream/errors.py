"""Mapping of LiveAvatar's HTTP errors to the gateway's errors. Pure: takes status, body and headers.

Source: LiveAvatar's OpenAPI schema for the shapes; codes and messages as recorded by several public clients.
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
"""Limit of LiveAvatar's message that is passed on."""
_MAX_READ_CHARS: Final = 2000
"""Characters read of a response body that is not JSON."""
FOREIGN: Final = "foreign_answer"
"""Metadata key of a response that does not have LiveAvatar's form, and so proves nothing about a session."""

_MAX_RETRY_AFTER_S: Final = 60.0
"""Longest accepted `Retry-After`: LiveAvatar's windows are one second, but a proxy may send any value."""

_FIELDS: Final[Mapping[str, str]] = {
    "avatar_id": "spec.avatar_id",
    "max_session_duration": "spec.max_duration",
    "is_sandbox": "spec.sandbox",
    "quality": "spec.video.quality",
    "encoding": "spec.video.encoding",
}
"""Field paths of our contract by LiveAvatar's field names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """HTTP response, parsed as far as possible."""

    endpoint: str
    status: int
    body: Mapping[str, Any] | None
    """JSON object; None if the body is not a JSON object."""
    code: int | None
    """LiveAvatar's code from the envelope."""
    message: str
    """Most specific message in the body."""
    field: str
    """LiveAvatar's name of the invalid field; empty if none is named."""
    retry_after_s: float | None
    own: bool
    """True if the body has one of LiveAvatar's forms; other bodies may come from a proxy on the way."""

    @classmethod
    def of(cls, status: int, content: bytes, headers: Mapping[str, str], *, endpoint: str) -> "Answer":
        """Parse a response of any shape: envelope, envelope with field details, or the framework's own."""
        body = _object(content)
        detail = _first_detail(body)
        return cls(
            endpoint=endpoint,
            status=status,
            body=body,
            code=_integer(body.get("code")) if body else None,
            message=bounded(_message(body, detail, content), _MAX_QUOTED_BYTES),
            field=bounded(_field(detail), MAX_KIND_BYTES),
            retry_after_s=_retry_after_s(headers),
            own=_is_own(status, body, detail),
        )


def refusal(answer: Answer) -> GatewayError:
    """Return the error for a response outside 2xx. The HTTP status decides first, then code and message."""
    said = f"LiveAvatar: {answer.message}" if answer.message else f"LiveAvatar answered {answer.status}"
    values: dict[str, object] = {"endpoint": answer.endpoint, "http_status": answer.status}
    if answer.code is not None:
        values["upstream_code"] = answer.code
    if answer.message:
        values["upstream_message"] = answer.message
    if not answer.own:
        values[FOREIGN] = "true"
    if answer.status == 429:
        return UpstreamRateLimited(said, retry_after_s=answer.retry_after_s or 1.0, values=values)
    if answer.status >= 500:
        return _server_error(answer, said, values)
    if not answer.own:
        return UpstreamProtocol(
            f"{answer.status} response that is not in LiveAvatar's form: "
            f"{answer.message or 'empty body'}; check LIVEAVATAR_API_URL and proxies on the way",
            retry_after_s=1.0,
            values=values,
        )
    if answer.status in (402, 403, 409):
        return _limit(answer, said, values)
    if answer.status == 401:
        return UpstreamUnauthenticated(
            f"{said}; check LIVEAVATAR_API_KEY (not a HeyGen key; make one at app.liveavatar.com/developers)",
            values=values,
        )
    return UpstreamRejected(said, field=_FIELDS.get(answer.field, answer.field or None), values=values)


def _limit(answer: Answer, said: str, values: dict[str, object]) -> GatewayError:
    message = answer.message.lower()
    if answer.code in _CREDIT_CODES or "credit" in message or answer.status == 402:
        return UpstreamCreditsExhausted(f"{said}; add credits to the account", values=values)
    if answer.code in _CONCURRENCY_CODES or "concurrency" in message or answer.status == 409:
        return CapacityExhausted(
            f"{said}; another program uses the account too, or GATEWAY_MAX_SESSIONS is above its limit",
            scope="upstream_account",
            retry_after_s=answer.retry_after_s or 1.0,
            values=values,
        )
    if answer.code in _PLAN_CODES or "plan" in message:
        return UpstreamPlanRequired(f"{said}; ask for a lower quality, or change the plan", values=values)
    return UpstreamRejected(said, field=_FIELDS.get(answer.field, answer.field or None), values=values)


def is_denied(error: GatewayError) -> bool:
    """Return True if LiveAvatar itself refused a call for good, so that the call had no effect.

    A server error or 408 may come after the effect, and a response in another form may come from a proxy.
    """
    status = error.metadata.get("http_status", "")
    return status.startswith("4") and status != "408" and FOREIGN not in error.metadata


def is_answered(error: Exception) -> bool:
    """Return True if LiveAvatar itself answered, so that the call can have no later effect."""
    return isinstance(error, GatewayError) and "http_status" in error.metadata and FOREIGN not in error.metadata


def is_absent(error: GatewayError) -> bool:
    """Return True if LiveAvatar itself reports that the session does not exist."""
    return is_denied(error) and error.metadata.get("http_status") == "404"


def _is_own(status: int, body: Mapping[str, Any] | None, detail: Mapping[str, Any]) -> bool:
    """Return True if a body is LiveAvatar's envelope or, with 422, a list of details from its framework."""
    if body is None:
        return False
    if status == 422 and isinstance(body.get("detail"), list):
        return isinstance(detail.get("loc"), list) and isinstance(detail.get("msg"), str)
    return _integer(body.get("code")) is not None and "data" in body and isinstance(body.get("message"), str)


def _server_error(answer: Answer, said: str, values: dict[str, object]) -> GatewayError:
    origin = "a fault of LiveAvatar" if answer.own else "a fault of LiveAvatar or of a proxy in front of it"
    return UpstreamUnreachable(f"{said}; {origin}", retry_after_s=answer.retry_after_s or 1.0, values=values)


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


def _message(body: Mapping[str, Any] | None, detail: Mapping[str, Any], content: bytes) -> str:
    """Return the first message found, in the order of LiveAvatar's own web client."""
    if body is None:
        return content[:_MAX_READ_CHARS].decode(errors="replace").strip()
    candidates = (
        detail.get("message"),
        body.get("message"),
        detail.get("msg"),
        body.get("detail"),
        body.get("error"),
    )
    return next((text for text in candidates if isinstance(text, str) and text), "")


def _field(detail: Mapping[str, Any]) -> str:
    location = detail.get("loc")
    name = location[-1] if isinstance(location, list) and location else ""
    return str(name) if isinstance(name, str | int) else ""


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of `Retry-After`. Dates are ignored: LiveAvatar counts in one-second windows."""
    try:
        return min(max(0.0, float(headers.get("retry-after", ""))), _MAX_RETRY_AFTER_S)
    except ValueError:
        return None
