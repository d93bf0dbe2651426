"""A TCP server on 127.0.0.1 that leaves no connection behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

from liveavatar_gateway.upstream.egress import Route

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Loop turns between the accept of a connection and the start of its task.
_ACCEPT_TURNS = 4


@contextlib.asynccontextmanager
async def tcp_server(serve: Serve) -> AsyncIterator[str]:
    """Serve each connection with `serve`; yield the server's address as "host:port".

    A connection ends when `serve` returns or meets the end of its peer. At the end of the block the rest is reset
    and waited for: a socket that outlives its event loop is a warning that fails some later test.
    """
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(run(reader, writer))
        connections[task] = writer
        task.add_done_callback(connections.pop)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        for task, writer in connections.items():
            writer.transport.abort()
            task.cancel()
        if connections:
            await asyncio.wait(list(connections))


def route_to(url: str) -> Route:
    """Return the way to a socket at an address of this machine."""
    parts = urlsplit(url)
    return Route(url=url, port=parts.port or 80, addresses=(parts.hostname or "",))
