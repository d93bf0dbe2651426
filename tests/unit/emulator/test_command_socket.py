"""Command socket as an ASGI application: frames in, events out, close codes."""

import asyncio

import orjson
import pytest

from liveavatar_emulator.command_socket import CommandSockets
from liveavatar_emulator.transport import EXTENSION


class Socket:
    """An ASGI connection in memory."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict] = asyncio.Queue()
        self.sent: list[dict] = []
        self.resets = 0
        self.incoming.put_nowait({"type": "websocket.connect"})

    def reset(self) -> None:
        self.resets += 1

    async def send(self, message: dict) -> None:
        self.sent.append(message)

    async def run(self, service, secret: str) -> None:
        scope = {"type": "websocket", "path": f"/ws/{secret}", "extensions": {EXTENSION: self}}
        await CommandSockets(service.emulator)(scope, self.incoming.get, self.send)


async def attached(service, *frames: dict) -> tuple:
    """Start a session and a socket that has sent `frames`."""
    started, socket = service.start(), Socket()
    for frame in frames:
        socket.incoming.put_nowait({"type": "websocket.receive", **frame})
    running = asyncio.create_task(socket.run(service, started.secret))
    for _ in range(20):
        await asyncio.sleep(0)
    return started, socket, running


@pytest.mark.parametrize(
    ("end", "code", "by"),
    [({"code": 1000, "reason": "bye"}, 1000, "client"), ({"code": 1005, "reason": None}, 1006, "lost")],
)
async def test_frames_are_executed_until_the_client_disconnects(service, end, code, by):
    started, socket, running = await attached(service, {"text": '{"type":"session.keep_alive"}'}, {"bytes": b"x"})
    socket.incoming.put_nowait({"type": "websocket.disconnect", **end})
    await running
    recording = started.driver.session.recording
    assert (recording.keepalive_count, recording.invalid_messages) == (1, 1)
    assert socket.sent[0] == {"type": "websocket.accept"}
    assert orjson.loads(socket.sent[1]["text"])["state"] == "new"
    assert (recording.sockets[0].close_code, recording.sockets[0].closed_by) == (code, by)


async def test_a_frame_beyond_the_limit_closes_the_socket(service):
    started, socket, running = await attached(service, {"text": "x" * 1_000_001})
    assert socket.sent[-1] == {"type": "websocket.close", "code": 1009, "reason": "message too big"}
    socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1009, "reason": ""})
    await running
    assert started.driver.session.recording.oversize_packets == 1
    assert started.driver.session.recording.sockets[0].closed_by == "server"


@pytest.mark.parametrize(("how", "resets"), [("forbidden", 0), ("reset", 1)])
async def test_a_refused_socket_is_closed_or_reset(service, how, resets):
    started, socket = service.start(), Socket()
    started.driver.active_faults.refusals.append(how)
    await socket.run(service, started.secret)
    assert socket.sent == [{"type": "websocket.close", "code": 1008}]
    assert socket.resets == resets
