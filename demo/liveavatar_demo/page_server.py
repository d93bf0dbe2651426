"""HTTP server of the voice demo, on loopback: the page, its events, its commands.

A browser speaks no gRPC, so the page's commands come here. Three ways lead a foreign web page to a server on this
machine: a request to its address (cross-site request forgery), a host name that resolves to it (DNS rebinding),
and a guess of the address. The guard checks `Origin` and `Sec-Fetch-Site`, `Host`, and a token that only the
printed address has.

Source: Fetch Standard (`Origin`), Fetch Metadata Request Headers, RFC 6750 (bearer tokens), HTML Standard
(server-sent events).
"""

import asyncio
import contextlib
import enum
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from aiohttp import web

from liveavatar.gateway import GatewayError
from liveavatar_demo.conversation import Conversation

PAGE: Final = Path(__file__).parent / "voice_page"
"""Output folder of `make viewer`; absent in a checkout without a build."""
HOST: Final = "127.0.0.1"

_INDEX: Final = "index.html"
_ASSETS: Final = {
    "page.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    "licences.txt": "text/plain",
}
"""Files beside the index, with media types; no other file is served."""

_API: Final = "/api/"
_TOKEN_BYTES: Final = 18
_MAX_BODY_BYTES: Final = 1024
_MAX_READERS: Final = 16
"""Streams of events at once; a page has one."""
_BEAT_S: Final = 5.0
"""Period of a line that shows to both sides that the stream lives."""
_SEND_TIMEOUT_S: Final = 5.0
_COMMAND_TIMEOUT_S: Final = 15.0
_STOP_TIMEOUT_S: Final = 1.0


class Command(enum.StrEnum):
    """Command of the page."""

    START = "start"
    """The user has turned sound and microphone on."""
    INTERRUPT = "interrupt"
    """Silence the avatar."""
    PAUSE = "pause"
    """Pause the avatar's speech."""
    CONTINUE = "continue"
    """Continue it."""


class Refused(RuntimeError):
    """Command that cannot be carried out now; the message is shown to the user."""


class Controls(Protocol):
    """Receiver of the page's requests."""

    async def access(self) -> Mapping[str, str]:
        """Return url, token and identities for the room.

        Raises:
            Refused: there is no session now.
            GatewayError: the gateway refused.
        """

    async def command(self, command: Command) -> None:
        """Carry out a command.

        Raises:
            Refused: it cannot be carried out now.
            GatewayError: the gateway refused.
        """


class PortTaken(RuntimeError):
    """The port of the page is in use; the message names the option for another."""


class PageServer:
    """Server of the page. Its owner uses `running`."""

    def __init__(self, controls: Controls, conversation: Conversation, *, livekit_url: str) -> None:
        """Prepare the server.

        Args:
            controls: Receiver of requests.
            conversation: Record that pages read.
            livekit_url: LiveKit server, which the page may reach besides this server.
        """
        self._controls = controls
        self._conversation = conversation
        self._token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._policy = _security_policy(livekit_url)
        self._readers: set[asyncio.Task[Any]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """Address of the page, with its token: whoever has it may talk to the avatar."""
        return f"http://{HOST}:{self._port}/#token={self._token}"

    @contextlib.asynccontextmanager
    async def running(self, port: int) -> AsyncIterator[None]:
        """Serve for a block.

        Args:
            port: Port of 127.0.0.1; 0 takes a free one.

        Raises:
            PortTaken: the port is in use.
        """
        application = web.Application(middlewares=[self._guarded], client_max_size=_MAX_BODY_BYTES)
        application.add_routes(
            [
                web.get("/", self._index),
                web.get("/{name}", self._asset),
                web.get(f"{_API}access", self._access),
                web.get(f"{_API}events", self._events),
                web.post(f"{_API}commands/{{name}}", self._command),
            ]
        )
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_STOP_TIMEOUT_S)
        await runner.setup()
        try:
            site = web.TCPSite(runner, HOST, port)
            try:
                await site.start()
            except OSError as error:
                raise PortTaken(
                    f"port {port} of {HOST} cannot be used: {error.strerror}; choose another with --port"
                ) from None
            self._port = runner.addresses[0][1]
            yield
        finally:
            for reader in self._readers:
                reader.cancel()
            await runner.cleanup()

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        try:
            response = await handler(request)
        except web.HTTPException as error:
            return _error(error.status, error.reason)
        if not response.prepared:
            response.headers.update(self._headers)
        return response

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Host", "") not in {f"{HOST}:{self._port}", f"localhost:{self._port}"}:
            return _error(
                403, "The header Host does not name this server; open the address that the demo printed."
            )
        if is_foreign(request.headers):
            return _error(403, "Pages of other origins may not call this server.")
        if request.path.startswith(_API) and not self._has_token(request.headers):
            return _error(401, "This address has no valid token; open the one that the demo printed.")
        return None

    def _has_token(self, headers: Mapping[str, str]) -> bool:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token.encode())

    @property
    def _headers(self) -> Mapping[str, str]:
        return {
            "Content-Security-Policy": self._policy,
            "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }

    async def _index(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text=await _read(PAGE / _INDEX), content_type="text/html", charset="utf-8")

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in _ASSETS:
            return _error(404, f"This server has no file {name!r}.")
        return web.Response(text=await _read(PAGE / name), content_type=_ASSETS[name], charset="utf-8")

    async def _access(self, _request: web.Request) -> web.StreamResponse:
        return await _answered(self._controls.access())

    async def _command(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        try:
            command = Command(name)
        except ValueError:
            return _error(404, f"There is no command {name!r}.")
        return await _answered(self._controls.command(command))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        after = request.query.get("after", "0")
        if not after.isascii() or not after.isdigit() or len(after) > 12:
            return _error(400, "`after` is the number of an entry.")
        if len(self._readers) >= _MAX_READERS:
            return _error(503, "Too many pages read this conversation; close some.")
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a handler runs in a task
        self._readers.add(task)
        try:
            response = web.StreamResponse(headers={**self._headers, "Content-Type": "text/event-stream"})
            await response.prepare(request)
            with contextlib.suppress(OSError):  # the page is gone, or does not read
                await self._send_entries(response, int(after))
            return response
        finally:
            self._readers.discard(task)

    async def _send_entries(self, response: web.StreamResponse, after: int) -> None:
        """Send entries for as long as the page reads them."""
        entries = self._conversation.read(after)
        coming = asyncio.ensure_future(anext(entries))
        try:
            # The entry of the session's state may no longer be kept.
            hello = {"now_ms": self._conversation.now_ms(), "session": self._conversation.session_state}
            await _write(response, "hello", hello)
            while True:
                await asyncio.wait([coming], timeout=_BEAT_S)
                if not coming.done():
                    await _write(response, "beat", {"now_ms": self._conversation.now_ms()})
                    continue
                await _write(response, "entry", coming.result().to_json())
                coming = asyncio.ensure_future(anext(entries))
        finally:
            coming.cancel()
            await asyncio.wait([coming])
            await entries.aclose()


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from a page of another origin than the request's own address.

    A request without `Origin` and `Sec-Fetch-Site` comes from a program. A link may lead to the page, which the
    linking page cannot read.
    """
    origin = headers.get("Origin")
    if origin is not None:
        return origin != f"http://{headers.get('Host', '')}"
    if headers.get("Sec-Fetch-Site", "none") in {"none", "same-origin"}:
        return False
    return (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) != ("navigate", "document")


def is_built() -> bool:
    """Return whether the page was built."""
    return (PAGE / _INDEX).is_file()


async def _answered(request: Awaitable[Mapping[str, str] | None]) -> web.Response:
    """Answer with the result of a request, or with the reason of its failure."""
    try:
        async with asyncio.timeout(_COMMAND_TIMEOUT_S):
            return web.json_response(dict(await request or {}))
    except Refused as refusal:
        return _error(409, str(refusal))
    except GatewayError as error:
        return _error(409, f"The gateway refused: {error}")
    except TimeoutError:
        return _error(504, "The gateway did not answer in time; try again.")


async def _write(response: web.StreamResponse, event: str, data: Mapping[str, Any]) -> None:
    async with asyncio.timeout(_SEND_TIMEOUT_S):
        await response.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())


async def _read(path: Path) -> str:
    return await asyncio.to_thread(path.read_text, encoding="utf-8")


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


def _security_policy(livekit_url: str) -> str:
    """Return a policy under which the page runs its own script and reaches this server and LiveKit only.

    Source: Content Security Policy Level 3. LiveKit's client asks over HTTP why a WebSocket was refused.
    """
    parts = urlsplit(livekit_url)
    secure = "s" if parts.scheme == "wss" else ""
    reach = f"'self' ws{secure}://{parts.netloc} http{secure}://{parts.netloc}"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
        f"connect-src {reach}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
