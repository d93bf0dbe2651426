"""One client's TCP connection: reset without farewell, read slowly, or not read at all.

ASGI has no words for these, so the WebSocket protocol hands the application a `Wire` in its scope.
"""

import asyncio
import contextlib
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from liveavatar_emulator.clock import Clock, Timer

EXTENSION = "emulator.wire"

TICK_S = 0.05
"""Slowly read data is passed on in pieces of so many emulator seconds."""

RECEIVE_BUFFER_BYTES = 16_384
"""Kernel buffer of a connection that is read slowly. The default grows to megabytes: minutes of speech that the
client would believe delivered."""


def reset(transport: asyncio.BaseTransport) -> None:
    """Answer the peer with RST. An abort alone ends a connection in good order when nothing is left unread."""
    with contextlib.suppress(OSError, AttributeError):  # it is gone already
        linger_not_at_all = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not_at_all)
    cast("asyncio.Transport", transport).abort()


class _Transport:
    """A transport that reads only while neither the protocol nor a fault has paused it."""

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


class Wire(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with a throttle between the connection and the parser."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held = bytearray()
        self._rate: float | None = None
        self._clock: Clock | None = None
        self._timer: Timer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The upgrade was asked for."""
        super().connection_made(cast("asyncio.BaseTransport", _Transport(cast("asyncio.Transport", transport))))

    async def run_asgi(self) -> None:
        """Serve it, with the wire in the scope's extensions."""
        cast("dict[str, object]", self.scope["extensions"])[EXTENSION] = self
        await super().run_asgi()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._rate is None and not self._held:
            super().data_received(data)
            return
        self._held += data
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it what was held back."""
        self._rate = None
        self._held.clear()
        self._stop_timer()
        super().connection_lost(exc)

    def reset(self) -> None:
        """Reset the TCP connection: no close frame, no FIN."""
        reset(self.transport)

    def limit_reading(self, bytes_per_s: float | None, clock: Clock) -> None:
        """Read so many bytes per emulator second from now on; 0 reads nothing, None as fast as they come."""
        self._clock = clock
        self._rate = bytes_per_s
        self._stop_timer()
        if bytes_per_s is not None:
            with contextlib.suppress(OSError, AttributeError):
                endpoint = self.transport.get_extra_info("socket")
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._go_on()

    def _go_on(self) -> None:
        """Pass on what may be passed on, and read further only when nothing is held back."""
        transport = cast("_Transport", self.transport)
        if self._rate is None:
            held, self._held = bytes(self._held), bytearray()
            transport.resume_reading("fault")
            if held:
                super().data_received(held)
            return
        if self._held or not self._rate:
            transport.pause_reading("fault")
        else:
            transport.resume_reading("fault")
        if self._held and self._rate and self._timer is None and self._clock is not None:
            self._timer = self._clock.call_at(self._clock.now_s() + TICK_S, self._pass_on)

    def _pass_on(self) -> None:
        self._timer = None
        if self._rate is None or self.transport.is_closing():
            return
        size_bytes = max(1, int(self._rate * TICK_S))
        piece = bytes(self._held[:size_bytes])
        del self._held[:size_bytes]
        super().data_received(piece)
        self._go_on()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
