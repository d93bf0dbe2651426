"""The actor of one session: commands, waits and what it shows."""

import asyncio
from datetime import UTC, datetime

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import Draining, OwnerMoved, SessionEnded, UtteranceNotFound
from liveavatar_gateway.core.states import EndReason, Outcome, SessionState
from liveavatar_gateway.sessions.record import Record
from testkit.actors import Process
from testkit.avatar import audio_input_of


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


async def test_an_interrupt_returns_what_it_ended_once_the_avatar_has_stopped(process):
    session = await process.ready()
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.receive(utterance, None, bytes(96_000))
    await process.sent(m.Speak)
    interrupting = asyncio.create_task(session.interrupt(""))
    command = await process.sent(m.Interrupt)
    assert not interrupting.done()
    process.socket.say(m.Cleared(m.Refs((command.event_id,))))
    (ended,) = await asyncio.wait_for(interrupting, 10)
    assert (ended.utterance_id, ended.outcome) == ("u", Outcome.INTERRUPTED)


async def test_an_interrupt_of_what_only_waits_here_returns_at_once(process):
    session = await process.ready()
    session.utterances.begin("u", audio_input_of(None))
    (ended,) = await asyncio.wait_for(session.interrupt("u"), 10)
    assert ended.utterance_id == "u"
    with pytest.raises(UtteranceNotFound):
        await session.interrupt("other")


async def test_commands_wake_the_driver(process):
    session = await process.ready()
    session.listen()
    await process.sent(m.ListenStart)
    session.lifecycle.keep_alive()
    await process.sent(m.KeepAlive)
    assert session.lifecycle.last_command_at_s > 0


async def test_a_drain_is_announced_and_taken_back(process):
    session = await process.ready()
    attachment = session.attachments.add_attach_stream()
    deadline = datetime.now(UTC)
    session.go_away(deadline, takes_speech=False)
    await asyncio.wait_for(attachment.wakeup.wait(), 10)
    assert session.draining_until == deadline
    with pytest.raises(Draining):
        session.utterances.begin("u", audio_input_of(None))
    session.cancel_go_away()
    assert session.draining_until is None
    session.utterances.begin("u", audio_input_of(None))


async def test_a_session_without_an_attachment_ends_after_its_grace(process):
    session = await process.ready(detach_grace_s=0.05)
    await asyncio.wait_for(session.finished.wait(), 10)
    assert session.end_reason is EndReason.CALLER_LOST


async def test_a_wait_for_a_session_that_ends_fails_with_the_reason(process):
    process.pool.permit.clear()
    session = process.session()
    process.run(session)
    waiting = asyncio.create_task(session.room())
    await asyncio.sleep(0)
    session.end(EndReason.CALLER_ENDED)
    with pytest.raises(SessionEnded) as caught:
        await asyncio.wait_for(waiting, 10)
    assert caught.value.metadata["end_reason"] == "CALLER_ENDED"
    with pytest.raises(SessionEnded):
        session.require_alive()


async def test_a_wait_for_a_session_that_another_process_took_fails_with_its_owner(process):
    process.pool.permit.clear()
    session = process.session()
    process.run(session)
    waiting = asyncio.create_task(session.ready())
    await asyncio.sleep(0)
    session.moved(OwnerMoved(session.id))
    with pytest.raises(OwnerMoved):
        await asyncio.wait_for(waiting, 10)


async def test_a_handle_is_in_the_journal_before_its_caller_has_it(process):
    session = process.session()
    handle = session.issue_handle()
    assert process.journal.calls == ["note_handles"]
    assert handle.startswith(session.id)
    assert len(session.handle_hashes()) == 1


async def test_the_record_says_what_another_process_needs(process):
    session = await process.ready(labels={"team": "blue"})
    record = Record.of(session.payload())
    assert record.spec == session.spec
    assert record.upstream_session_id == "up-1"
    assert record.end_reason is None
    session.end_for(EndReason.OPERATOR)
    await asyncio.wait_for(session.finished.wait(), 10)
    assert Record.of(session.payload()).end_reason is EndReason.OPERATOR


async def test_the_last_event_shows_the_session_the_same_way_each_time(process):
    session = await process.ready()
    session.end(EndReason.CALLER_ENDED)
    await asyncio.wait_for(session.finished.wait(), 10)
    view = session.final_view()
    assert view.state is SessionState.ENDED
    session.utterances.drop_stale(100)
    assert session.final_view() == view
    assert session.view().usage.dropped_bytes == 100
