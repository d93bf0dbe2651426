"""Who drives a session's socket: what fails while nobody waits for it any more is no fault."""

import asyncio
import gc
import itertools
import json
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from harness.avatar import intake_of
from websockets.asyncio.server import ServerConnection, serve

from liveavatar_gateway.core.errors import UpstreamUnreachable
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.session_config import SessionConfig
from liveavatar_gateway.core.speech_config import SpeechConfig
from liveavatar_gateway.core.states import SessionState
from liveavatar_gateway.sessions.drive import Drive, ReconnectConfig
from liveavatar_gateway.sessions.signal import Signal
from liveavatar_gateway.upstream.socket import CommandSocket


class Core:
    """A session whose socket is lost; its caller ends it at a moment of the test's choice."""

    id = "s-1"
    state = SessionState.RECONNECTING
    over = False
    deadline_s = None

    def tick(self, now_s: float) -> None: ...

    def next_command(self, now_s: float) -> None: ...

    def may_take_over(self, now_s: float) -> bool:
        return False


class GoneUpstream:
    """LiveAvatar has ended the session, which shows when the socket is to be opened again."""

    started = SimpleNamespace(session_id="up-1")

    def __init__(self, core: Core) -> None:
        self._core = core

    async def connect(self, _: Any) -> Any:
        raise UpstreamUnreachable("refused", facts={"http_status": "403"})

    async def fate(self) -> Any:
        self._core.over = True
        return SimpleNamespace(over=True, reason="NO_CREDITS")


async def test_a_try_that_fails_as_its_session_ends_leaves_nothing_unlooked_at():
    core, faults = Core(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["message"]))
    rotations = SimpleNamespace(take=lambda _: None, look=lambda _: None, close=lambda: None)
    config = ReconnectConfig(first_wait_s=0.01)
    drive = Drive(core, config, None, wake=Signal(), tell=lambda: None, rotations=rotations)
    async with asyncio.timeout(30):
        await drive.run(GoneUpstream(core))
    gc.collect()
    assert faults == []


async def acknowledge(server: ServerConnection) -> None:
    """Confirm every packet at once."""
    await server.send('{"type":"session.state_updated","state":"connected"}')
    async for frame in server:
        command = json.loads(frame)
        if command["type"] == "agent.speak":
            told = {"type": "agent.audio_buffer_appended", "source_event_id": command["event_id"]}
            await server.send(json.dumps(told))


async def test_a_socket_is_judged_by_what_came_while_the_process_stood_still():
    """It is stopped behind a packet; when it goes on, the ack has waited for longer than a silence may last."""
    ids = itertools.count()
    config = SessionConfig(speech=SpeechConfig(silence_timeout_s=0.3))
    core = Session("s-1", config, new_id=lambda: f"id-{next(ids)}", utc_now=lambda: datetime.now(UTC))
    wake = Signal()
    rotations = SimpleNamespace(take=lambda _: None, look=lambda _: None, close=lambda: None)
    metrics = SimpleNamespace(packet=lambda _: None, upstream_failed=lambda _: None)
    drive = Drive(core, ReconnectConfig(), metrics, wake=wake, tell=lambda: None, rotations=rotations)
    packets = 0

    def stand_still(_: object) -> None:
        nonlocal packets
        packets += 1
        if packets == 3:
            time.sleep(0.6)

    drive.progress = stand_still
    async with serve(acknowledge, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = SimpleNamespace(
            started=SimpleNamespace(session_id="up-1"),
            connect=lambda listener: CommandSocket.open(url, listener, timeout_s=5),
        )
        core.started(max_duration_s=None, now_s=time.monotonic())
        running = asyncio.create_task(drive.run(upstream))
        utterance = core.begin("u", intake_of(None))
        async with asyncio.timeout(10):
            while core.state is not SessionState.READY:
                await asyncio.sleep(0.01)
            for _ in range(6):
                core.speech.receive(utterance, None, bytes(48_000), time.monotonic())
                wake.set()
                await asyncio.sleep(0.1)
        assert packets >= 3
        assert core.reconnect_count == 0
        assert core.state is SessionState.READY
        running.cancel()
