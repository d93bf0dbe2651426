"""Utterances as audio streams open, fill and end them."""

import asyncio

import pytest

from liveavatar_gateway.core.errors import Draining, InvalidField, SessionEnded
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.states import EndReason, Outcome
from testkit.actors import Process
from testkit.avatar import audio_input_of


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


@pytest.fixture
async def session(process):
    return process.session(detach_grace_s=0.05)


async def ended(session, utterance) -> None:
    async with asyncio.timeout(10):
        while utterance.outcome is None:
            await asyncio.sleep(0.01)


async def test_audio_moves_the_progress_and_takes_credit(session):
    audio_input = audio_input_of(None)
    credit = session.utterances.credit_bytes(audio_input)
    utterance = session.utterances.begin("u", audio_input)
    session.utterances.receive(utterance, 0, bytes(9_600))
    progress = session.utterances.progress(utterance, audio_input, 0.0)
    assert (progress.received_bytes, progress.confirmed_bytes, progress.played_s) == (9_600, 0, 0.0)
    assert progress.credit_bytes == credit - 9_600


async def test_audio_of_a_sealed_utterance_is_counted_and_dropped(session):
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.seal(utterance)
    session.utterances.receive(utterance, None, bytes(100))
    assert session.view().usage.dropped_bytes == 100


async def test_an_orphan_is_cancelled_after_the_grace(session):
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.orphan(utterance)
    await ended(session, utterance)
    assert utterance.outcome is Outcome.INTERRUPTED


async def test_a_stream_that_resumes_an_orphan_in_time_keeps_it(session):
    audio_input = audio_input_of(None)
    utterance = session.utterances.begin("u", audio_input, idle_timeout_s=60)
    session.utterances.orphan(utterance)
    assert session.utterances.resume("u", audio_input) is utterance
    assert utterance.idle_since_s is not None
    await asyncio.sleep(0.1)
    assert utterance.outcome is None


async def test_an_orphan_is_cancelled_when_its_caller_begins_another(session):
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.orphan(utterance)
    session.utterances.begin("v", audio_input_of(None))
    assert utterance.outcome is Outcome.INTERRUPTED


async def test_a_resume_of_an_utterance_that_has_ended_returns_its_end(session):
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.cancel(utterance)
    found = session.utterances.resume("u", audio_input_of(None))
    assert isinstance(found, UtteranceEnded)
    assert found.outcome is Outcome.INTERRUPTED


async def test_a_resume_of_an_unknown_utterance_opens_it(session):
    assert session.utterances.resume("u", audio_input_of(None)).id == "u"


async def test_a_resume_in_another_format_is_refused(session):
    session.utterances.begin("u", audio_input_of(None))
    other = audio_input_of(None)
    other = type(other)(
        **{name: getattr(other, name) for name in ("byte_rate", "frame_bytes", "max_chunk_bytes")},
        new_converter=other.new_converter,
        detect_container=other.detect_container,
        may_be_container=other.may_be_container,
        format="other",
    )
    with pytest.raises(InvalidField):
        session.utterances.resume("u", other)


async def test_new_utterances_are_refused_while_the_process_exits_and_not_after_the_end(session):
    session.utterances.accept_new(accepted=False)
    with pytest.raises(Draining):
        session.utterances.begin("u", audio_input_of(None))
    session.end(EndReason.CALLER_ENDED)
    with pytest.raises(SessionEnded):
        session.utterances.begin("u", audio_input_of(None))


async def test_utterances_of_another_process_are_orphans_unless_sealed(session):
    open_one = session.utterances.begin("u", audio_input_of(None))
    sealed = session.utterances.begin("v", audio_input_of(None))
    session.utterances.seal(sealed)
    session.utterances.adopt()
    await ended(session, open_one)
    assert sealed.outcome is None


async def test_no_orphan_is_cancelled_after_the_session_was_closed(session):
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.orphan(utterance)
    session.utterances.close()
    await asyncio.sleep(0.1)
    assert utterance.outcome is None
