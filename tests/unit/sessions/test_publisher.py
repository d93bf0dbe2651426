"""Publication of events: once, in order, and to all who need them."""

import asyncio
from types import SimpleNamespace

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import SessionEnded
from liveavatar_gateway.core.events import UtteranceEnded, UtteranceStarted
from liveavatar_gateway.core.states import EndReason, Outcome
from liveavatar_gateway.sessions.publisher import _is_completion
from testkit.actors import Process
from testkit.avatar import audio_input_of


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


async def test_news_reach_streams_journal_and_observers_once(process):
    session = await process.ready()
    process.news.clear()
    process.journal.calls.clear()
    attachment = session.attachments.add()
    session.end(EndReason.CALLER_ENDED)
    assert process.news == [session.id]
    assert process.journal.calls == ["change", "note_speech", "note_sequence"]
    await asyncio.wait_for(attachment.wakeup.wait(), 10)
    session._publisher.report()
    assert process.news == [session.id]


async def test_a_faulty_listener_is_a_fault_of_its_session(process):
    session = await process.ready()
    session._publisher._listener = SimpleNamespace(on_news=lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.end(EndReason.CALLER_ENDED)


async def test_the_time_of_a_completion_is_kept_and_that_of_an_interrupt_is_not(process):
    session = await process.ready()
    session.utterances.begin("u", audio_input_of(None))
    await session.interrupt("u")
    assert session._publisher.last_completed_s is None
    utterance = session.utterances.begin("v", audio_input_of(None))
    session.utterances.receive(utterance, None, bytes(4_800))
    session.utterances.seal(utterance)
    refs = m.Refs(((await process.sent(m.SpeakEnd)).event_id,))
    process.socket.say(m.SpeakStarted(refs))
    await asyncio.sleep(0.1)
    process.socket.say(m.SpeakEnded(refs))
    async with asyncio.timeout(10):
        while session._publisher.last_completed_s is None:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("event", "is_completion"),
    [
        (UtteranceEnded("u", Outcome.COMPLETED, 1.0), True),
        (UtteranceEnded("u", Outcome.COMPLETED, 0.0), False),
        (UtteranceEnded("u", Outcome.INTERRUPTED, 1.0), False),
        (UtteranceEnded("u", Outcome.FAILED, 1.0, SessionEnded("s", "IDLE")), False),
        (UtteranceStarted("u"), False),
    ],
)
def test_only_speech_that_was_heard_and_ended_by_itself_is_a_completion(event, is_completion):
    assert _is_completion(event) is is_completion
