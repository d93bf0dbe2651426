"""Standby avatars: ready before they are needed, and closed when they are not."""

import asyncio
from types import SimpleNamespace

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import ReadyTimeout, UpstreamUnreachable
from liveavatar_gateway.core.readiness import ReadinessConfig
from liveavatar_gateway.sessions.standby import Standby, StandbyManager
from liveavatar_gateway.sessions.wakeup import Wakeup
from testkit.actors import Pool, Upstream


def new_id() -> str:
    return "id"


class NumberedUpstream(Upstream):
    """Notes the numbers of the pings on its socket."""

    async def connect(self, on_event):
        socket = await super().connect(on_event)
        socket.pings = []

        async def send(command, *, ping):
            if ping:
                socket.pings.append(ping)

        socket.send = send
        return socket


class SilentUpstream(Upstream):
    """Says nothing when its socket is opened."""

    async def connect(self, on_event):
        socket = await super().connect(lambda _: None)
        socket.say = on_event
        return socket


async def test_a_standby_is_ready_when_its_avatar_is():
    standby = Standby(Upstream(1))
    await asyncio.wait_for(standby.connect(ReadinessConfig(), new_id), 10)


async def test_a_standby_that_never_gets_ready_is_given_up():
    standby = Standby(SilentUpstream(1))
    with pytest.raises(ReadyTimeout):
        await asyncio.wait_for(
            standby.connect(ReadinessConfig(ready_timeout_s=0.05, probe_after_s=0.01), new_id), 10
        )


@pytest.mark.parametrize("event", [m.Stopped("IDLE_TIMEOUT"), m.StateUpdated("closed")])
async def test_a_standby_that_liveavatar_ends_before_it_is_ready_cannot_be_used(event):
    upstream = SilentUpstream(1)
    connecting = asyncio.create_task(Standby(upstream).connect(ReadinessConfig(), new_id))
    async with asyncio.timeout(10):
        while not upstream.sockets:
            await asyncio.sleep(0)
    upstream.sockets[0].say(event)
    with pytest.raises(UpstreamUnreachable):
        await asyncio.wait_for(connecting, 10)


async def test_a_standby_sends_keep_alives_until_its_socket_is_lost():
    upstream = Upstream(1)
    standby = Standby(upstream)
    await standby.connect(ReadinessConfig(), new_id)
    waiting = asyncio.create_task(standby.wait_until_gone(new_id))
    before_s = standby.last_command_at_s
    standby.keep_alive()
    async with asyncio.timeout(10):
        while m.KeepAlive("id") not in upstream.sockets[0].commands:
            await asyncio.sleep(0)
    assert standby.last_command_at_s > before_s
    upstream.sockets[0].lost.set_result(None)
    await asyncio.wait_for(waiting, 10)


async def test_events_of_a_standby_go_to_its_listener_once_there_is_one():
    upstream, heard = Upstream(1), []
    standby = Standby(upstream)
    await standby.connect(ReadinessConfig(), new_id)
    standby.listen(heard.append)
    upstream.sockets[0].say(m.Stopped("IDLE_TIMEOUT"))
    assert heard == [m.Stopped("IDLE_TIMEOUT")]


async def connected(upstream: Upstream) -> Standby:
    standby = Standby(upstream)
    assert not standby.has_socket
    await standby.connect(ReadinessConfig(), new_id)
    assert (standby.has_socket, standby.is_ready, standby.is_gone) == (True, True, False)
    return standby


async def test_a_standby_that_answers_its_checks_stays_and_one_that_does_not_is_gone():
    upstream = NumberedUpstream(1)
    standby, heard = await connected(upstream), []
    waiting = asyncio.create_task(standby.wait_until_gone(new_id))
    (socket,) = upstream.sockets
    for count in (1, 2):
        standby.check()
        async with asyncio.timeout(10):
            while len(socket.pings) < count:
                await asyncio.sleep(0)
        if count == 1:
            # No session that listens later is told of it.
            standby.listen(heard.append)
            socket.say(m.PongReceived(socket.pings[-1]))
    assert not standby.is_gone
    standby.check()
    await asyncio.wait_for(waiting, 10)
    assert (standby.is_gone, heard) == (True, [])


async def test_a_standby_that_ended_without_a_word_is_dropped():
    standby = await connected(Upstream(1))
    waiting = asyncio.create_task(standby.wait_until_gone(new_id))
    standby.drop()
    await asyncio.wait_for(waiting, 10)
    assert standby.is_gone


class Source:
    """Starts avatars, and adds up what those cost that never spoke."""

    def __init__(self) -> None:
        self.started: list[Upstream] = []
        self.retired_s: list[float] = []

    async def start_next(self) -> Upstream:
        self.started.append(Upstream(len(self.started) + 2))
        return self.started[-1]

    def retire(self, billed_s: float) -> None:
        self.retired_s.append(billed_s)


async def test_a_standby_is_closed_and_billed_when_the_session_ends_without_it():
    calls: list[str] = []

    class Core:
        id = "s-1"
        config = SimpleNamespace(readiness=ReadinessConfig())

        def __getattr__(self, name):
            return lambda *_: calls.append(name) or True

    source, wake = Source(), Wakeup()
    standbys = StandbyManager(Core(), Pool(), source, wake=wake, new_id=new_id)
    standbys.prepare()
    await asyncio.wait_for(wake.wait(), 10)
    standbys.close()
    async with asyncio.timeout(10):
        while not source.retired_s:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [one.end for one in source.started] == ["closed"]


async def test_a_standby_that_is_taken_is_neither_closed_nor_billed_here():
    class Core:
        id = "s-1"
        config = SimpleNamespace(readiness=ReadinessConfig())

        def __getattr__(self, _):
            return lambda *_: True

    source, wake = Source(), Wakeup()
    standbys = StandbyManager(Core(), Pool(), source, wake=wake, new_id=new_id)
    standbys.prepare()
    await asyncio.wait_for(wake.wait(), 10)
    taken = standbys.take()
    await standbys.wait_for_release()
    assert taken.upstream is source.started[0]
    assert taken.upstream.end == ""
    assert source.retired_s == []
    assert standbys.take() is None
