"""LiveAvatar's command socket: one connection, events delivered by callback, one writer."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, cast

import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode
from websockets.http11 import Response

from liveavatar_gateway import incidents
from liveavatar_gateway.core.errors import UpstreamUnreachable
from liveavatar_gateway.core.messages import Command, Event, PongReceived, Probe
from liveavatar_gateway.upstream.egress import SOCKET, Route, refused
from liveavatar_gateway.upstream.wire import decode, encode

_MAX_EVENT_BYTES = 2**20
SEND_TIMEOUT_S = 10.0
"""Time without progress after which a socket counts as lost; the avatar has an underrun long before."""
_CLOSE_TIMEOUT_S = 1.0
_READING_PASSES = 3
CONNECTION_LOST = 1006
_PING = b"p"
_NO_LINGER = struct.pack("ii", 1, 0)
"""Option that resets a connection on close and drops unsent data."""
_CLOSE_MEANINGS = {
    1000: "normal end",
    1001: "going away",
    CONNECTION_LOST: "connection lost",
    1009: "message too large",
    1011: "server error",
}
"""Source: RFC 6455 section 7.4.1, and observations of LiveAvatar's clients."""
_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class SocketClosed(Exception):
    """Closed command socket; the message has the close code and its meaning."""

    def __init__(self, code: int, reason: str) -> None:
        meaning = _CLOSE_MEANINGS.get(code, "unknown")
        super().__init__(f"command socket closed with {code} ({meaning}) {reason}".rstrip())
        self.code = code


async def read_what_arrived() -> None:
    """Let the event loop read all sockets and run the callbacks of received data.

    A loop that wakes up late runs its timers first, because a poll interrupted by a suspension returns nothing.
    The first pass polls, and the callbacks that it schedules run before the second pass ends.
    """
    for _ in range(_READING_PASSES):
        await asyncio.sleep(0)


def _number_of(pong: Frame) -> int:
    """Return the number of our ping that a pong answers; 0 for any other pong."""
    payload = bytes(pong.data)
    return int(payload[1:]) if payload.startswith(_PING) and payload[1:].isdigit() else 0


class _Connect(connect):
    """Opening handshake that follows no redirect: it could lead to a host that was not checked."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Connection(ClientConnection):
    """Connection that delivers each message by callback, where the library would queue it and wake a task.

    Each packet causes several events, so these wake-ups would be a tenth of a session's CPU. Fragments are joined
    here too, because later messages would overtake a message that took the library's queue.
    """

    def __init__(self, on_event: Callable[[Event], None], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._on_event = on_event
        # The library's protocol refuses interleaved fragments, and messages above the size limit.
        self._fragments = bytearray()
        self._last_ping = 0
        self._abort: asyncio.TimerHandle | None = None

    def process_event(self, event: Frame | Response) -> None:  # type: ignore[override]  # signature of the library's own subclass
        if isinstance(event, Frame) and event.opcode in _DATA:
            if event.fin and not self._fragments:
                self._on_event(decode(bytes(event.data)))
                return
            self._fragments += event.data
            if event.fin:
                message, self._fragments = bytes(self._fragments), bytearray()
                self._on_event(decode(message))
        elif isinstance(event, Frame) and event.opcode is Opcode.PONG and (number := _number_of(event)):
            # A number that no ping carried would acknowledge audio that was never sent.
            if number <= self._last_ping:
                self._on_event(PongReceived(number))
        else:
            super().process_event(event)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The library enforces this deadline in its reading task, which is not used here.
        if self.close_deadline is not None and self._abort is None:
            self._abort = self.loop.call_at(self.close_deadline, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._abort is not None:
            self._abort.cancel()
        super().connection_lost(exc)

    def put(self, frame: bytes | None, ping: int) -> bool:
        """Write a text frame, if any, followed by a numbered ping; return True if `drain` must be awaited.

        The library's own `send` costs twice as much, because of locks against other writers, which do not exist
        here.

        Raises:
            InvalidState: the connection is not open.
        """
        if frame is not None:
            self.protocol.send_text(frame)
        self._last_ping = ping
        self.protocol.send_ping(_PING + b"%d" % ping)
        self.send_data()
        return self.paused


async def _connect_to_first(route: Route, on_event: Callable[[Event], None], *, timeout_s: float) -> _Connection:
    """Connect to the first address of a host that can be reached."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    left = len(route.addresses)
    for address in route.addresses:
        # Each address gets an equal share of the rest: one that swallows packets leaves time for the others.
        share_s = max(until_s - loop.time(), 0.0) / left
        left -= 1
        try:
            return await _connect(route.url, on_event, timeout_s=share_s, host=address, port=route.port)
        except OSError:
            if not left:
                raise
    raise AssertionError("unreachable: a route without a proxy has addresses")


async def _connect(
    url: str, on_event: Callable[[Event], None], *, timeout_s: float, proxy: str | None = None, **where: Any
) -> _Connection:
    """Open a connection.

    Args:
        url: Address, whose host is used for TLS and in the handshake.
        on_event: Called with each event.
        timeout_s: Longest wait.
        proxy: Address of the proxy, which resolves the host; None for a direct connection.
        where: Host and port to connect to in place of those in `url`.
    """

    def create(*arguments: Any, **options: Any) -> _Connection:
        return _Connection(on_event, *arguments, **options)

    connection = await _Connect(
        url,
        proxy=proxy,
        create_connection=create,  # type: ignore[arg-type]  # the documentation allows a factory
        # Compression costs 6 ms per second of audio and saves little on base64.
        compression=None,
        # Media servers delay pongs under load, so a missing pong does not prove a lost connection.
        ping_interval=None,
        open_timeout=timeout_s,
        close_timeout=_CLOSE_TIMEOUT_S,
        max_size=_MAX_EVENT_BYTES,
        # `send` returns once the operating system has all data: data in a buffer of this process would be lost in
        # a crash although the journal counts it as sent.
        write_limit=0,
        **where,
    )
    assert isinstance(connection, _Connection)  # noqa: S101 - created by `create`
    return connection


class CommandSocket:
    """Open command socket. One task calls `send`, another awaits `closed`; the opener closes it."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, route: Route, on_event: Callable[[Event], None], *, timeout_s: float) -> "CommandSocket":
        """Connect. The address is a secret and appears in no error.

        Args:
            route: Way to the socket, checked by `Egress`.
            on_event: Called with each event, from the loop; must not raise.
            timeout_s: Longest wait for the connection, shared by the addresses of the host.

        Raises:
            UpstreamUnreachable: the socket cannot be opened within `timeout_s`.
            UpstreamAddressRefused: the server redirects to another address.
        """
        proxy = route.proxy
        try:
            if proxy is not None:
                proxy.check()
                return cls(await _connect(route.url, on_event, timeout_s=timeout_s, proxy=proxy.url))
            return cls(await _connect_to_first(route, on_event, timeout_s=timeout_s))
        except websockets.InvalidStatus as error:
            status = error.response.status_code
            if status in _REDIRECTS:
                raise refused(SOCKET, "redirect") from error
            raise UpstreamUnreachable(
                f"LiveAvatar refused the command socket with HTTP {status}", retry_after_s=1.0, http_status=status
            ) from error
        # Responses that are not HTTP raise ValueError.
        except (OSError, ValueError, EOFError, websockets.WebSocketException) as error:
            incident = incidents.report(
                "upstream.socket_unreachable",
                error=type(error).__name__,
                proxy="" if proxy is None else proxy.shown,
            )
            raise UpstreamUnreachable(
                f"LiveAvatar's command socket cannot be reached: {type(error).__name__}; the gateway's log "
                f"has more under incident {incident}",
                retry_after_s=1.0,
                incident=incident,
            ) from error

    async def send(self, command: Command, *, ping: int) -> None:
        """Send a command and return once the operating system has it.

        An interrupt therefore waits for one packet at most.

        Args:
            command: Command to send.
            ping: Number of the ping sent after the command. `PongReceived` returns it once LiveAvatar has read
                everything up to the ping.

        Raises:
            SocketClosed: the socket is closed, or LiveAvatar no longer reads from it.
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
        """Wait until the socket is closed, and return the close code and reason."""
        await self._connection.wait_closed()
        return self._closed()

    async def close(self) -> None:
        """Close the socket; the session runs until it is stopped.

        Takes at most two seconds: the library alone would wait forever for a peer that reads nothing.
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
        """Reset the connection at once: nothing more is sent or received.

        An orderly close would first deliver data that the operating system has buffered, which may arrive after
        data sent on the next socket.
        """
        with contextlib.suppress(OSError, ValueError, AttributeError):  # already closed
            self._raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._connection.transport.abort()

    @property
    def takes_nothing(self) -> bool:
        """True if LiveAvatar has not acknowledged all sent data, according to the operating system."""
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
