"""HTTP/2 by hand: what gRPC's own clients do not send, and the frames of an answer in the order they came."""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """Received frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    @property
    def reset_code(self) -> int:
        return int(struct.unpack(">I", self.payload)[0])


class Connection:
    """Plaintext HTTP/2 connection. Its headers are never compressed, so any bytes can be sent."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self._next_stream = 1
        self._unread = b""
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(
        self, method: str, *messages: bytes, headers: Sequence[tuple[bytes, bytes]] = (), end: bool = True
    ) -> int:
        """Send a call with its messages and return its stream; without `end` the caller's side stays open."""
        stream = self._next_stream
        self._next_stream += 2
        block = header_block(method, headers)
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, block))
        for message in messages:
            self.socket.sendall(frame(DATA, 0, stream, b"\x00" + struct.pack(">I", len(message)) + message))
        if end:
            self.end(stream)
        return stream

    def end(self, stream: int) -> None:
        """Close the caller's side of a call."""
        self.socket.sendall(frame(DATA, END_STREAM, stream, b""))

    def answer(self, stream: int) -> list[Frame]:
        """Return the frames of a call up to its end: END_STREAM or RST_STREAM."""
        frames: list[Frame] = []
        while not frames or not (frames[-1].ends_stream or frames[-1].kind == RST_STREAM):
            got = self.read()
            if got.stream == stream:
                frames.append(got)
        return frames

    def read(self) -> Frame:
        """Return the next frame, answering what the protocol wants answered."""
        head = self._take(5)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int(struct.unpack(">I", self._take(4))[0]) & 0x7FFFFFFF
        payload = self._take(length)
        if kind == SETTINGS and not flags & ACK:
            self.socket.sendall(frame(SETTINGS, ACK, 0, b""))
        if kind == PING and not flags & ACK:
            self.socket.sendall(frame(PING, ACK, 0, payload))
        return Frame(kind, flags, stream, payload)

    def _take(self, count: int) -> bytes:
        while len(self._unread) < count:
            got = self.socket.recv(65536)
            if not got:
                raise EOFError("the peer closed the connection")
            self._unread += got
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken


def header_block(method: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """Return the headers of a call, not compressed."""
    pairs = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method.encode()),
        (b":authority", b"gateway"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *headers,
    ]
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in pairs)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return the bytes of a frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _text(value: bytes) -> bytes:
    """Encode a string literal of HPACK, without Huffman coding."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    length, rest = b"\x7f", len(value) - 127
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + value
