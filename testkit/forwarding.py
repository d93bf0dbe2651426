"""A proxy on 127.0.0.1 as companies have them: CONNECT for tunnels, whole addresses for plain HTTP, a password."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import SplitResult, urlsplit

from testkit.tcp import tcp_server

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

PASSWORD = "a-proxy-s-password"


class ForwardProxy:
    """Proxy with a log of its requests, as "METHOD target", and of all that it passed on outside of tunnels."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.passed = bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry out the one request of a connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, rest = head.partition(b"\r\n")
        method, target, _ = line.decode().split()
        credentials = base64.b64encode(f"user:{PASSWORD}".encode())
        if b"proxy-authorization: basic " + credentials.lower() not in rest.lower():
            writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        self.asked.append(f"{method} {target}")
        address = urlsplit(f"//{target}" if method == "CONNECT" else target)
        other_reader, other_writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            await self._relay(method, rest, address, (reader, writer), (other_reader, other_writer))
        finally:
            for stream in (writer, other_writer):
                stream.transport.abort()
            with contextlib.suppress(OSError):
                await other_writer.wait_closed()

    async def _relay(self, method: str, rest: bytes, address: SplitResult, near: Streams, far: Streams) -> None:
        (reader, writer), (other_reader, other_writer) = near, far
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            # One request for each connection, so that this one needs to read no others.
            path = f"{address.path}?{address.query}" if address.query else address.path
            kept = [
                name for name in rest.split(b"\r\n") if not name.lower().startswith((b"proxy-", b"connection:"))
            ]
            other_writer.write(f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode() + b"\r\n".join(kept))
        passed = bytearray() if method == "CONNECT" else self.passed
        # A process that was killed closes its end alone.
        ways = {
            asyncio.create_task(_copy(reader, other_writer, passed)),
            asyncio.create_task(_copy(other_reader, writer, passed)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            passed += data
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def forward_proxy() -> AsyncIterator[ForwardProxy]:
    proxy = ForwardProxy()
    async with tcp_server(proxy.serve) as address:
        proxy.url = f"http://user:{PASSWORD}@{address}"
        yield proxy
