"""LiveAvatar's REST API over httpx: every answer is a value, every refusal one of our errors."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import structlog

from liveavatar_gateway.core.errors import (
    GatewayError,
    UpstreamError,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.model import AvatarRequest, Fate, LiveKitAccess, Minted, Started
from liveavatar_gateway.upstream.refusals import Answer, refusal

_log = structlog.get_logger(__name__)

_KNOWN_SUCCESS_CODES: Final = frozenset({100, 1000, 200, None})
_PAGE_SIZE: Final = 100
"""The most that LiveAvatar gives. Source: OpenAPI schema, GET /v1/sessions."""
_MAX_PAGES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RestConfig:
    """How LiveAvatar's REST API is called."""

    base_url: str = "https://api.liveavatar.com"
    """Without the `/v1`."""
    timeout_s: float = 15.0
    """Longest wait for one answer. Start takes seconds; lower gives up on slow ones, higher lets callers wait."""
    attempts: int = 3
    """Tries of calls that may be repeated safely: token, stop, reads. Start is never repeated."""
    backoff_s: float = 0.25
    """Wait before the second try; doubles, with jitter. `Retry-After` goes before it."""


class Rest:
    """One account's REST API. Whoever makes it closes it."""

    def __init__(
        self,
        config: RestConfig,
        api_key: str,
        *,
        metrics: Metrics | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._metrics = metrics or Metrics()
        self._key_header = {"X-API-KEY": api_key}
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._client = httpx.AsyncClient(
            base_url=config.base_url,
            timeout=config.timeout_s,
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=50),
        )

    def use_key(self, api_key: str) -> bool:
        """Call with another key from now on, of the same account; returns whether it is another."""
        header = {"X-API-KEY": api_key}
        changed = header != self._key_header
        self._key_header = header
        return changed

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def mint(self, request: AvatarRequest, room: LiveKitAccess | None = None) -> Minted:
        """Mint a session token. Free, so it is retried.

        Args:
            request: What the avatar shall be.
            room: A room of the caller's own with the avatar's token; None for one that LiveAvatar makes.

        Raises:
            UpstreamError, CapacityExhausted: refused or failed; the class says how.
        """
        body: dict[str, Any] = {
            "mode": "LITE",
            "avatar_id": request.avatar_id,
            "is_sandbox": request.sandbox,
            "video_settings": {"quality": request.quality, "encoding": request.encoding},
        }
        if request.max_duration_s is not None:
            body["max_session_duration"] = request.max_duration_s
        if room is not None:
            body["livekit_config"] = {
                "livekit_url": room.url,
                "livekit_room": room.room,
                "livekit_client_token": room.token,
            }
        data = await self._retried("POST", "/v1/sessions/token", headers=self._key_header, json=body)
        return Minted(
            session_id=_required(data, "session_id", "token"), token=_required(data, "session_token", "token")
        )

    async def start(self, minted: Minted) -> Started:
        """Start a session: from here on it is billed. Never repeated blindly: a repeat could start two.

        Raises:
            UpstreamError, CapacityExhausted: refused or failed; it may be running all the same, so stop it.
        """
        headers = {"Authorization": f"Bearer {minted.token}"}
        answer = await self._call("POST", "/v1/sessions/start", headers=headers, json={})
        data = _data_of(answer)
        return Started(
            session_id=minted.session_id,
            ws_url=_required(data, "ws_url", "start"),
            room_url=_optional(data, "livekit_url"),
            viewer_token=_optional(data, "livekit_client_token"),
            max_duration_s=_seconds(data.get("max_session_duration")),
        )

    async def stop(self, session_id: str, reason: str) -> bool:
        """Stop a session and with it its billing; False when it had ended before.

        Uses the API key, which works when the session's own token has run out.

        Raises:
            GatewayError: it could not be stopped now.
        """
        body = {"session_id": session_id, "reason": reason}
        try:
            await self._retried("POST", "/v1/sessions/stop", headers=self._key_header, json=body)
        except GatewayError as error:
            if error.metadata.get("http_status") == "404":
                return False
            raise
        return True

    async def fate(self, session_id: str) -> Fate:
        """Whether a session is over, and LiveAvatar's own word for why.

        Raises:
            GatewayError: it could not be asked.
        """
        try:
            data = await self._retried("GET", f"/v1/sessions/{session_id}", headers=self._key_header)
        except GatewayError as error:
            if error.metadata.get("http_status") == "404":
                return Fate(over=True)
            raise
        reason = _optional(data, "end_reason")
        # A record has no state of its own; these two are there when it is historic.
        return Fate(over=bool(reason or _optional(data, "end_at")), reason=reason)

    async def active(self) -> Sequence[str]:
        """Ids of all sessions that run on the account, whoever started them.

        Raises:
            GatewayError: it could not be asked.
        """
        found: list[str] = []
        for page in range(1, _MAX_PAGES + 1):
            path = f"/v1/sessions?type=active&page={page}&page_size={_PAGE_SIZE}"
            data = await self._retried("GET", path, headers=self._key_header)
            results = data.get("results")
            entries = results if isinstance(results, list) else []
            found += [
                entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)
            ]
            if not entries or data.get("next") is None:
                break
        return found

    async def credits_left(self) -> str:
        """Credits of the account as LiveAvatar writes them, such as "999.00"; also proves that the key works.

        Raises:
            GatewayError: refused or failed.
        """
        data = await self._retried("GET", "/v1/users/credits", headers=self._key_header)
        return str(data.get("credits_left", ""))

    async def _retried(self, method: str, path: str, **arguments: Any) -> Mapping[str, Any]:
        """Call until it works, is refused for good, or the attempts are used up."""
        for attempt in range(1, self._config.attempts + 1):
            try:
                return _data_of(await self._call(method, path, **arguments))
            except UpstreamError as error:
                if error.retry_after_s is None or attempt == self._config.attempts:
                    raise
                wait_s = max(error.retry_after_s, self._config.backoff_s * 2 ** (attempt - 1))
                _log.info(
                    "upstream.retry", path=path, attempt=attempt, reason=error.reason, wait_s=round(wait_s, 2)
                )
                await asyncio.sleep(wait_s * self._rng.uniform(1.0, 1.3))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _call(self, method: str, path: str, **arguments: Any) -> Answer:
        try:
            return await self._ask(method, path, **arguments)
        except GatewayError as error:
            self._metrics.upstream_failed(error.reason)
            raise

    async def _ask(self, method: str, path: str, **arguments: Any) -> Answer:
        try:
            response = await self._client.request(method, path, **arguments)
        except httpx.TimeoutException as error:
            raise UpstreamTimeout(
                f"LiveAvatar did not answer {method} {path} within {self._config.timeout_s:g} s",
                retry_after_s=self._config.backoff_s,
                endpoint=path,
                timeout_s=self._config.timeout_s,
            ) from error
        # AttributeError is what a connection that is reset while it is made becomes: anyio asks the socket that is
        # gone for its name, and httpx lets it through.
        except (httpx.HTTPError, AttributeError) as error:
            raise UpstreamUnreachable(
                f"LiveAvatar cannot be reached for {method} {path}: {type(error).__name__}; "
                "check LIVEAVATAR_API_URL and the network",
                retry_after_s=self._config.backoff_s,
                endpoint=path,
            ) from error
        answer = Answer.of(response.status_code, response.content, response.headers, endpoint=path)
        if not response.is_success:
            raise refusal(answer)
        if answer.code not in _KNOWN_SUCCESS_CODES:
            _log.warning("upstream.unknown_success_code", path=path, code=answer.code)
        return answer


def _data_of(answer: Answer) -> Mapping[str, Any]:
    if answer.body is None:
        raise UpstreamProtocol(
            f"LiveAvatar answered {answer.endpoint} with {answer.status} and no JSON; is the API URL right?",
            retry_after_s=1.0,
            endpoint=answer.endpoint,
            http_status=answer.status,
        )
    data = answer.body.get("data")
    return data if isinstance(data, dict) else {}


def _required(data: Mapping[str, Any], name: str, endpoint: str) -> str:
    value = _optional(data, name)
    if not value:
        raise UpstreamProtocol(
            f"LiveAvatar's answer to {endpoint} has no {name}", retry_after_s=1.0, endpoint=endpoint, missing=name
        )
    return value


def _optional(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _seconds(value: object) -> float | None:
    """Read leniently: one of LiveAvatar's fixtures shows the number as a string."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return None
    return seconds if seconds > 0 else None
