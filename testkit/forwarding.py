"""A proxy on 127.0.0.1 as companies have them: CONNECT for tunnels, whole addresses for plain HTTP, a password."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

PASSWORD = "a-proxy-s-password"


class ForwardProxy:
    """What was asked of it, as "METHOD target"."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self._streams: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        streams = [writer]
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer, streams)
        finally:
            for stream in streams:
                stream.transport.abort()
                with contextlib.suppress(OSError):
                    await stream.wait_closed()

    async def _serve(self, reader, writer, streams) -> None:
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
        streams.append(other_writer)
        self._streams.update(streams)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            # One request for each connection, so that this one needs to read no others.
            path = f"{address.path}?{address.query}" if address.query else address.path
            kept = [
                name for name in rest.split(b"\r\n") if not name.lower().startswith((b"proxy-", b"connection:"))
            ]
            other_writer.write(f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode() + b"\r\n".join(kept))
        up = asyncio.create_task(_copy(reader, other_writer))
        await _copy(other_reader, writer)
        up.cancel()
        await asyncio.wait([up])

    async def hang_up(self) -> None:
        for stream in self._streams:
            stream.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def forward_proxy() -> AsyncIterator[ForwardProxy]:
    proxy = ForwardProxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://user:{PASSWORD}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.hang_up()
