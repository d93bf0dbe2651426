"""The life of one session: whatever ends it, nothing is left that is paid for."""

import asyncio
import time

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import CapacityExhausted, Draining, OwnerMoved
from liveavatar_gateway.core.events import Expiring
from liveavatar_gateway.core.readiness import ReadinessConfig
from liveavatar_gateway.core.states import EndReason, SessionState
from liveavatar_gateway.sessions.standby import Standby
from testkit.actors import Process, Upstream
from testkit.avatar import audio_input_of


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


async def finished(session) -> None:
    await asyncio.wait_for(session.finished.wait(), 10)


async def test_a_session_is_stopped_upstream_and_recorded_at_its_end(process):
    session = await process.ready()
    session.end(EndReason.CALLER_ENDED)
    await finished(session)
    assert session.state is SessionState.ENDED
    assert process.pool.upstreams[0].end == "closed"
    await process.running[0]
    assert process.journal.calls[-1] == "finish"
    assert set(process.news) == {session.id}


async def test_an_expiry_is_that_of_the_avatar_as_its_session_shows(process):
    session = await process.ready()
    session._core.tick(time.monotonic() + 590.0)
    (expiring,) = [entry.event for entry in session.log.after(0) if isinstance(entry.event, Expiring)]
    assert expiring.expires_at == session.view().expires_at


async def test_a_keep_alive_takes_the_socket_and_without_a_ready_one_rest(process):
    session = await process.ready()
    lifecycle, (upstream,) = session.lifecycle, process.pool.upstreams
    lifecycle.keep_alive()
    await process.sent(m.KeepAlive)
    assert upstream.kept_alive == 0
    session._core.socket_lost(time.monotonic())
    before_s = lifecycle.last_command_at_s
    lifecycle.keep_alive()
    lifecycle.keep_alive()
    async with asyncio.timeout(10):
        while lifecycle.last_command_at_s == before_s:
            await asyncio.sleep(0)
    assert upstream.kept_alive == 1, "one call at a time"


async def test_an_avatar_that_takes_over_is_kept_alive_by_its_own_last_command(process):
    session = await process.ready(auto_rotate=True)
    lifecycle = session.lifecycle
    standby = Standby(Upstream(2))
    await standby.connect(ReadinessConfig(), lambda: "id")
    standby.last_command_at_s = 5.0
    await lifecycle._driver._take_over(standby)
    assert lifecycle.last_command_at_s == 5.0
    assert process.pool.keep_alive_targets == [lifecycle, lifecycle]


async def test_a_refused_start_ends_the_session_with_the_error(process):
    process.pool.refusal = CapacityExhausted("full", scope="gateway", retry_after_s=1.0)
    session = process.session()
    await process.run(session)
    assert session.end_reason is EndReason.CREATE_FAILED
    assert session.error is process.pool.refusal


async def test_an_end_calls_off_the_wait_for_a_permit(process):
    process.pool.permit.clear()
    session = process.session()
    running = process.run(session)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    session.end(EndReason.CALLER_LOST)
    await asyncio.wait_for(running, 10)
    assert process.pool.upstreams == []
    assert session.end_reason is EndReason.CALLER_LOST


async def test_a_cancelled_session_is_stopped_all_the_same(process):
    session = await process.ready()
    process.running[0].cancel()
    await finished(session)
    assert process.pool.upstreams[0].end == "closed"
    assert session.end_reason is EndReason.DRAINED


async def test_a_fault_of_the_gateway_ends_the_session_with_an_incident(process, monkeypatch):
    session = await process.ready()
    monkeypatch.setattr(session._core, "tick", lambda *_, **__: 1 / 0)
    session.lifecycle.keep_alive()
    await finished(session)
    assert session.end_reason is EndReason.UPSTREAM_FAILED
    assert session.error.metadata["incident"]
    assert process.pool.upstreams[0].end == "closed"


async def test_a_session_that_another_process_owns_keeps_running_upstream(process):
    session = await process.ready()
    session.moved(OwnerMoved(session.id))
    await finished(session)
    assert process.pool.upstreams[0].end == "left"
    assert session.lost_to is not None
    assert "finish" not in process.journal.calls


async def test_a_reserved_session_that_is_called_off_is_over(process):
    session = process.session()
    await session.lifecycle.call_off(Draining())
    assert session.finished.is_set()
    assert session.end_reason is EndReason.CREATE_FAILED
    assert process.journal.calls[-1] == "finish"


async def test_a_fault_outside_of_every_handler_stops_the_session_and_wakes_its_streams(process):
    session = await process.ready()
    attachment = session.attachments.add()
    session.lifecycle.crashed(ZeroDivisionError())
    await asyncio.wait_for(attachment.wakeup.wait(), 10)
    await asyncio.sleep(0)
    assert session.finished.is_set()
    assert process.pool.upstreams[0].end == "closed"


async def test_the_end_of_speech_is_heard_before_the_avatar_is_stopped(process):
    session = await process.ready()
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.receive(utterance, None, bytes(4_800))
    session.utterances.seal(utterance)
    command = await process.sent(m.SpeakEnd)
    process.socket.say(m.SpeakStarted(m.Refs((command.event_id,))))
    await asyncio.sleep(0.2)
    process.socket.say(m.SpeakEnded(m.Refs((command.event_id,))))
    async with asyncio.timeout(10):
        while session.speaks:
            await asyncio.sleep(0)
    began_s = time.monotonic()
    session.end(EndReason.CALLER_ENDED)
    await finished(session)
    assert time.monotonic() - began_s >= 0.9 * session._core.config.end_tail_s
