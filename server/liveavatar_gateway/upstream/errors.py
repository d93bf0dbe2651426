"""Mapping of LiveAvatar's HTTP errors to the gateway's errors. Pure: takes status, body and headers.

Source: LiveAvatar's OpenAPI schema for the shapes; codes and messages as recorded by several public clients.
"""

from collections.abc import Callable, Mapping
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
from liveavatar_gateway.escaping import escaped
from liveavatar_gateway.upstream.bounds import MAX_KIND_BYTES, bounded

_PLAN_CODES: Final = frozenset({4030})
_CONCURRENCY_CODES: Final = frozenset({4032, 4003})
_CREDIT_CODES: Final = frozenset({4033})
_MAX_QUOTED_BYTES: Final = 300
"""Limit of LiveAvatar's message that is passed on."""
_MAX_EXCERPT_CHARS: Final = 500
"""Limit of the beginning of a body that is logged."""
_MAX_READ_BYTES: Final = 4000
"""Limit of what is searched for secrets, since a secret that is cut in two would not be found."""
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
    """Most specific message in the body; empty if the body is not LiveAvatar's."""
    field: str
    """LiveAvatar's name of the invalid field; empty if none is named."""
    retry_after_s: float | None
    own: bool
    """True if the body has one of LiveAvatar's forms; other bodies may come from a proxy on the way."""
    excerpt: str
    """Beginning of a body that is not LiveAvatar's, for the log alone; empty for its own, whole or in part."""

    @classmethod
    def of(
        cls,
        status: int,
        content: bytes,
        headers: Mapping[str, str],
        *,
        endpoint: str,
        hide: Callable[[str], str] = lambda text: text,
    ) -> "Answer":
        """Parse a response of any shape: envelope, envelope with field details, or the framework's own.

        Args:
            status: HTTP status.
            content: Body.
            headers: Headers by lower-case name.
            endpoint: Path of the request.
            hide: Removes the gateway's secrets from a text, since a response may repeat its request.
        """
        body = _object(content)
        detail = _first_detail(body)
        own = _is_own(status, body, detail)
        return cls(
            endpoint=endpoint,
            status=status,
            body=body,
            code=_integer(body.get("code")) if body else None,
            # The page of a proxy names hosts and versions, which are no concern of callers.
            message=bounded(escaped(hide(_message(body, detail))), _MAX_QUOTED_BYTES) if own else "",
            field=bounded(_field(detail), MAX_KIND_BYTES),
            retry_after_s=_retry_after_s(headers),
            own=own,
            excerpt="" if own else hide(_excerpt(content, body))[:_MAX_EXCERPT_CHARS],
        )


def refusal(answer: Answer, *, incident: str = "") -> GatewayError:
    """Return the error for a response outside 2xx. The HTTP status decides first, then code and message.

    Args:
        answer: The response.
        incident: Id under which the log has a body that is not LiveAvatar's.
    """
    said = f"LiveAvatar: {answer.message}" if answer.message else f"LiveAvatar answered {answer.status}"
    values: dict[str, object] = {"endpoint": answer.endpoint, "http_status": answer.status}
    if answer.code is not None:
        values["upstream_code"] = answer.code
    if answer.message:
        values["upstream_message"] = answer.message
    if not answer.own:
        return _foreign(answer, said, {**values, FOREIGN: "true"}, incident)
    if answer.status == 429:
        return UpstreamRateLimited(said, retry_after_s=answer.retry_after_s or 1.0, values=values)
    if answer.status >= 500:
        return _server_error(answer, said, values)
    if answer.status in (402, 403, 409):
        return _limit(answer, said, values)
    if answer.status == 401:
        return UpstreamUnauthenticated(
            f"{said}; check LIVEAVATAR_API_KEY (not a HeyGen key; make one at app.liveavatar.com/developers)",
            values=values,
        )
    return UpstreamRejected(said, field=_field_path(answer), values=values)


def _foreign(answer: Answer, said: str, values: dict[str, object], incident: str) -> GatewayError:
    """Return the error for a response that may come from a proxy; its body is not quoted."""
    where = "the gateway's log has the response"
    if incident:
        where += f" under incident {incident}"
        values["incident"] = incident
    if answer.status == 429:
        return UpstreamRateLimited(f"{said}; {where}", retry_after_s=answer.retry_after_s or 1.0, values=values)
    if answer.status >= 500:
        return _server_error(answer, said, values, where)
    return UpstreamProtocol(
        f"{answer.status} response that is not in LiveAvatar's form; check LIVEAVATAR_API_URL and proxies on the "
        f"way; {where}",
        retry_after_s=1.0,
        values=values,
    )


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
    return UpstreamRejected(said, field=_field_path(answer), values=values)


def _field_path(answer: Answer) -> str | None:
    """Return the field as the caller knows it; None if LiveAvatar names none, or a text that is not a name."""
    return _FIELDS.get(answer.field) or (answer.field if answer.field.isidentifier() else None)


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


def _server_error(answer: Answer, said: str, values: dict[str, object], where: str = "") -> GatewayError:
    origin = f"a fault of LiveAvatar or of a proxy in front of it; {where}" if where else "a fault of LiveAvatar"
    return UpstreamUnreachable(f"{said}; {origin}", retry_after_s=answer.retry_after_s or 1.0, values=values)


def _excerpt(content: bytes, body: Mapping[str, Any] | None) -> str:
    """Return the beginning of a page or of an error in JSON.

    Other JSON may be an answer of LiveAvatar that was damaged on the way, with tokens in it.
    """
    if content.lstrip()[:1] in (b"{", b"[") and (body is None or "data" in body):
        return f"({len(content)} bytes of JSON)"
    return content[:_MAX_READ_BYTES].decode(errors="replace")


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


def _message(body: Mapping[str, Any] | None, detail: Mapping[str, Any]) -> str:
    """Return the first message found, in the order of LiveAvatar's own web client."""
    if body is None:
        return ""
    candidates = (
        detail.get("message"),
        body.get("message"),
        detail.get("msg"),
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
