"""`StreamAudio` call on a connection of its own, with HTTP/2 by hand: half the cost of a client of grpc.aio.

A client of grpc.aio takes more CPU per chunk than the gateway does, and the emulator wants its share too, so on
a machine of two cores the generator would end before the gateway. This takes half of it. With one call per
connection little of HTTP/2 is left: frames, flow control and pings. Headers that come back are not decoded: what a
gateway refuses in a stream it says in messages.

Source: RFC 9113 (HTTP/2), RFC 7541 (HPACK), grpc/doc/PROTOCOL-HTTP2.md.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from liveavatar.gateway.v1 import audio_service_pb2 as audio
from load.keys import Metadata

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_PATH: Final = b"/liveavatar.gateway.v1.AudioService/StreamAudio"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM: Final = 0x1
_ACK: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_ENABLE_PUSH, _INITIAL_WINDOW_SIZE = 2, 4
_STREAM: Final = 1
_FRAME_BYTES: Final = 16_384
"""Longest frame; every peer takes this much."""
_WINDOW_BYTES: Final = 65_535
"""Initial flow-control window of each side, per stream and per connection."""
_HEADER: Final = 9
_PREFIX: Final = 5
# Before each message: a byte for compression, four for the length.


class AudioPipe(asyncio.Protocol):
    """The call. Made by `open_pipe`, closed by `cancel`.

    Invariant: what waits to be written is written in order, and never more than the windows allow.
    """

    def __init__(
        self,
        authority: str,
        on_message: Callable[[audio.StreamAudioResponse], None],
        on_closed: Callable[[], None],
        metadata: Metadata = (),
    ) -> None:
        self._authority = authority.encode()
        self._metadata = metadata
        self._on_message = on_message
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._body = bytearray()
        self._taken_bytes = 0
        self._stream_window = self._connection_window = self._initial_window = _WINDOW_BYTES
        self._waiting: deque[memoryview] = deque()
        self._room: asyncio.Future[None] | None = None
        self._closed = False

    async def write(self, message: audio.StreamAudioRequest) -> bool:
        """Send a message; waits while the gateway takes no more. False when the call is over."""
        if self._closed:
            return False
        self._send_body(_body(message))
        while self._waiting and not self._closed:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        return not self._closed

    def post(self, frame: bytes) -> None:
        """Send a message of `encoded` without waiting; it is queued where the windows do not allow it yet."""
        size = len(frame) - _HEADER
        if self._waiting or size > self._stream_window or size > self._connection_window:
            self._send_body(frame[_HEADER:])
        elif self._transport is not None and not self._closed:
            self._stream_window -= size
            self._connection_window -= size
            self._transport.write(frame)

    async def finish_writing(self) -> None:
        """Half-close."""
        if not self._closed:
            self._frame(_DATA, _END_STREAM, _STREAM, b"")

    def cancel(self) -> None:
        """Close the connection, and with it the call."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the call at once; the gateway's settings come meanwhile."""
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HI", _ENABLE_PUSH, 0)
        self._transport.write(_PREFACE)
        self._frame(_SETTINGS, 0, 0, settings)
        self._frame(_HEADERS, _END_HEADERS, _STREAM, _headers(self._authority, self._metadata))

    def data_received(self, data: bytes) -> None:
        """Split the received bytes into frames."""
        self._came += data
        at = 0
        while len(self._came) - at >= _HEADER:
            length = int.from_bytes(self._came[at : at + 3], "big")
            end = at + _HEADER + length
            if len(self._came) < end:
                break
            kind, flags = self._came[at + 3], self._came[at + 4]
            stream = int.from_bytes(self._came[at + 5 : at + 9], "big") & 0x7FFFFFFF
            self._on_frame(kind, flags, stream, bytes(self._came[at + _HEADER : end]))
            at = end
        del self._came[:at]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End the call."""
        self._close()

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._on_data(flags, payload)
        elif kind == _WINDOW_UPDATE:
            more = int.from_bytes(payload, "big") & 0x7FFFFFFF
            if stream:
                self._stream_window += more
            else:
                self._connection_window += more
            self._flush()
        elif kind == _SETTINGS and not flags & _ACK:
            self._on_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._frame(_PING, _ACK, 0, payload)
        elif kind in (_RST_STREAM, _GOAWAY):
            self._close()
        if stream and flags & _END_STREAM and kind in (_DATA, _HEADERS):
            self._close()

    def _on_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW_SIZE:
                self._stream_window += value - self._initial_window
                self._initial_window = value
        self._frame(_SETTINGS, _ACK, 0, b"")
        self._flush()

    def _on_data(self, flags: int, payload: bytes) -> None:
        self._taken_bytes += len(payload)
        if self._taken_bytes > _WINDOW_BYTES // 2:
            more = self._taken_bytes.to_bytes(4, "big")
            self._taken_bytes = 0
            self._frame(_WINDOW_UPDATE, 0, 0, more)
            self._frame(_WINDOW_UPDATE, 0, _STREAM, more)
        self._body += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
        while len(self._body) >= _PREFIX:
            end = _PREFIX + int.from_bytes(self._body[1:_PREFIX], "big")
            if len(self._body) < end:
                return
            message = audio.StreamAudioResponse.FromString(bytes(self._body[_PREFIX:end]))
            del self._body[:end]
            self._on_message(message)

    def _send_body(self, body: bytes) -> None:
        size = len(body)
        if not self._waiting and size <= min(_FRAME_BYTES, self._stream_window, self._connection_window):
            self._stream_window -= size
            self._connection_window -= size
            self._frame(_DATA, 0, _STREAM, body)
            return
        view = memoryview(body)
        self._waiting.extend(view[at : at + _FRAME_BYTES] for at in range(0, size, _FRAME_BYTES))
        self._flush()

    def _flush(self) -> None:
        while self._waiting:
            size = min(len(self._waiting[0]), self._stream_window, self._connection_window)
            if size <= 0:
                return
            piece = self._waiting.popleft()
            if size < len(piece):
                self._waiting.appendleft(piece[size:])
            self._stream_window -= size
            self._connection_window -= size
            self._frame(_DATA, 0, _STREAM, bytes(piece[:size]))
        self._wake()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._transport is not None and not self._closed:
            self._transport.write(_header(len(payload), kind, flags, stream) + payload)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self.cancel()
            self._wake()
            self._on_closed()

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def encoded(message: audio.StreamAudioRequest) -> bytes:
    """Return a message of at most 16 kB as one frame, for `AudioPipe.post`."""
    body = _body(message)
    assert len(body) <= _FRAME_BYTES
    return _header(len(body), _DATA, 0, _STREAM) + body


def _body(message: audio.StreamAudioRequest) -> bytes:
    data = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


def _header(size: int, kind: int, flags: int, stream: int) -> bytes:
    return struct.pack(">IBI", size << 8 | kind, flags, stream)


async def open_pipe(
    target: str,
    on_message: Callable[[audio.StreamAudioResponse], None],
    on_closed: Callable[[], None],
    metadata: Metadata = (),
) -> AudioPipe:
    """Connect and open the call.

    Args:
        target: `host:port`, without TLS.
        on_message: Gets each message of the gateway.
        on_closed: Called once when the call ends, on either side.
        metadata: Headers of the call, with names in lower case.

    Raises:
        OSError: the connection is refused or fails.
    """
    host, _, port = target.rpartition(":")
    loop = asyncio.get_running_loop()
    _, pipe = await loop.create_connection(
        lambda: AudioPipe(target, on_message, on_closed, metadata), host.strip("[]"), int(port)
    )
    return pipe


def _headers(authority: bytes, metadata: Metadata) -> bytes:
    """Return the request's header block: names from the static table where possible, values as literals."""

    def text(value: bytes) -> bytes:
        return _length(len(value)) + value

    return b"".join(
        (
            b"\x83\x86",  # :method POST, :scheme http
            b"\x04" + text(_PATH),
            b"\x01" + text(authority),
            b"\x0f\x10" + text(b"application/grpc"),  # content-type
            b"\x00" + text(b"te") + text(b"trailers"),
            # Never indexed, as credentials must be.
            *(b"\x10" + text(name.encode()) + text(value.encode()) for name, value in metadata),
        )
    )


def _length(size: int) -> bytes:
    """Return an integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if size < 127:
        return bytes([size])
    found, left = bytearray([127]), size - 127
    while left >= 128:
        found.append(left % 128 + 128)
        left //= 128
    return bytes([*found, left])
