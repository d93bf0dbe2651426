"""Takeover of a session from another process: events and speech continue, and nothing is spoken twice."""

from datetime import timedelta

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import AudioContainerDetected, EventsCompacted, UtteranceIdReused
from liveavatar_gateway.core.events import Adopted, Reconnected, SpeechContinued, SpeechPaused, UtteranceEnded
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.snapshot import PauseSnapshot, SessionSnapshot, UtteranceSnapshot
from liveavatar_gateway.core.states import (
    ContinueCause,
    EndReason,
    Outcome,
    PauseState,
    SessionState,
    TimeoutAction,
)


@pytest.fixture
def restore(make_rig):
    """Factory of rigs of a session that another process drove until 4 s ago."""

    def build(*utterances, **past):
        rig = make_rig()
        epoch = rig.session.created_at
        known = {
            "id": "session-1",
            "created_at": epoch - timedelta(hours=1),
            "ready_at": epoch,
            "last_sequence": 41,
            "utterances": utterances,
            **past,
        }
        rig.session = Session.restored(
            SessionSnapshot(**known),
            SessionConfig(),
            new_id=rig.session._new_id,
            utc_now=rig.session._utc_now,
            now_s=rig.now_s,
            gap_s=4.0,
        )
        rig.speech = rig.session.speech
        return rig

    return build


def past_utterance(rig_native, **changes):
    return UtteranceSnapshot(
        **{
            "id": "u1",
            "upstream_id": "up-1",
            "audio_input": rig_native,
            "taken_bytes": 48_000,
            "sent_s": 1.0,
            **changes,
        }
    )


def test_it_reconnects_and_numbers_its_events_on(restore):
    rig = restore()
    assert rig.session.state is SessionState.RECONNECTING
    (entry,) = rig.session.log.after(41)
    assert (entry.sequence, entry.event) == (42, Adopted(4.0))
    rig.run(1)
    rig.reopen()
    (told,) = [entry.event for entry in rig.session.log.after(42) if isinstance(entry.event, Reconnected)]
    assert told.gap_s == pytest.approx(5.0)
    with pytest.raises(EventsCompacted, match="oldest is 42"):
        rig.session.log.after(40)


def test_it_keeps_its_past(restore):
    rig = restore(
        received_bytes=1,
        dropped_bytes=2,
        upstream_bytes=3,
        played_s=4.0,
        utterance_count=5,
        interruption_count=6,
        reconnect_count=7,
        expires_in_s=60.0,
        ended_utterances=[UtteranceEnded("old", Outcome.INTERRUPTED, 0.5)],
    )
    speech = rig.speech
    totals = speech.totals
    assert (totals.received_bytes, totals.dropped_bytes, totals.upstream_bytes, totals.played_s) == (1, 2, 3, 4.0)
    assert (totals.utterance_count, totals.interruption_count, rig.session.reconnect_count) == (5, 6, 7)
    with pytest.raises(UtteranceIdReused):
        rig.begin("old")
    assert speech.take_up("old", rig.native).played_s == 0.5
    rig.reopen()
    rig.run(70)
    assert rig.session.end_reason is EndReason.MAX_DURATION


def test_an_utterance_goes_on_exactly_behind_what_liveavatar_has(restore, rig):
    again = restore(past_utterance(rig.native))
    (utterance,) = again.speech.active
    assert utterance.received == again.speech.confirmed_bytes(utterance) == 48_000
    again.reopen()
    again.receive(utterance, again.pcm(0.5, fill=7), offset=47_000)
    again.seal(utterance)
    assert again.sent("up-1") == again.pcm(0.5, fill=7)[1_000:]
    assert again.sealed("up-1")


def test_an_utterance_of_which_all_was_sent_is_concluded(restore, rig):
    again = restore(past_utterance(rig.native, end_sent=True, started=True))
    again.reopen()
    assert again.commands == []
    again.run(6)
    (ended,) = [
        entry.event for entry in again.session.log.after(41) if getattr(entry.event, "utterance_id", "") == "u1"
    ]
    assert (ended.outcome, ended.inferred, ended.played_s) == (Outcome.COMPLETED, True, 1.0)


def test_an_interrupt_cuts_what_cannot_be_spoken_again(restore, rig):
    """LiveAvatar drops it together with the interrupted utterance, and no process has its audio."""
    again = restore(
        past_utterance(rig.native, started=True), past_utterance(rig.native, id="u2", upstream_id="up-2")
    )
    again.reopen()
    again.tell(m.SpeakStarted(m.Refs(("up-1",))))
    interrupt_id = again.interrupt("u1")
    again.cleared()
    assert [(ended.utterance_id, ended.outcome) for ended in again.answer(interrupt_id)] == [
        ("u1", Outcome.INTERRUPTED),
        ("u2", Outcome.INTERRUPTED),
    ]
    again.run(30)
    assert again.packets == []


def test_an_interrupt_that_a_dead_process_may_not_have_sent_goes_out_first(restore, rig):
    rig = restore(past_utterance(rig.native, interrupted=True))
    (utterance,) = rig.speech.active
    rig.receive(utterance, rig.pcm(1.0))
    again = rig.interrupt("u1")
    rig.say("u2", 0.4)
    rig.reopen()
    assert rig.commands == rig.cuts, "new speech waits for the answer"
    rig.cleared()
    assert [ended.utterance_id for ended in rig.answer(again)] == ["u1"]
    assert rig.answer(again)[0].outcome is Outcome.INTERRUPTED
    assert rig.packet_s() == [0.4]
    assert rig.speech.totals.dropped_bytes == len(rig.pcm(1.0))


def test_what_was_upstream_behind_an_interrupt_is_cut_with_it(restore, rig):
    """LiveAvatar drops its audio, which was lost with the former process."""
    again = restore(
        past_utterance(rig.native, interrupted=True),
        past_utterance(rig.native, id="u2", upstream_id="up-2", end_sent=True),
    )
    again.reopen()
    again.cleared()
    ended = [entry.event for entry in again.session.log.after(41) if isinstance(entry.event, UtteranceEnded)]
    assert [(one.utterance_id, one.outcome) for one in ended] == [
        ("u1", Outcome.INTERRUPTED),
        ("u2", Outcome.INTERRUPTED),
    ]


@pytest.mark.parametrize(("taken_bytes", "is_refused"), [(0, True), (2, False)])
def test_the_first_bytes_are_checked_for_a_file_where_liveavatar_has_none(restore, rig, taken_bytes, is_refused):
    again = restore(past_utterance(rig.native, taken_bytes=taken_bytes, sent_s=0.0))
    again.reopen()
    utterance = again.speech.active[0]
    if is_refused:
        with pytest.raises(AudioContainerDetected):
            again.receive(utterance, b"RIFF....")
    else:
        again.receive(utterance, b"RIFF....")
        assert utterance.received == 10


def paused_utterance(native):
    """Return an utterance that was paused after 1.5 s and goes on from 1.2 s."""
    return past_utterance(
        native, taken_bytes=57_600, sent_s=1.2, started=True, waits=True, played_s=1.5, repeated_s=0.1
    )


def test_a_pause_outlives_its_process(restore, rig):
    pause = PauseSnapshot(state=PauseState.PAUSED, utterance_id="u1", repeated_s=0.3)
    again = restore(paused_utterance(rig.native), pause=pause)
    (utterance,) = again.speech.active
    assert (utterance.received, utterance.played_s) == (57_600, 1.5)
    again.reopen()
    again.receive(utterance, again.pcm(1.0))
    again.seal(utterance)
    again.run(20)
    assert again.commands == []
    call_id = again.continue_speech()
    assert again.pause_answer(call_id).utterance_id == "u1"
    (continued,) = [one.event for one in again.session.log.after(41) if isinstance(one.event, SpeechContinued)]
    assert continued.repeated_s == 0.3
    assert again.sent(utterance.upstream_id) == again.pcm(1.0)
    refs = m.Refs((utterance.upstream_id,))
    again.tell(m.SpeakStarted(refs))
    again.run(1.1)
    again.tell(m.SpeakEnded(refs))
    (ended,) = [one.event for one in again.session.log.after(41) if isinstance(one.event, UtteranceEnded)]
    assert (ended.outcome, ended.played_s) == (Outcome.COMPLETED, pytest.approx(2.2))
    assert ended.repeated_s == pytest.approx(0.4)


def test_a_pause_that_was_on_its_way_is_carried_out(restore, rig):
    pause = PauseSnapshot(state=PauseState.PAUSING, utterance_id="u1")
    again = restore(paused_utterance(rig.native), pause=pause)
    again.reopen()
    assert again.commands == again.cuts
    again.cleared()
    (paused,) = [one.event for one in again.session.log.after(41) if isinstance(one.event, SpeechPaused)]
    assert (paused.utterance_id, paused.played_s) == ("u1", 1.5)
    assert again.speech.pauses.snapshot(again.now_s).state is PauseState.PAUSED


def test_the_timeout_of_a_pause_runs_on_in_the_next_process(restore, rig):
    pause = PauseSnapshot(
        state=PauseState.PAUSED, utterance_id="u1", left_s=3.0, at_timeout=TimeoutAction.INTERRUPT
    )
    again = restore(paused_utterance(rig.native), pause=pause)
    again.reopen()
    kept = again.speech.pauses.snapshot(again.now_s + 1.0)
    assert (kept.left_s, kept.at_timeout, kept.utterance_id) == (2.0, TimeoutAction.INTERRUPT, "u1")
    again.run(4.0)
    (continued,) = [one.event for one in again.session.log.after(41) if isinstance(one.event, SpeechContinued)]
    assert continued.cause is ContinueCause.INTERRUPT
    assert again.speech.pauses.snapshot(again.now_s) is None


def test_an_adopted_utterance_is_paused_where_the_present_process_has_its_audio(restore, rig):
    again = restore(past_utterance(rig.native, started=True))
    again.reopen()
    utterance = again.speech.active[0]
    begin = utterance.received
    again.receive(utterance, again.pcm(1.0))
    again.pause()
    again.cleared()
    assert utterance.resumed_at >= begin


def test_an_adopted_utterance_without_a_sound_is_paused_where_its_audio_begins(restore, rig):
    again = restore(past_utterance(rig.native, started=False))
    again.reopen()
    utterance = again.speech.active[0]
    again.session.speech._queue.reports_starts = True
    again.pause()
    again.cleared()
    assert utterance.resumed_at == utterance.received
