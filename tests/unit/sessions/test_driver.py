"""The driver of a session: what fails while nobody waits for it any more is no fault."""

import asyncio
import gc
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import UpstreamUnreachable
from liveavatar_gateway.core.events import UtteranceStarted
from liveavatar_gateway.core.outputs import Deadline, Emit
from liveavatar_gateway.core.readiness import ReadinessConfig
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.states import EndReason, SessionState
from liveavatar_gateway.sessions.attachments import Attachments
from liveavatar_gateway.sessions.driver import SessionDriver
from liveavatar_gateway.sessions.reconnector import ReconnectConfig
from liveavatar_gateway.sessions.standby import Standby
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.upstream.model import AvatarRequest
from liveavatar_gateway.upstream.socket import CommandSocket
from testkit.actors import JournaledUpstream, Process, Upstream
from testkit.avatar import audio_input_of
from testkit.tcp import route_to


class Journal:
    """Calls back for each packet, and before anything is sent."""

    def __init__(self) -> None:
        self.on_packet: Callable[[object], None] = lambda _: None
        self.on_confirm: Callable[[], Awaitable[None]] | None = None

    def note_utterance(self, utterance: object) -> None:
        self.on_packet(utterance)

    async def confirm_lease(self) -> None:
        if self.on_confirm is not None:
            await self.on_confirm()


def driver(core: Any, upstream: Any, config: ReconnectConfig | None = None, **parts: Any) -> SessionDriver:
    """The driver of a session that has no standby, and whose events nobody reads."""
    return SessionDriver(
        core,
        config or ReconnectConfig(),
        SimpleNamespace(packet_sent=lambda _: None, upstream_failed=lambda _: None),
        wake=parts.get("wake", Wakeup()),
        publisher=parts.get("publisher", SimpleNamespace(report=lambda: None, publish=lambda _: None)),
        journal=parts.get("journal", Journal()),
        avatars=SimpleNamespace(
            upstream=upstream, current=upstream, are_replaceable=False, take_connected=lambda: None
        ),
        standbys=SimpleNamespace(take=lambda: None, prepare=lambda: None, close=lambda: None),
    )


class Core:
    """A session whose socket is lost; its caller ends it at a moment of the test's choice."""

    id = "s-1"
    state = SessionState.RECONNECTING
    over = False

    def tick(self, now_s: float, *, is_stuck: bool = False) -> None: ...

    def reports(self) -> list[Any]:
        return []

    def drain(self, now_s: float) -> list[Any]:
        return [Deadline(None)]


class GoneUpstream:
    """LiveAvatar has ended the session, which shows when the socket is to be opened again."""

    started = SimpleNamespace(session_id="up-1")

    def __init__(self, core: Core) -> None:
        self._core = core

    async def connect(self, _: Any) -> Any:
        raise UpstreamUnreachable("refused", values={"http_status": "403"})

    async def remote_status(self) -> Any:
        self._core.over = True
        return SimpleNamespace(over=True, reason="NO_CREDITS")


async def test_a_try_that_fails_as_its_session_ends_leaves_nothing_unlooked_at():
    core, faults = Core(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["message"]))
    async with asyncio.timeout(30):
        await driver(core, GoneUpstream(core), ReconnectConfig(first_wait_s=0.01)).run()
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
    wake = Wakeup()
    journal = Journal()
    packets = 0

    def stand_still(_: object) -> None:
        nonlocal packets
        packets += 1
        if packets == 3:
            time.sleep(0.6)

    journal.on_packet = stand_still
    async with serve(acknowledge, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = SimpleNamespace(
            started=SimpleNamespace(session_id="up-1"),
            connect=lambda listener: CommandSocket.open(route_to(url), listener, timeout_s=5),
        )
        core.started(max_duration_s=None, now_s=time.monotonic())
        running = asyncio.create_task(driver(core, upstream, wake=wake, journal=journal).run())
        utterance = core.begin("u", audio_input_of(None))
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


async def test_nothing_is_sent_before_it_is_certain_that_no_other_process_took_the_session():
    """Its owner stood still, and is cancelled when the registry says who has the session now."""
    ids = itertools.count()
    core = Session("s-1", SessionConfig(), new_id=lambda: f"id-{next(ids)}", utc_now=lambda: datetime.now(UTC))
    wake = Wakeup()
    journal = Journal()
    taken = False
    heard: list[str] = []

    async def confirm() -> None:
        if taken:
            running.cancel()
            await asyncio.sleep(0)

    async def listen(server: ServerConnection) -> None:
        await server.send('{"type":"session.state_updated","state":"connected"}')
        async for frame in server:
            heard.append(json.loads(frame)["type"])  # noqa: PERF401 - looked at while more is waited for

    journal.on_confirm = confirm
    async with serve(listen, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = SimpleNamespace(
            started=SimpleNamespace(session_id="up-1"),
            connect=lambda listener: CommandSocket.open(route_to(url), listener, timeout_s=5),
        )
        core.started(max_duration_s=None, now_s=time.monotonic())
        running = asyncio.create_task(driver(core, upstream, wake=wake, journal=journal).run())
        utterance = core.begin("u", audio_input_of(None))
        async with asyncio.timeout(10):
            core.speech.receive(utterance, None, bytes(48_000), time.monotonic())
            while "agent.speak" not in heard:
                wake.set()
                await asyncio.sleep(0.01)
            sent = len(heard)
            taken = True
            core.speech.receive(utterance, None, bytes(480_000), time.monotonic())
            wake.set()
            await asyncio.wait([running])
            await asyncio.sleep(0.1)
    assert running.cancelled()
    assert heard[sent:] == []


class Ending(Core):
    """A session that is ended by its driver."""

    def end(self, *_: Any, **__: Any) -> None:
        self.over = True


class SleepyUpstream:
    """Upstream that refuses sockets; during the first attempt the process stands still beyond the budget."""

    started = SimpleNamespace(session_id="up-1")

    def __init__(self, suspended_s: float) -> None:
        self.tries = 0
        self._suspended_s = suspended_s

    async def connect(self, _: Any) -> Any:
        self.tries += 1
        if self.tries == 1:
            await asyncio.sleep(0)
            time.sleep(self._suspended_s)  # noqa: ASYNC251 - a suspended process
        raise UpstreamUnreachable("refused")


@pytest.mark.parametrize(("budget_s", "tries"), [(0.1, 2), (0.0, 0)])
async def test_the_driver_notices_that_the_process_stood_still_and_grants_a_try_where_there_is_a_budget(
    budget_s, tries
):
    upstream = SleepyUpstream(1.0)
    config = ReconnectConfig(budget_s=budget_s, first_wait_s=0.01, max_wait_s=0.02)
    async with asyncio.timeout(30):
        await driver(Ending(), upstream, config).run()
    assert upstream.tries == tries


class BlockedSocket:
    """A socket that takes no audio until the test allows it."""

    takes_nothing = False

    def __init__(self, listener: Any) -> None:
        self.hear = listener
        self.blocked, self.free = asyncio.Event(), asyncio.Event()

    async def send(self, command: m.Command, *, ping: int) -> None:
        if isinstance(command, m.Speak):
            self.blocked.set()
            await self.free.wait()

    async def closed(self) -> Any:
        await asyncio.Event().wait()


class RecordingPublisher:
    """Keeps events, and wakes attachments."""

    def __init__(self, core: Session, attachments: Attachments) -> None:
        self._core = core
        self._attachments = attachments
        self.events: list[Any] = []

    def report(self) -> None:
        self.publish(self._core.reports())

    def publish(self, outputs: Any) -> None:
        events = [output.entry.event for output in outputs if isinstance(output, Emit)]
        self.events.extend(events)
        if events:
            self._attachments.wake()


async def test_an_event_reaches_an_attached_caller_while_a_send_is_blocked():
    ids = itertools.count()
    core = Session("s-1", SessionConfig(), new_id=lambda: f"id-{next(ids)}", utc_now=lambda: datetime.now(UTC))
    wake, sockets = Wakeup(), []
    attachments = Attachments("s-1", grace_s=60, abandon=lambda: None, changed=lambda: None)
    attachment = attachments.add()
    publisher = RecordingPublisher(core, attachments)

    async def connect(listener: Any) -> BlockedSocket:
        sockets.append(BlockedSocket(listener))
        return sockets[0]

    upstream = SimpleNamespace(started=SimpleNamespace(session_id="up-1"), connect=connect)
    core.started(max_duration_s=None, now_s=time.monotonic())
    running = asyncio.create_task(driver(core, upstream, wake=wake, publisher=publisher).run())
    async with asyncio.timeout(20):
        while not sockets:
            await asyncio.sleep(0.01)
        (socket,) = sockets
        socket.hear(m.StateUpdated("connected"))
        utterance = core.begin("u", audio_input_of(None))
        core.speech.receive(utterance, None, bytes(48_000), time.monotonic())
        wake.set()
        await socket.blocked.wait()
        publisher.events.clear()
        while UtteranceStarted("u") not in publisher.events:
            socket.hear(m.SpeakStarted(m.Refs((utterance.upstream_id,))))
            await attachment.wakeup.wait()
    assert not socket.free.is_set()
    running.cancel()
    await asyncio.wait([running])
    attachments.close()


async def test_a_flood_before_the_session_knows_of_its_socket_is_not_kept():
    core = Core()
    one = driver(core, GoneUpstream(core))
    one._early = []
    for _ in range(5000):
        one._on_event(m.StateUpdated("connecting"))
    assert len(one._early) == 1000


class WarmSource:
    """Has one warm session, connected and ready or not."""

    def __init__(self, pool, *, ready: bool) -> None:
        self.pool = pool
        self.ready = ready
        self.left: list[Any] = []

    async def warm_up(self) -> Upstream:
        upstream = JournaledUpstream(1, None)
        upstream.is_silent = not self.ready
        avatar = Standby(upstream)
        connecting = asyncio.create_task(avatar.connect(ReadinessConfig(), lambda: "id"))
        async with asyncio.timeout(10):
            while not (avatar.is_ready if self.ready else avatar.has_socket):
                await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])

        async def hand_over(_: Any, limit_s: float | None) -> Upstream:
            upstream.started = replace(upstream.started, max_duration_s=limit_s)
            return upstream

        self.left.append(SimpleNamespace(avatar=avatar, left_s=lambda _: 600.0, hand_over=hand_over))
        self.pool.upstreams.append(upstream)
        return upstream

    def take(self, *_: Any, **__: Any) -> Any:
        return self.left.pop()


async def test_a_session_speaks_over_the_socket_of_a_warm_one_at_once():
    process = Process()
    source = WarmSource(process.pool, ready=True)
    process.services = replace(process.services, warm=source)
    upstream = await source.warm_up()
    session = await process.ready(avatar=AvatarRequest(avatar_id="a", max_duration_s=60))
    assert len(upstream.sockets) == 1
    # The next keep-alive of its own is due a whole interval from now.
    assert await process.sent(m.KeepAlive)
    assert session.view().max_duration_s == 60
    upstream.sockets[0].say(m.Stopped("IDLE_TIMEOUT"))
    await asyncio.wait_for(session.finished.wait(), 10)
    await process.close()


async def test_a_warm_session_that_is_not_ready_yet_is_waited_for_on_its_socket():
    process = Process()
    source = WarmSource(process.pool, ready=False)
    process.services = replace(process.services, warm=source)
    upstream = await source.warm_up()
    session = process.session()
    process.run(session)
    await asyncio.wait_for(session.room(), 10)
    assert session.state is SessionState.CONNECTING
    upstream.sockets[0].say(m.StateUpdated("connected"))
    await asyncio.wait_for(session.ready(), 10)
    assert len(upstream.sockets) == 1
    await process.close()


async def test_a_shorter_limit_than_liveavatars_ends_the_session_there():
    process = Process()
    source = WarmSource(process.pool, ready=True)
    process.services = replace(process.services, warm=source)
    await source.warm_up()
    session = await process.ready(avatar=AvatarRequest(avatar_id="a", max_duration_s=1))
    await asyncio.wait_for(session.finished.wait(), 30)
    assert session.end_reason is EndReason.MAX_DURATION
    await process.close()
