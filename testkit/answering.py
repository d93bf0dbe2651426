"""A server on 127.0.0.1 that answers HTTP as a test says: as proxies do, in drips, in floods, or as LiveAvatar."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from testkit.tcp import tcp_server

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]
Answer = bytes | Write


def http(status: int, body: object = b"", **headers: str) -> bytes:
    """Return a whole answer; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def envelope(data: object, *, code: int = 1000, message: str = "Success") -> dict[str, object]:
    return {"code": code, "data": data, "message": message}


class Answering:
    """Paths and bodies of requests received, and answers by path; other paths get 404 in LiveAvatar's form."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.answers: dict[str, list[Answer] | Answer] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lengths = [line for line in head.lower().splitlines() if line.startswith("content-length:")]
        if lengths:
            self.bodies.append(await reader.readexactly(int(lengths[0].partition(":")[2])))
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
    async with tcp_server(state.serve) as address:
        state.url = f"http://{address}"
        yield state
