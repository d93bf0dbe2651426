"""Connections that say nothing, or too little."""

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Callable
from typing import Final

from security.attacks.raw import SOURCE
from security.counts import Counts
from testkit.http2 import DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, frame, header_block

_COUNT: Final = 3000
_INFO: Final = "/liveavatar.gateway.v1.SessionService/GetServerInfo"
_ATTACH: Final = "/liveavatar.gateway.v1.SessionService/Attach"
_HELLO: Final = PREFACE + frame(SETTINGS, 0, 0, b"")


async def silent(address: str, seconds: float) -> Counts:
    """Open connections and send nothing."""
    return await _held(address, seconds, lambda _: b"")


async def idle(address: str, seconds: float) -> Counts:
    """Open connections, say hello, and make no call."""
    return await _held(address, seconds, lambda _: _HELLO)


async def dripping_hello(address: str, seconds: float) -> Counts:
    """Open connections that never end their preface."""
    return await _held(address, seconds, lambda number: PREFACE[: number % len(PREFACE)])


async def not_http2(address: str, seconds: float) -> Counts:
    """Send what is no HTTP/2: an HTTP/1 request, a TLS hello, noise."""
    texts = (
        b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(range(256)),
    )
    return await _held(address, seconds, lambda number: texts[number % len(texts)])


async def unary_without_end(address: str, seconds: float) -> Counts:
    """Open unary calls whose bodies lack their last byte."""
    return await _unfinished(address, seconds, _INFO, b"\x00\x00\x00\xff\x00" + bytes(0xFF00 - 1))


async def attach_without_message(address: str, seconds: float) -> Counts:
    """Open `Attach` streams without a first message."""
    return await _unfinished(address, seconds, _ATTACH, b"")


async def opening_and_closing(address: str, seconds: float) -> Counts:
    """Open and close connections as fast as it goes."""
    return await asyncio.to_thread(_churn, address, time.monotonic() + seconds)


def _churn(address: str, until_s: float) -> Counts:
    counts = Counts()
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), _connect(address) as connection:
            counts.sent += 1
            connection.sendall(_HELLO)
    return counts


async def _unfinished(address: str, seconds: float, method: str, body: bytes) -> Counts:
    """Open 1500 calls on each of some connections, and finish none."""
    block = header_block(method)

    def begun(_: int) -> bytes:
        calls = []
        for stream in range(1, 3000, 2):
            calls.append(frame(HEADERS, END_HEADERS, stream, block))
            calls.extend(frame(DATA, 0, stream, body[at : at + 16_384]) for at in range(0, len(body), 16_384))
        return _HELLO + b"".join(calls)

    return await _held(address, seconds, begun, count=7)


async def _held(address: str, seconds: float, hello: Callable[[int], bytes], *, count: int = _COUNT) -> Counts:
    """Keep connections open, and open those again that the gateway closes; count both."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * count + 100)), hard))
    counts = Counts()
    until_s = time.monotonic() + seconds
    slots = asyncio.Semaphore(64)
    await asyncio.gather(*(_hold(address, until_s, number, hello, counts, slots) for number in range(count)))
    return counts


async def _hold(
    address: str,
    until_s: float,
    number: int,
    hello: Callable[[int], bytes],
    counts: Counts,
    slots: asyncio.Semaphore,
) -> None:
    host, _, port = address.rpartition(":")
    while time.monotonic() < until_s:
        try:
            async with slots:
                connecting = asyncio.open_connection(host, int(port), local_addr=SOURCE)
                reader, writer = await asyncio.wait_for(connecting, 5)
                counts.sent += 1
                writer.write(hello(number))
        except (OSError, TimeoutError):
            counts.outcomes["closed"] += 1
            await asyncio.sleep(0.2)
            continue
        try:
            async with asyncio.timeout(max(0.0, until_s - time.monotonic())):
                while await reader.read(65_536):
                    pass
            counts.outcomes["closed"] += 1
            await asyncio.sleep(0.2)
        except TimeoutError:
            counts.outcomes["held"] += 1
        except OSError:
            counts.outcomes["closed"] += 1
            await asyncio.sleep(0.2)
        finally:
            writer.transport.abort()


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5, source_address=SOURCE)
