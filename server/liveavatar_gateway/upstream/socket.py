"""The command socket: one connection, events handed over as they come, one writer."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from liveavatar_gateway.core.errors import UpstreamProtocol, UpstreamUnreachable
from liveavatar_gateway.core.messages import Command, Event, PongReceived, Probe
from liveavatar_gateway.upstream.proxies import Proxies
from liveavatar_gateway.upstream.wire import decode, encode

_MAX_EVENT_BYTES = 2**20
SEND_TIMEOUT_S = 10.0
"""A socket that takes nothing for this long is lost: the avatar has run dry long before."""
_CLOSE_TIMEOUT_S = 1.0
_READING_PASSES = 3
CONNECTION_LOST = 1006
_PING = b"p"
_NO_LINGER = struct.pack("ii", 1, 0)
"""A connection that is closed with this is reset, and what was not sent is dropped."""
_CLOSE_MEANINGS = {
    1000: "normal end",
    1001: "going away",
    CONNECTION_LOST: "connection lost",
    1009: "message too large",
    1011: "server error",
}
"""Source: RFC 6455 section 7.4.1, and what LiveAvatar's clients saw."""
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class SocketClosed(Exception):
    """The socket is gone, with its close code and what that means."""

    def __init__(self, code: int, reason: str) -> None:
        meaning = _CLOSE_MEANINGS.get(code, "unknown")
        super().__init__(f"command socket closed with {code} ({meaning}) {reason}".rstrip())
        self.code = code


async def read_what_arrived() -> None:
    """Let the event loop read all sockets, and hand over what they had.

    A loop that wakes up late runs its timers first: a poll that was interrupted by a suspension returns nothing.
    The first pass polls, and the callbacks that it finds run before the second one ends.
    """
    for _ in range(_READING_PASSES):
        await asyncio.sleep(0)


def _number_of(pong: Frame) -> int:
    """The number that a ping of ours carried; 0 for any other pong."""
    payload = bytes(pong.data)
    return int(payload[1:]) if payload.startswith(_PING) and payload[1:].isdigit() else 0


def is_socket_address(url: str) -> bool:
    """Return whether `url` has a form that can be connected to: ws or wss, a host, and a port if any is named."""
    try:
        host = parse_uri(url).host
        host.encode("idna")
        port = urlsplit(url).port
    except (ValueError, websockets.InvalidURI):
        return False
    return bool(host) and port != 0 and url.isprintable() and " " not in url


class _Connection(ClientConnection):
    """Hands each message over at once, where the library would queue it and wake a task to fetch it.

    Several events come for each packet, so that wake-up is a tenth of what a session costs. Fragments are put
    together here too: a message that took another way would be overtaken by those after it.
    """

    def __init__(self, on_event: Callable[[Event], None], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._on_event = on_event
        # The protocol beneath refuses fragments of another message in between, and too many bytes in all.
        self._fragments = bytearray()
        self._last_ping = 0
        self._abort: asyncio.TimerHandle | None = None

    def process_event(self, event: Frame | Response) -> None:  # type: ignore[override]  # as the library's own subclass
        if isinstance(event, Frame) and event.opcode in _DATA:
            if event.fin and not self._fragments:
                self._on_event(decode(bytes(event.data)))
                return
            self._fragments += event.data
            if event.fin:
                message, self._fragments = bytes(self._fragments), bytearray()
                self._on_event(decode(message))
        elif isinstance(event, Frame) and event.opcode is Opcode.PONG and (number := _number_of(event)):
            # A number that no ping had would confirm what was never sent.
            if number <= self._last_ping:
                self._on_event(PongReceived(number))
        else:
            super().process_event(event)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Nobody reads messages the library's way, which is where it would see to this deadline.
        if self.close_deadline is not None and self._abort is None:
            self._abort = self.loop.call_at(self.close_deadline, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._abort is not None:
            self._abort.cancel()
        super().connection_lost(exc)

    def put(self, frame: bytes | None, ping: int) -> bool:
        """Write a text frame, if any, and a numbered ping behind it, at once.

        True when the send buffer is full: then `drain` is to be awaited. The library's own `send` spends as much
        again on locks against other writers, and there are none.

        Raises:
            InvalidState: the connection is not open.
        """
        if frame is not None:
            self.protocol.send_text(frame)
        self._last_ping = ping
        self.protocol.send_ping(_PING + b"%d" % ping)
        self.send_data()
        return self.paused


class CommandSocket:
    """LiveAvatar's command socket. `send` from one task, `closed` in another; whoever opened it closes it."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(
        cls,
        ws_url: str,
        on_event: Callable[[Event], None],
        *,
        timeout_s: float,
        proxies: Proxies | None = None,
    ) -> "CommandSocket":
        """Connect. The address is a secret and is in no error.

        Args:
            ws_url: Where start said the socket is.
            on_event: Called with each event, from the loop; must not raise.
            timeout_s: Longest wait for the connection.
            proxies: Through what; None for directly.

        Raises:
            UpstreamUnreachable: it cannot be reached within `timeout_s`.
            UpstreamProtocol: `ws_url` is no address.
        """
        if not is_socket_address(ws_url):
            raise UpstreamProtocol("LiveAvatar's address of the command socket is none", invalid="ws_url")
        proxy = None if proxies is None else proxies.of_url(ws_url)
        through = "" if proxy is None else f" through {proxy.shown}"

        def create(*arguments: Any, **options: Any) -> _Connection:
            return _Connection(on_event, *arguments, **options)

        try:
            if proxy is not None:
                proxy.check()
            connection = await connect(
                ws_url,
                proxy=None if proxy is None else proxy.url,
                create_connection=create,  # type: ignore[arg-type]  # a factory will do, says its documentation
                # Deflate costs 6 ms per second of audio and saves little on base64.
                compression=None,
                # Media servers delay pongs under load: a missing pong is no death.
                ping_interval=None,
                open_timeout=timeout_s,
                close_timeout=_CLOSE_TIMEOUT_S,
                max_size=_MAX_EVENT_BYTES,
                # `send` returns when the operating system has all of it: what lies in a buffer of this process
                # dies with it, although it was noted as sent.
                write_limit=0,
            )
        except websockets.InvalidStatus as error:
            status = error.response.status_code
            raise UpstreamUnreachable(
                f"LiveAvatar refused the command socket with HTTP {status}", retry_after_s=1.0, http_status=status
            ) from error
        # ValueError is what names become that no resolver takes, and answers that are no HTTP.
        except (OSError, ValueError, EOFError, websockets.WebSocketException) as error:
            raise UpstreamUnreachable(
                f"LiveAvatar's command socket cannot be reached{through}: {type(error).__name__}",
                retry_after_s=1.0,
            ) from error
        assert isinstance(connection, _Connection)  # noqa: S101 - `create` made it
        return cls(connection)

    async def send(self, command: Command, *, ping: int) -> None:
        """Send a command. Returns when the operating system has it, so that an interrupt waits for one packet.

        Args:
            command: What to send.
            ping: A number to send behind it: it comes back as `PongReceived` when all up to here was read.

        Raises:
            SocketClosed: it is gone, or the other side reads nothing any more.
        """
        try:
            if self._connection.put(None if isinstance(command, Probe) else encode(command), ping):
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._connection.drain()
        except TimeoutError:
            await read_what_arrived()
            if self._connection.paused:
                raise SocketClosed(CONNECTION_LOST, f"nothing was read for {SEND_TIMEOUT_S:g} s") from None
        except (websockets.InvalidState, OSError) as closed:
            raise self._closed() from closed

    async def closed(self) -> SocketClosed:
        """Wait until the socket is gone, and return how."""
        await self._connection.wait_closed()
        return self._closed()

    async def close(self) -> None:
        """Close it; the session upstream lives on until it is stopped.

        Takes two seconds at most: the library waits without end for one that takes nothing any more.
        """
        closing = asyncio.ensure_future(self._connection.close())
        try:
            # Not `asyncio.timeout`: before Python 3.11.3 it raises no TimeoutError in a task that was cancelled.
            done, _ = await asyncio.wait({closing}, timeout=2 * _CLOSE_TIMEOUT_S)
        finally:
            if not closing.done():
                closing.cancel()
                self.abort()
        if done:
            closing.result()

    def abort(self) -> None:
        """Let go of it at once: nothing more is sent or heard.

        It is reset, for an end in good order would first deliver what the operating system still has of it, and
        that may arrive behind what goes over the next socket.
        """
        with contextlib.suppress(OSError, ValueError, AttributeError):  # it is gone already
            self._raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._connection.transport.abort()

    @property
    def takes_nothing(self) -> bool:
        """Whether LiveAvatar's end has not taken all that was sent, as far as the operating system knows."""
        if self._connection.transport.get_write_buffer_size():
            return True
        try:
            unsent = fcntl.ioctl(self._raw_socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, AttributeError, ValueError):
            return False
        return int.from_bytes(unsent, sys.byteorder) > 0

    @property
    def _raw_socket(self) -> socket.socket:
        return cast("socket.socket", self._connection.transport.get_extra_info("socket"))

    def _closed(self) -> SocketClosed:
        return SocketClosed(self._connection.close_code or CONNECTION_LOST, self._connection.close_reason or "")
