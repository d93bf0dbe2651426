"""Client of LiveAvatar's REST API: responses become values, failures become the gateway's errors."""

import asyncio
import functools
import random
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import structlog

from liveavatar_gateway import incidents
from liveavatar_gateway.core.errors import (
    GatewayError,
    UpstreamError,
    UpstreamProtocol,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from liveavatar_gateway.pool.account_health import RateBudget
from liveavatar_gateway.rooms.access import LiveKitAccess
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.avatars import Avatar, usable, with_sandbox
from liveavatar_gateway.upstream.bounds import (
    MAX_ID_CHARS,
    MAX_KIND_BYTES,
    MAX_REASON_BYTES,
    MAX_TOKEN_CHARS,
    MAX_URL_CHARS,
    bounded,
    session_seconds,
)
from liveavatar_gateway.upstream.errors import Answer, is_absent, refusal
from liveavatar_gateway.upstream.model import AvatarRequest, Minted, RemoteStatus, Started
from liveavatar_gateway.upstream.proxies import Proxies
from liveavatar_gateway.upstream.redaction import Redactor, proxy_secrets
from liveavatar_gateway.upstream.standstill import patient_timeout
from liveavatar_gateway.upstream.stopper import Stopped

_log = structlog.get_logger(__name__)

_KNOWN_SUCCESS_CODES: Final = frozenset({100, 1000, 200, None})
_PAGE_SIZE: Final = 100
"""LiveAvatar's maximum. Source: OpenAPI schema, GET /v1/sessions."""
_MAX_PAGES: Final = 100
_MAX_BODY_BYTES: Final = 2**20
"""Largest response that is read, decompressed; a full page of sessions takes about 30 kB."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_ID: Final = re.compile(r"(?!\.+$)[\w.~-]+", re.ASCII)
_TOKEN: Final = re.compile(r"[!-~]+")
"""Visible ASCII, because a token is sent in a header."""
_IDLE_CONNECTION_S: Final = 4.0
"""Longest idle time after which a connection is reused. Many servers close idle connections after 5 s; a start on
a closed connection fails, and starts are not retried."""
_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "liveavatar-gateway"}
"""Responses are small, and unpacking costs more than it saves."""
_MINT: Final = "/v1/sessions/token"
_MAX_RATE: Final = 1_000_000
_MAX_RESET_S: Final = 60.0
"""Longest window of a rate limit that is believed; LiveAvatar's are one second."""
_MAX_RETRY_WAIT_S: Final = 10.0
"""Longest `Retry-After` for which a call is retried; the caller gets the error of a longer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestConfig:
    """Address, time-out and retry policy of LiveAvatar's REST API."""

    base_url: str = "https://api.liveavatar.com"
    """Address without `/v1`."""
    timeout_s: float = 15.0
    """Longest wait for a complete response, from connecting to the last byte. Lower fails on slow starts, which
    take seconds; higher lets callers wait."""
    attempts: int = 3
    """Tries of the calls that are retried: mint and reads. Start is never retried; `Stopper` retries stops."""
    proxies: Proxies = field(default_factory=Proxies)
    """Proxies through which the API is called."""
    avatars_timeout_s: float = 30.0
    """Longest wait for all pages of the lists of avatars."""
    backoff_s: float = 0.25
    """Wait before the second try; doubles, with jitter. `Retry-After` takes precedence."""


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Return the TLS settings of all clients: reading the certificates takes too long for each new account."""
    return httpx.create_ssl_context()


class Rest:
    """REST client of one account. The creator closes it."""

    def __init__(
        self,
        config: RestConfig,
        api_key: str,
        *,
        metrics: Metrics | None = None,
        on_budget: Callable[[RateBudget], object] = lambda _: None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; nothing is called yet.

        Args:
            config: Address, time-outs and retries.
            api_key: API key of the account.
            metrics: Counts failures.
            on_budget: Called with the rate limit of the key for tokens, whenever LiveAvatar reports it.
            rng: Source of jitter.
        """
        self._on_budget = on_budget
        self._config = config
        self.metrics = metrics or Metrics()
        self._key_header = {"X-API-KEY": api_key}
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._proxy = config.proxies.of_url(config.base_url)
        self._redactor = Redactor([api_key, *([] if self._proxy is None else proxy_secrets(self._proxy.url))])
        self._base_url = config.base_url.rstrip("/")
        # A client around it would follow redirects, keep cookies and merge addresses, none of which is wanted, and
        # take half of the time of a call.
        self._transport = httpx.AsyncHTTPTransport(
            proxy=None if self._proxy is None else httpx.Proxy(self._proxy.url),
            # `Proxies` decides for REST and sockets alike; httpx still reads SSL_CERT_FILE.
            trust_env=False,
            verify=_tls_context(),
            limits=httpx.Limits(
                max_connections=200, max_keepalive_connections=50, keepalive_expiry=_IDLE_CONNECTION_S
            ),
        )

    def use_key(self, api_key: str) -> bool:
        """Use another key of the same account from now on; return False if the key is the same."""
        header = {"X-API-KEY": api_key}
        changed = header != self._key_header
        self._key_header = header
        self._redactor.add(api_key)
        return changed

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def mint(
        self, request: AvatarRequest, room: LiveKitAccess | None = None, *, retries: bool = True
    ) -> Minted:
        """Mint a session token. Free of charge, so failures are retried.

        Args:
            request: Avatar, quality and limits.
            room: Room of the caller's own with the avatar's token; None for a room that LiveAvatar creates.
            retries: False for a single attempt, if another account can be tried instead.

        Raises:
            UpstreamError: LiveAvatar refused or failed.
            CapacityExhausted: LiveAvatar reports a full account.
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
        if (agora := request.agora_room) is not None:
            body["agora_config"] = {
                "agora_app_id": agora.app_id,
                "agora_token": agora.token,
                "agora_channel": agora.channel,
                "agora_uid": agora.uid,
            }
        if (connector := request.connector) is not None:
            body[connector.kind.value] = connector.body()
        attempts = self._config.attempts if retries else 1
        data = await self._retried("POST", _MINT, attempts=attempts, headers=self._key_header, json=body)
        return Minted(
            session_id=_id(_required(data, "session_id", "token", max_chars=MAX_ID_CHARS)),
            token=_token(_required(data, "session_token", "token", max_chars=MAX_TOKEN_CHARS)),
        )

    async def start(self, minted: Minted, *, has_socket: bool = True) -> Started:
        """Start a session, which is billed from now on. Never retried, because a retry could start two.

        Args:
            minted: The session.
            has_socket: False if a hosted agent is to drive the avatar, so that there is no command socket.

        Raises:
            UpstreamError: LiveAvatar refused or failed; the session may run regardless, so stop it.
            CapacityExhausted: LiveAvatar reports a full account.
        """
        headers = {"Authorization": f"Bearer {minted.token}"}
        answer = await self._call("POST", "/v1/sessions/start", headers=headers, json={})
        data = _data_of(answer)
        limit = data.get("max_session_duration")
        max_duration_s = session_seconds(limit)
        if limit is not None and max_duration_s is None:
            _log.warning("upstream.limit_ignored", upstream_session=minted.session_id, said=_shown(limit))
        if not has_socket and _text(data, "ws_url"):
            # A schema without the connector ignores its field, and nobody would speak.
            raise UpstreamRejected(
                "LiveAvatar does not know the connector: it started the avatar without an agent, and the session "
                "is being stopped",
                field="connector",
                endpoint="start",
            )
        # The users of a hosted agent are in LiveAvatar's room, so that it is of no use without access.
        room_field = _optional if has_socket else _required
        return Started(
            session_id=minted.session_id,
            ws_url=_required(data, "ws_url", "start", max_chars=MAX_URL_CHARS) if has_socket else "",
            room_url=room_field(data, "livekit_url", "start", max_chars=MAX_URL_CHARS),
            viewer_token=room_field(data, "livekit_client_token", "start", max_chars=MAX_TOKEN_CHARS),
            agent_token=_optional(data, "livekit_agent_token", "start", max_chars=MAX_TOKEN_CHARS),
            max_duration_s=max_duration_s,
        )

    async def stop(self, session_id: str, reason: str) -> Stopped:
        """Try once to stop a session and its billing; `Stopper` retries.

        Uses the API key, which still works after the session's own token has expired.

        Raises:
            GatewayError: LiveAvatar did not confirm the stop; the session may have stopped regardless.
        """
        body = {"session_id": session_id, "reason": reason}
        try:
            answer = await self._call("POST", "/v1/sessions/stop", headers=self._key_header, json=body)
        except GatewayError as error:
            if is_absent(error):
                return Stopped.BEFORE
            raise
        _require_own(answer)
        return Stopped.NOW

    async def keep_alive(self, session_id: str) -> None:
        """Restart LiveAvatar's idle timer of a session, once; the socket's keep-alive restarts the same timer.

        Raises:
            GatewayError: LiveAvatar did not confirm it.

        Source: LiveAvatar's OpenAPI schema, POST /v1/sessions/keep-alive.
        """
        body = {"session_id": session_id}
        _require_own(await self._call("POST", "/v1/sessions/keep-alive", headers=self._key_header, json=body))

    async def remote_status(self, session_id: str) -> RemoteStatus:
        """Return LiveAvatar's record of a session: over or not, and the reason.

        Raises:
            GatewayError: LiveAvatar did not answer.
        """
        try:
            data = await self._retried("GET", f"/v1/sessions/{session_id}", headers=self._key_header, own=True)
        except GatewayError as error:
            if is_absent(error):
                return RemoteStatus(over=True)
            raise
        reason = bounded(_text(data, "end_reason"), MAX_REASON_BYTES)
        # Records have no state field; ended sessions have these two fields.
        return RemoteStatus(over=bool(reason or _text(data, "end_at")), reason=reason)

    async def active(self) -> Sequence[str]:
        """Return the ids of all sessions that run on the account, including those of other programs.

        Raises:
            GatewayError: LiveAvatar did not answer.
        """
        return [
            entry["id"]
            async for page in self._pages("/v1/sessions?type=active&", headers=self._key_header)
            for entry in page
            if isinstance(entry, dict) and isinstance(entry.get("id"), str)
        ]

    async def avatars(self) -> Sequence[Avatar]:
        """Return the avatars that sessions of the account can use: its own, public ones, and that of the sandbox.

        Raises:
            GatewayError: LiveAvatar refused or failed, or did not send all pages in time.
        """
        limit_s = self._config.avatars_timeout_s
        found: list[Avatar] = []
        try:
            async with patient_timeout(limit_s):
                async for page in self._pages("/v1/avatars?", headers=self._key_header):
                    found += usable(page)
                async for page in self._pages("/v1/avatars/public?"):
                    found += usable(page)
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"LiveAvatar did not send its lists of avatars within {limit_s:g} s",
                retry_after_s=self._config.backoff_s,
                endpoint="/v1/avatars",
                timeout_s=limit_s,
            ) from error
        return with_sandbox(found)

    async def _pages(self, path: str, **arguments: Any) -> AsyncIterator[Sequence[object]]:
        """Yield all pages of a list.

        Args:
            path: Path with a query, to which the page is added.
            arguments: Arguments for httpx.
        """
        for page in range(1, _MAX_PAGES + 1):
            endpoint = f"{path}page={page}&page_size={_PAGE_SIZE}"
            data = await self._retried("GET", endpoint, own=True, **arguments)
            entries = data.get("results")
            if not isinstance(entries, list):
                raise UpstreamProtocol(
                    f"LiveAvatar's answer to {path.rstrip('?&')} has no results",
                    retry_after_s=1.0,
                    endpoint=endpoint,
                    missing="results",
                )
            yield entries
            if not entries or data.get("next") is None:
                return
        _log.warning("upstream.list_cut", path=path.rstrip("?&"), pages=_MAX_PAGES)

    async def credits_left(self) -> str:
        """Return the account's credits as LiveAvatar writes them, such as "999.00". Proves that the key works.

        Raises:
            GatewayError: LiveAvatar refused or failed.
        """
        data = await self._retried("GET", "/v1/users/credits", headers=self._key_header, own=True)
        return _shown(data.get("credits_left", ""))

    async def _retried(
        self, method: str, path: str, *, own: bool = False, attempts: int | None = None, **arguments: Any
    ) -> Mapping[str, Any]:
        """Call until LiveAvatar answers, refuses for good, or all attempts have failed.

        Args:
            method: HTTP method.
            path: Path below the base URL.
            own: Accept only a response in LiveAvatar's form, if its content is used as proof.
            attempts: Number of attempts; None for the configured number.
            arguments: Arguments for httpx.
        """
        attempts = attempts or self._config.attempts
        for attempt in range(1, attempts + 1):
            try:
                answer = await self._call(method, path, **arguments)
                if own:
                    _require_own(answer)
                return _data_of(answer)
            except UpstreamError as error:
                if error.retry_after_s is None or attempt == attempts:
                    raise
                if error.retry_after_s > _MAX_RETRY_WAIT_S:
                    raise
                wait_s = max(error.retry_after_s, self._config.backoff_s * 2 ** (attempt - 1))
                _log.info(
                    "upstream.retry", path=path, attempt=attempt, reason=error.reason, wait_s=round(wait_s, 2)
                )
                await asyncio.sleep(wait_s * self._rng.uniform(1.0, 1.3))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _call(self, method: str, path: str, **arguments: Any) -> Answer:
        try:
            return await self._request(method, path, **arguments)
        except GatewayError as error:
            self.metrics.upstream_failed(error.reason)
            raise

    async def _request(self, method: str, path: str, **arguments: Any) -> Answer:
        try:
            # httpx bounds each single read, so a slowly dripping response would never end, and a response that
            # arrived while this process was suspended would not be read.
            async with patient_timeout(self._config.timeout_s):
                response, content = await self._exchange(method, path, **arguments)
            if path == _MINT and (budget := _budget(response.headers)) is not None:
                self._on_budget(budget)
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"LiveAvatar did not answer {method} {path} within {self._config.timeout_s:g} s",
                retry_after_s=self._config.backoff_s,
                endpoint=path,
                timeout_s=self._config.timeout_s,
            ) from error
        # A connection that is reset while it is opened raises AttributeError: anyio reads the name of the closed
        # socket, and httpx does not convert the error.
        except (httpx.HTTPError, AttributeError) as error:
            incident = incidents.report(
                "upstream.unreachable",
                endpoint=path.partition("?")[0],
                error=type(error).__name__,
                proxy="" if self._proxy is None else self._proxy.shown,
            )
            raise UpstreamUnreachable(
                f"LiveAvatar cannot be reached for {method} {path}: {type(error).__name__}; check "
                "LIVEAVATAR_API_URL, proxies on the way and the network; the gateway's log has more under "
                f"incident {incident}",
                retry_after_s=self._config.backoff_s,
                endpoint=path,
                incident=incident,
            ) from error
        hide = self._redactor.with_request(arguments).hide
        answer = Answer.of(response.status_code, content, response.headers, endpoint=path, hide=hide)
        if not response.is_success:
            raise refusal(answer, incident="" if answer.own else _note_foreign(answer))
        if answer.code not in _KNOWN_SUCCESS_CODES:
            _log.warning("upstream.unknown_success_code", path=path, code=answer.code)
        return answer

    async def _exchange(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, json: object = None
    ) -> tuple[httpx.Response, bytes]:
        """Send a request; returns the response, which is closed, and its body."""
        request = httpx.Request(
            method, f"{self._base_url}{path}", headers={**_HEADERS, **(headers or {})}, json=json
        )
        response = await self._transport.handle_async_request(request)
        try:
            return response, await _read(response, path)
        finally:
            await response.aclose()


async def _read(response: httpx.Response, path: str) -> bytes:
    """Return the body, decompressed. Reads no more than the limit, before and after decompression.

    httpx would decompress each part whole, and a part of 64 kB may hold 64 MB.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise _foreign(f"the response to {path} is encoded as {bounded(encoding, 20)!r}", path, response)
    unpacker = None if encoding == "identity" else zlib.decompressobj(_GZIP)
    content, raw_bytes = bytearray(), 0
    async for part in response.aiter_raw():
        raw_bytes += len(part)
        if unpacker is None:
            content += part
        else:
            try:
                content += unpacker.decompress(part, _MAX_BODY_BYTES + 1 - len(content))
            except zlib.error:
                raise _foreign(f"the response to {path} cannot be decompressed", path, response) from None
        if max(len(content), raw_bytes) > _MAX_BODY_BYTES:
            raise _foreign(f"the response to {path} has more than {_MAX_BODY_BYTES} bytes", path, response)
    if unpacker is not None and not unpacker.eof:
        raise _foreign(f"the response to {path} is cut", path, response)
    return bytes(content)


def _budget(headers: httpx.Headers) -> RateBudget | None:
    """Return the rate limit in the headers of a response; None without a usable one.

    Source: LiveAvatar API reference, rate limits: `X-RateLimit-Reset` is the time left in the window, seconds.
    """
    try:
        limit, remaining = int(headers["x-ratelimit-limit"]), int(headers["x-ratelimit-remaining"])
        reset_s = float(headers["x-ratelimit-reset"])
    except (KeyError, ValueError):
        return None
    if not (0 < limit <= _MAX_RATE and 0 <= remaining <= limit and 0 <= reset_s <= _MAX_RESET_S):
        # Such as a point in time, which other services send under this name.
        return None
    return RateBudget(limit=limit, remaining=remaining, reset_s=reset_s)


def _foreign(problem: str, path: str, response: httpx.Response) -> UpstreamProtocol:
    return UpstreamProtocol(
        f"{problem}; check LIVEAVATAR_API_URL and proxies on the way",
        endpoint=path,
        http_status=response.status_code,
        foreign_answer="true",
    )


def _require_own(answer: Answer) -> None:
    """Refuse a 2xx response that is not in LiveAvatar's form: a page of a proxy proves nothing."""
    if not answer.own:
        raise _not_own(answer)


def _not_own(answer: Answer) -> UpstreamProtocol:
    incident = _note_foreign(answer)
    return UpstreamProtocol(
        f"{answer.status} response to {answer.endpoint} that is not in LiveAvatar's form; check "
        f"LIVEAVATAR_API_URL and proxies on the way; the gateway's log has the response under incident {incident}",
        retry_after_s=1.0,
        endpoint=answer.endpoint,
        http_status=answer.status,
        foreign_answer="true",
        incident=incident,
    )


def _note_foreign(answer: Answer) -> str:
    """Log a response that is not LiveAvatar's, and return the id under which callers see it."""
    endpoint = answer.endpoint.partition("?")[0]
    return incidents.report(
        "upstream.foreign_answer", endpoint=endpoint, status=answer.status, excerpt=answer.excerpt
    )


def _data_of(answer: Answer) -> Mapping[str, Any]:
    if answer.body is None:
        raise _not_own(answer)
    data = answer.body.get("data")
    return data if isinstance(data, dict) else {}


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _required(data: Mapping[str, Any], name: str, endpoint: str, *, max_chars: int) -> str:
    value = _optional(data, name, endpoint, max_chars=max_chars)
    if not value:
        raise UpstreamProtocol(
            f"LiveAvatar's answer to {endpoint} has no {name}", retry_after_s=1.0, endpoint=endpoint, missing=name
        )
    return value


def _optional(data: Mapping[str, Any], name: str, endpoint: str, *, max_chars: int) -> str:
    """Return a text field; too long a text is refused, because a truncated one would be useless."""
    value = _text(data, name)
    if len(value) > max_chars:
        raise _invalid(endpoint, name, f"is longer than {max_chars} characters")
    return value


def _id(value: str) -> str:
    """Refuse an id that would change the path of later requests."""
    if not _ID.fullmatch(value):
        raise _invalid("token", "session_id", "is not an id")
    return value


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise _invalid("token", "session_token", "cannot be sent in a header")
    return value


def _invalid(endpoint: str, name: str, problem: str) -> UpstreamProtocol:
    return UpstreamProtocol(
        f"{name} in LiveAvatar's answer to {endpoint} {problem}",
        retry_after_s=1.0,
        endpoint=endpoint,
        invalid=name,
    )


def _shown(value: object) -> str:
    return bounded(str(value), MAX_KIND_BYTES) if isinstance(value, str | int | float) else ""
