"""HTTP/2 connection by hand that is never blocked by its peer: frames out, counted answers in."""

import asyncio
import struct
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Final, Self

from testkit.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    frame,
    header_block,
)

SOURCE: Final = ("127.0.0.2", 0) if sys.platform == "linux" else None
"""Address of the attacker, which is not the victim's: a proxy limits each."""
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_BYTES = 16_384
_WINDOW_UPDATE = 0x8
_WINDOW_BYTES = 65_535


def message(data: bytes, *, announced: int | None = None) -> bytes:
    """Return a gRPC message; `announced` is the length in its prefix, by default that of the data."""
    return b"\x00" + struct.pack(">I", len(data) if announced is None else announced) + data


class RawConnection:
    """Connection that reads everything and answers only what keeps it open: settings and pings.

    `seen` counts received frames by kind; the counts of `ended` are streams that the gateway closed.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._next_stream = 1
        self.seen: Counter[int] = Counter()
        self.ended = 0
        self.is_closed = False
        self._window = _WINDOW_BYTES
        self._windows: Counter[int] = Counter()
        self._more_window = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, address: str, *, window: int | None = None) -> Self:
        """Connect; `window` is what the gateway may send on each stream before it must wait."""
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=SOURCE)
        settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        writer.write(PREFACE + frame(SETTINGS, 0, 0, settings))
        await writer.drain()
        return cls(reader, writer)

    async def aclose(self) -> None:
        """Close the connection."""
        self._reading.cancel()
        self._writer.close()
        await asyncio.wait([self._reading])

    async def send(self, data: bytes) -> None:
        """Send bytes; raises `ConnectionError` after the gateway has closed the connection."""
        if self.is_closed:
            raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()

    async def call(
        self,
        method: str,
        body: bytes = b"",
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        end: bool = False,
    ) -> int:
        """Open a call with a begin of its body, and return its stream."""
        stream = self._next_stream
        self._next_stream += 2
        block = header_block(method, headers)
        frames = [frame(HEADERS, END_HEADERS, stream, block)]
        frames += [
            frame(DATA, 0, stream, body[start : start + MAX_FRAME_BYTES])
            for start in range(0, len(body), MAX_FRAME_BYTES)
        ]
        if end:
            frames.append(frame(DATA, END_STREAM, stream, b""))
        await self.send(b"".join(frames))
        return stream

    async def body(self, stream: int, data: bytes) -> None:
        """Send data of a call as the gateway's windows allow."""
        while data:
            size = min(len(data), MAX_FRAME_BYTES, self._window, self._windows[stream] + _WINDOW_BYTES)
            if size <= 0:
                self._more_window.clear()
                await self._more_window.wait()
                continue
            piece, data = data[:size], data[size:]
            self._window -= size
            self._windows[stream] -= size
            await self.send(frame(DATA, 0, stream, piece))

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                payload = await self._reader.readexactly(length)
                self.seen[kind] += 1
                if kind == SETTINGS and not flags & ACK:
                    self._writer.write(frame(SETTINGS, ACK, 0, b""))
                elif kind == PING and not flags & ACK:
                    self._writer.write(frame(PING, ACK, 0, payload))
                elif kind == _WINDOW_UPDATE:
                    stream = int.from_bytes(head[5:9], "big")
                    if stream:
                        self._windows[stream] += int.from_bytes(payload, "big")
                    else:
                        self._window += int.from_bytes(payload, "big")
                    self._more_window.set()
                elif kind == GOAWAY:
                    self.is_closed = True
                elif kind in (DATA, HEADERS) and flags & END_STREAM:
                    self.ended += 1
        except (EOFError, OSError):
            self.is_closed = True
