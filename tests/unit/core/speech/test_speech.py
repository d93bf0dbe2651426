"""Speech: progress of utterances, and failures."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import (
    InvalidField,
    SessionEnded,
)
from liveavatar_gateway.core.states import EndReason, Outcome


def started(utterance) -> m.SpeakStarted:
    return m.SpeakStarted(m.Refs((utterance.upstream_id,)))


def ended(utterance) -> m.SpeakEnded:
    return m.SpeakEnded(m.Refs((utterance.upstream_id,)))


def appended(utterance) -> m.Appended:
    return m.Appended(m.Refs((utterance.upstream_id,)))


# --- progress


def test_sent_bytes_are_the_confirmed_ones_where_liveavatar_confirms(rig):
    utterance = rig.say("u", 2.4)
    assert rig.speech.confirmed_bytes(utterance) == 0
    rig.tell(appended(utterance))
    assert rig.speech.confirmed_bytes(utterance) == 0.4 * m.BYTE_RATE
    rig.tell(appended(utterance))
    assert rig.speech.confirmed_bytes(utterance) == 1.4 * m.BYTE_RATE


def test_sent_bytes_are_all_that_were_sent_where_liveavatar_never_confirms(rig):
    utterance = rig.say("u", 10)
    rig.tell(started(utterance))
    assert rig.speech.confirmed_bytes(utterance) == 2.4 * m.BYTE_RATE


def test_sent_bytes_of_a_cut_utterance_leave_out_what_was_dropped_here(rig):
    utterance = rig.say("u", 10)
    rig.tell(started(utterance))
    rig.interrupt()
    assert rig.speech.confirmed_bytes(utterance) == 2.4 * m.BYTE_RATE
    rig.cleared()
    assert rig.speech.confirmed_bytes(utterance) == 2.4 * m.BYTE_RATE


def test_played_grows_in_real_time_from_the_start_that_liveavatar_told(rig):
    utterance = rig.say("u", 2)
    rig.run(0.3)
    rig.tell(started(utterance))
    rig.run(0.5)
    assert utterance.position_s(rig.speech.clock, rig.now_s) == pytest.approx(0.5)


def test_a_completed_utterance_was_played_whole_and_counts(rig):
    utterance = rig.say("u", 1.2)
    rig.tell(started(utterance))
    rig.run(1.2)
    rig.tell(ended(utterance))
    assert rig.end_of("u").played_s == pytest.approx(1.2)
    assert rig.speech.totals.played_s == pytest.approx(1.2)
    assert rig.speech.totals.utterance_count == 1


# --- failures


def test_a_rejected_utterance_is_spoken_up_to_the_bad_chunk_and_then_ends_as_failed(rig):
    error = InvalidField("bad", field="chunk.audio")
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(0.6))
    rig.seal(utterance, error)
    rig.tell(started(utterance))
    rig.run(0.6)
    rig.tell(ended(utterance))
    end = rig.end_of("u")
    assert rig.sent(utterance.upstream_id) == rig.pcm(0.6)
    assert (end.outcome, end.error, end.played_s) == (Outcome.FAILED, error, pytest.approx(0.6))


def test_an_utterance_rejected_before_any_audio_fails_at_once(rig):
    error = InvalidField("bad", field="chunk.audio")
    rig.seal(rig.begin("u"), error)
    assert (rig.end_of("u").outcome, rig.end_of("u").error) == (Outcome.FAILED, error)


def test_an_utterance_that_liveavatar_never_reacts_to_ends_as_stalled(rig):
    rig.say("u", 1)
    rig.run(5.9)
    assert rig.story("u") == []
    rig.run(0.2)
    end = rig.end_of("u")
    assert (end.outcome, end.error.reason, end.played_s) == (Outcome.FAILED, "UPSTREAM_STALLED", 0.0)
    assert end.error.metadata == {"utterance_id": "u"}


def test_a_rejected_utterance_that_stalls_keeps_the_first_cause(rig):
    error = InvalidField("bad", field="chunk.audio")
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(1))
    rig.seal(utterance, error)
    rig.run(7)
    assert rig.end_of("u").error is error


def test_the_next_utterance_is_spoken_after_one_that_stalled(rig):
    rig.say("a", 1)
    second = rig.say("b", 0.4)
    rig.run(6.1)
    rig.tell(appended(second), started(second))
    rig.run(0.5)
    rig.tell(ended(second))
    assert rig.story("a") == ["failed"]
    assert rig.story("b") == ["started", "completed"]


def test_the_end_of_the_session_ends_every_utterance_with_why(rig):
    first = rig.say("a", 2)
    rig.say("b", 2)
    rig.begin("c")
    rig.tell(appended(first), started(first))
    rig.run(0.5)
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    assert rig.story("a") == ["started", "failed"]
    assert rig.story("b") == rig.story("c") == ["failed"]
    assert rig.end_of("a").played_s == pytest.approx(0.5)
    assert isinstance(rig.end_of("c").error, SessionEnded)


def test_the_end_of_the_session_tells_what_was_heard_where_liveavatar_never_tells_a_start(rig):
    utterance = rig.say("u", 2)
    rig.tell(appended(utterance))
    rig.run(0.7)
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    assert rig.story("u") == ["started", "failed"]
    assert rig.end_of("u").played_s == pytest.approx(0.5)


def test_an_open_utterance_that_liveavatar_never_takes_is_not_waited_for(rig):
    utterance = rig.begin("u")
    for _ in range(70):
        rig.receive(utterance, rig.pcm(0.1))
        rig.run(0.1)
    ended = rig.end_of("u")
    assert ended.outcome is Outcome.FAILED
    assert ended.error.reason == "UPSTREAM_STALLED"
