"""TCP connection of one WebSocket client: reset without a close frame, read slowly, or not read at all.

ASGI has no such operations, so the WebSocket protocol passes itself to the application as an extension in the
scope.
"""

import asyncio
import contextlib
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from liveavatar_emulator.clock import Clock, Timer

EXTENSION = "emulator.connection"

TICK_S = 0.05
"""Emulator seconds between two pieces of slowly read data."""

RECEIVE_BUFFER_BYTES = 16_384
"""Kernel buffer of a connection that is read slowly. The default grows to megabytes: minutes of speech that the
client would consider delivered."""


def reset(transport: asyncio.BaseTransport) -> None:
    """Send RST to the peer. An abort alone closes the connection with FIN if no data is left unread."""
    with contextlib.suppress(OSError, AttributeError):  # the connection is closed already
        linger_not_at_all = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not_at_all)
    cast("asyncio.Transport", transport).abort()


class _Transport:
    """Transport that reads only while neither the protocol nor a fault has paused it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._paused_by: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self, why: str = "protocol") -> None:
        if not self._paused_by and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused_by.add(why)

    def resume_reading(self, why: str = "protocol") -> None:
        if why not in self._paused_by:
            return
        self._paused_by.remove(why)
        if not self._paused_by and not self._transport.is_closing():
            self._transport.resume_reading()


class ClientConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with a throttle between the transport and the parser."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unparsed = bytearray()
        self._rate: float | None = None
        self._clock: Clock | None = None
        self._timer: Timer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wrap the transport of a new connection."""
        super().connection_made(cast("asyncio.BaseTransport", _Transport(cast("asyncio.Transport", transport))))

    async def run_asgi(self) -> None:
        """Run the application with this connection in the scope's extensions."""
        cast("dict[str, object]", self.scope["extensions"])[EXTENSION] = self
        await super().run_asgi()

    def data_received(self, data: bytes) -> None:
        """Parse data from the client at the limited rate."""
        if self._rate is None and not self._unparsed:
            super().data_received(data)
            return
        self._unparsed += data
        self._continue()

    def connection_lost(self, exc: Exception | None) -> None:
        """Discard unparsed data with the connection."""
        self._rate = None
        self._unparsed.clear()
        self._stop_timer()
        super().connection_lost(exc)

    def reset(self) -> None:
        """Reset the TCP connection: no close frame, no FIN."""
        reset(self.transport)

    def limit_reading(self, bytes_per_s: float | None, clock: Clock) -> None:
        """Limit reading to so many bytes per emulator second; 0 stops it, None lifts the limit."""
        self._clock = clock
        self._rate = bytes_per_s
        self._stop_timer()
        if bytes_per_s is not None:
            with contextlib.suppress(OSError, AttributeError):
                endpoint = self.transport.get_extra_info("socket")
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._continue()

    def _continue(self) -> None:
        """Parse the data that is due, and resume reading only if no data is left unparsed."""
        transport = cast("_Transport", self.transport)
        if self._rate is None:
            unparsed, self._unparsed = bytes(self._unparsed), bytearray()
            transport.resume_reading("fault")
            if unparsed:
                super().data_received(unparsed)
            return
        if self._unparsed or not self._rate:
            transport.pause_reading("fault")
        else:
            transport.resume_reading("fault")
        if self._unparsed and self._rate and self._timer is None and self._clock is not None:
            self._timer = self._clock.call_at(self._clock.now_s() + TICK_S, self._parse_piece)

    def _parse_piece(self) -> None:
        self._timer = None
        if self._rate is None or self.transport.is_closing():
            return
        size_bytes = max(1, int(self._rate * TICK_S))
        piece = bytes(self._unparsed[:size_bytes])
        del self._unparsed[:size_bytes]
        super().data_received(piece)
        self._continue()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
