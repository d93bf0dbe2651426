"""A server on 127.0.0.1 that answers HTTP as a test says: as proxies do, in drips, in floods, or as LiveAvatar."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]
Answer = bytes | Write


def http(status: int, body: object = b"", **headers: str) -> bytes:
    """A whole answer; what is no bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def envelope(data: object, *, code: int = 1000, message: str = "Success") -> dict[str, object]:
    return {"code": code, "data": data, "message": message}


class Answering:
    """What was asked, and what is answered: by path, else 404 in LiveAvatar's form."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.answers: dict[str, list[Answer] | Answer] = {}
        self._serving: dict[asyncio.StreamWriter, asyncio.Task[object] | None] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving[writer] = asyncio.current_task()
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            del self._serving[writer]

    async def hang_up(self) -> None:
        for writer in self._serving:
            writer.transport.abort()
        if tasks := [task for task in self._serving.values() if task is not None]:
            await asyncio.wait(tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lengths = [line for line in head.lower().splitlines() if line.startswith("content-length:")]
            if lengths:
                await reader.readexactly(int(lengths[0].partition(":")[2]))
            path = head.split()[1].partition("?")[0]
            self.asked.append(path)
            answer = self.answers.get(path, http(404, envelope(None, code=404, message="Session not found")))
            if isinstance(answer, list):
                answer = answer.pop(0) if len(answer) > 1 else answer[0]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)


@contextlib.asynccontextmanager
async def answering() -> AsyncIterator[Answering]:
    state = Answering()
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        await state.hang_up()
