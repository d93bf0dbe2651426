"""Pauses: the avatar falls silent, nothing is lost, and speech goes on from what was heard."""

import random
import struct

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import SessionEnded, UtteranceNotFound
from liveavatar_gateway.core.events import PoseChanged, SpeechContinued, SpeechPaused, UtteranceEnded
from liveavatar_gateway.core.outputs import ContinueAnswer, PauseAnswer
from liveavatar_gateway.core.states import ContinueCause, EndReason, Outcome, PauseState, Pose, TimeoutAction


def _speech(seconds: float, silences: tuple[tuple[float, float], ...] = ()) -> bytes:
    """Return noise with silences from a second to another."""
    source = random.Random(1)
    count = round(seconds * 24_000)
    samples = [source.randint(-8_000, 8_000) for _ in range(count)]
    for begin_s, end_s in silences:
        for index in range(round(begin_s * 24_000), round(end_s * 24_000)):
            samples[index] = 0
    return struct.pack(f"<{count}h", *samples)


def _say(rig, utterance_id: str, audio: bytes):
    utterance = rig.begin(utterance_id)
    rig.receive(utterance, audio)
    rig.seal(utterance)
    return utterance


def _start(rig, utterance) -> None:
    rig.acknowledge()
    rig.tell(m.SpeakStarted(m.Refs((utterance.upstream_id,))))


def _speaking(rig, audio: bytes, heard_s: float):
    """Return an utterance of which some seconds were heard."""
    utterance = _say(rig, "u1", audio)
    _start(rig, utterance)
    rig.run(heard_s)
    return utterance


def _play(rig, seconds: float) -> None:
    """Let time pass, with an ack for each packet."""
    for _ in range(round(seconds / 0.5)):
        rig.run(0.5)
        rig.acknowledge()


def _pause(rig, **options) -> PauseAnswer:
    call_id = rig.pause(**options)
    rig.cleared()
    answer = rig.pause_answer(call_id)
    assert isinstance(answer, PauseAnswer)
    return answer


def test_a_pause_silences_the_avatar_and_nothing_more_is_sent(rig):
    utterance = _speaking(rig, _speech(6.0), 1.0)
    call_id = rig.pause()
    assert isinstance(rig.commands[-1], m.Interrupt)
    assert rig.pause_answer(call_id) is None, "LiveAvatar has not answered yet"
    rig.cleared()
    assert rig.pause_answer(call_id) == PauseAnswer(call_id, "u1", pytest.approx(1.0), paused=True)
    assert rig.of(SpeechPaused) == [SpeechPaused("u1", pytest.approx(1.0))]
    count = len(rig.commands)
    rig.run(60.0)
    assert len(rig.commands) == count
    assert utterance.outcome is None
    assert rig.of(PoseChanged)[-1].pose is Pose.IDLE


def test_speech_continues_where_it_was_heard_without_a_silence(rig):
    audio = _speech(6.0)
    utterance = _speaking(rig, audio, 1.0)
    before = utterance.upstream_id
    _pause(rig)
    rig.run(2.0)
    call_id = rig.continue_speech()
    assert rig.pause_answer(call_id) == ContinueAnswer(
        call_id, "u1", pytest.approx(0.0, abs=1e-4), was_paused=True
    )
    assert utterance.upstream_id != before
    _start(rig, utterance)
    _play(rig, 10.0)
    rig.tell(m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    assert rig.sent(utterance.upstream_id) == audio[utterance.resumed_at :]
    assert utterance.resumed_at == pytest.approx(48_000, abs=4)
    assert rig.story("u1") == ["started", "completed"]
    assert rig.end_of("u1").played_s == pytest.approx(6.0)
    assert rig.end_of("u1").repeated_s == pytest.approx(0.0, abs=1e-4)


def test_speech_steps_back_to_the_last_silence_and_counts_what_is_repeated(rig):
    audio = _speech(6.0, ((1.3, 1.5),))
    utterance = _speaking(rig, audio, 2.0)
    assert _pause(rig).played_s == pytest.approx(2.0)
    rig.continue_speech()
    (continued,) = rig.of(SpeechContinued)
    assert continued == SpeechContinued("u1", pytest.approx(0.52, abs=0.03), ContinueCause.COMMAND)
    _start(rig, utterance)
    rig.run(0.2)
    assert utterance.position_s(rig.speech.clock, rig.now_s) == pytest.approx(2.0), "played decreased"
    assert rig.speech.clock.heard_s(rig.now_s) > 0
    _play(rig, 10.0)
    rig.tell(m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    ended = rig.end_of("u1")
    assert (ended.outcome, ended.played_s) == (Outcome.COMPLETED, pytest.approx(6.0))
    assert ended.repeated_s == pytest.approx(continued.repeated_s)
    assert rig.speech.totals.repeated_s == pytest.approx(continued.repeated_s)
    assert rig.speech.totals.played_s == pytest.approx(6.0)


def test_speech_steps_back_at_most_a_second(rig):
    utterance = _speaking(rig, _speech(6.0, ((0.2, 0.6),)), 2.0)
    _pause(rig)
    assert utterance.step_back_s == pytest.approx(0.0, abs=1e-4)


def test_a_pause_during_the_repeated_part_goes_back_from_there(rig):
    utterance = _speaking(rig, _speech(6.0, ((1.3, 1.5),)), 2.0)
    _pause(rig)
    rig.continue_speech()
    _start(rig, utterance)
    rig.run(0.1)
    assert _pause(rig).played_s == pytest.approx(2.0)
    rig.continue_speech()
    _start(rig, utterance)
    rig.run(1.0)
    rig.interrupt()
    rig.cleared()
    ended = rig.end_of("u1")
    assert ended.played_s == pytest.approx(2.4, abs=0.1)
    assert ended.repeated_s == pytest.approx(0.6, abs=0.1)


def test_an_utterance_without_a_sound_begins_anew(rig):
    utterance = _say(rig, "u1", _speech(2.0))
    answer = _pause(rig)
    assert (answer.utterance_id, answer.played_s) == ("u1", 0.0)
    rig.tell(m.SpeakStarted(m.Refs(("id-1",))))
    rig.continue_speech()
    assert _speech(2.0).startswith(rig.sent(utterance.upstream_id))
    _start(rig, utterance)
    assert rig.story("u1") == ["started"]


def test_utterances_behind_stay_whole(rig):
    first = _speaking(rig, _speech(2.0), 1.7)
    second = _say(rig, "u2", _speech(2.0))
    rig.run(0.1)
    rig.acknowledge()
    assert second.is_upstream
    _pause(rig)
    third = _say(rig, "u3", _speech(1.0))
    assert not any(one.is_upstream for one in (first, second))
    rig.run(5.0)
    rig.continue_speech()
    for utterance in (first, second, third):
        _start(rig, utterance)
        rig.run(3.0)
        rig.acknowledge()
        rig.tell(m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    assert [one.outcome for one in (first, second, third)] == [Outcome.COMPLETED] * 3
    assert rig.sent(second.upstream_id) == _speech(2.0)


def test_a_silent_session_is_paused_too_and_utterances_wait(rig):
    call_id = rig.pause()
    assert rig.pause_answer(call_id) == PauseAnswer(call_id, paused=True)
    _say(rig, "u1", _speech(1.0))
    rig.run(5.0)
    assert rig.commands == []
    call_id = rig.continue_speech()
    assert rig.pause_answer(call_id) == ContinueAnswer(call_id, was_paused=True)
    assert rig.packet_s() == [0.4, 0.6]


def test_a_pause_names_its_utterance_or_has_no_effect(rig):
    _speaking(rig, _speech(3.0), 1.0)
    _say(rig, "u2", _speech(1.0))
    call_id = rig.pause("u2")
    assert rig.pause_answer(call_id) == PauseAnswer(call_id)
    with pytest.raises(UtteranceNotFound):
        rig.pause("never")
    assert rig.speech.pauses.state is PauseState.RUNNING
    assert _pause(rig, utterance_id="u1").utterance_id == "u1"


def test_a_late_pause_of_an_ended_utterance_has_no_effect(rig):
    utterance = _speaking(rig, _speech(0.5), 0.6)
    rig.tell(m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    call_id = rig.pause("u1")
    assert rig.pause_answer(call_id) == PauseAnswer(call_id)
    assert not rig.speech.pauses.is_paused


def test_continuing_without_a_pause_has_no_effect(rig):
    call_id = rig.continue_speech()
    assert rig.pause_answer(call_id) == ContinueAnswer(call_id)
    assert rig.of(SpeechContinued) == []


def test_a_second_pause_replaces_the_timeout_alone(rig):
    _speaking(rig, _speech(3.0), 1.0)
    _pause(rig, timeout_s=5.0)
    again = rig.pause(timeout_s=60.0)
    assert rig.pause_answer(again) == PauseAnswer(again, "u1", pytest.approx(1.0), paused=True)
    rig.run(59.0)
    assert rig.of(SpeechContinued) == []
    rig.run(2.0)
    assert rig.of(SpeechContinued)[0].cause is ContinueCause.TIMEOUT
    assert len(rig.of(SpeechPaused)) == 1


def test_two_pauses_on_their_way_share_an_interrupt(rig):
    _speaking(rig, _speech(3.0), 1.0)
    calls = [rig.pause(), rig.pause()]
    rig.cleared()
    assert [rig.pause_answer(one).utterance_id for one in calls] == ["u1", "u1"]
    assert len(rig.cuts) == 1


def test_the_timeout_can_interrupt(rig):
    _speaking(rig, _speech(3.0), 1.0)
    _say(rig, "u2", _speech(1.0))
    _pause(rig, timeout_s=5.0, action=TimeoutAction.INTERRUPT)
    rig.run(6.0)
    assert (rig.story("u1"), rig.story("u2")) == (["started", "interrupted"], ["interrupted"])
    assert rig.end_of("u1").played_s == pytest.approx(1.0)
    assert not rig.speech.pauses.is_paused


def test_continuing_before_the_avatar_is_silent_waits_for_the_interrupt(rig):
    utterance = _speaking(rig, _speech(3.0), 1.0)
    pause, call_id = rig.pause(), rig.continue_speech()
    assert rig.pause_answer(call_id) is None
    assert rig.speech.pauses.state is PauseState.CONTINUING
    again = rig.continue_speech()
    rig.cleared()
    assert isinstance(rig.pause_answer(pause), PauseAnswer)
    assert rig.pause_answer(call_id).was_paused
    assert rig.pause_answer(again).was_paused
    assert rig.packets[-1].event_id == utterance.upstream_id
    assert [type(one) for one in rig.of((SpeechPaused, SpeechContinued))] == [SpeechPaused, SpeechContinued]


def test_a_pause_overtakes_a_continuation_that_waits(rig):
    _speaking(rig, _speech(3.0), 1.0)
    rig.pause()
    continued, paused = rig.continue_speech(), rig.pause()
    rig.cleared()
    assert rig.pause_answer(paused).paused
    assert rig.speech.pauses.state is PauseState.PAUSED
    assert rig.pause_answer(continued).was_paused


def test_an_interrupt_ends_the_pause_and_all_speech(rig):
    _speaking(rig, _speech(3.0), 1.0)
    _say(rig, "u2", _speech(1.0))
    _pause(rig)
    interrupt_id = rig.interrupt()
    assert [ended.utterance_id for ended in rig.answer(interrupt_id)] == ["u1", "u2"]
    assert rig.end_of("u1").played_s == pytest.approx(1.0)
    assert rig.of(SpeechContinued)[0].cause is ContinueCause.INTERRUPT
    _say(rig, "u3", _speech(1.0))
    assert rig.packet_s()[-2:] == [0.4, 0.6]


def test_an_interrupt_of_the_paused_utterance_speaks_the_next(rig):
    _speaking(rig, _speech(3.0), 1.0)
    second = _say(rig, "u2", _speech(1.0))
    _pause(rig)
    rig.interrupt("u1")
    assert rig.packets[-1].event_id == second.upstream_id


def test_an_interrupt_of_another_utterance_leaves_the_pause(rig):
    _speaking(rig, _speech(3.0), 1.0)
    _say(rig, "u2", _speech(1.0))
    _pause(rig)
    rig.interrupt("u2")
    assert rig.story("u2") == ["interrupted"]
    assert rig.speech.pauses.state is PauseState.PAUSED


def test_an_interrupt_overtakes_a_pause_that_is_on_its_way(rig):
    _speaking(rig, _speech(3.0), 1.0)
    pause = rig.pause()
    interrupt_id = rig.interrupt()
    assert rig.pause_answer(pause) == PauseAnswer(pause)
    rig.cleared()
    assert [ended.utterance_id for ended in rig.answer(interrupt_id)] == ["u1"]
    assert rig.end_of("u1").played_s == pytest.approx(1.0)
    assert rig.of(SpeechPaused) == []
    assert len(rig.cuts) == 1


def test_a_pause_shares_the_interrupt_of_a_caller(rig):
    _speaking(rig, _speech(3.0), 1.0)
    second = _say(rig, "u2", _speech(1.0))
    rig.interrupt("u1")
    call_id = rig.pause()
    rig.cleared()
    assert rig.pause_answer(call_id).paused
    assert rig.story("u1") == ["started", "interrupted"]
    assert second.outcome is None
    assert len(rig.cuts) == 1


def test_an_utterance_that_ends_before_the_silence_is_not_paused(rig):
    utterance = _speaking(rig, _speech(1.0), 0.9)
    rig.acknowledge()
    call_id = rig.pause()
    rig.tell(m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    rig.cleared()
    assert rig.story("u1") == ["started", "completed"]
    assert rig.pause_answer(call_id) == PauseAnswer(call_id, paused=True)


def test_an_utterance_that_was_heard_to_its_end_is_completed(rig):
    _speaking(rig, _speech(1.0), 0.98)
    rig.pause()
    rig.run(0.5)
    rig.cleared()
    assert rig.story("u1") == ["started", "completed"]
    assert rig.speech.pauses.utterance is None


def test_an_end_that_names_the_paused_utterance_interrupted_is_the_answer(rig):
    utterance = _speaking(rig, _speech(3.0), 1.0)
    call_id = rig.pause()
    rig.tell(m.SpeakInterrupted(m.Refs((utterance.upstream_id,))))
    assert rig.pause_answer(call_id).utterance_id == "u1"


def test_a_start_that_liveavatar_never_reports_is_inferred(make_rig):
    rig = make_rig().ready()
    _say(rig, "u1", _speech(3.0))
    rig.acknowledge()
    rig.run(0.9)
    answer = _pause(rig)
    assert answer.played_s == pytest.approx(0.7)
    assert rig.story("u1") == ["started"]


def test_a_pause_survives_a_lost_socket_and_nothing_is_sent_before_the_continuation(rig):
    audio = _speech(6.0)
    utterance = _speaking(rig, audio, 1.0)
    _pause(rig)
    rig.lose()
    rig.run(1.0)
    count = len(rig.packets)
    rig.reopen()
    rig.run(5.0)
    assert len(rig.packets) == count
    rig.continue_speech()
    _play(rig, 1.0)
    _start(rig, utterance)
    _play(rig, 5.0)
    assert rig.sent(utterance.upstream_id) == audio[utterance.resumed_at :]


def test_a_pause_on_a_lost_socket_is_carried_out_on_the_next(rig):
    _speaking(rig, _speech(6.0), 1.0)
    rig.lose()
    call_id = rig.pause()
    rig.run(0.5)
    assert rig.pause_answer(call_id) is None
    rig.reopen()
    assert isinstance(rig.commands[-1], m.Interrupt)
    rig.cleared()
    assert rig.pause_answer(call_id).utterance_id == "u1"


def test_the_end_of_the_session_answers_a_pause(rig):
    _speaking(rig, _speech(3.0), 1.0)
    call_id = rig.pause()
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    rig.wake()
    assert rig.pause_answer(call_id).utterance_id == "u1"
    assert [one.outcome for one in rig.of(UtteranceEnded)] == [Outcome.FAILED]
    with pytest.raises(SessionEnded):
        rig.pause()
    with pytest.raises(SessionEnded):
        rig.continue_speech()


def test_what_a_pause_may_need_again_is_not_discarded(rig):
    utterance = _speaking(rig, _speech(8.0), 2.5)
    rig.acknowledge()
    rig.tell(m.PongReceived(rig.speech.sent_count))
    utterance.position_s(rig.speech.clock, rig.now_s)
    discardable = rig.speech.discardable_bytes(utterance)
    assert discardable == pytest.approx(1.5 * m.BYTE_RATE, abs=4)
    assert discardable < rig.speech.confirmed_bytes(utterance)
    _pause(rig)
    assert utterance.resumed_at >= discardable


def test_no_step_back_goes_beyond_what_the_caller_may_have_discarded(rig):
    """Between two pauses at the same position, the caller may discard up to a second before it."""
    utterance = _speaking(rig, _speech(8.0, ((1.6, 1.9),)), 2.5)
    _pause(rig)
    rig.continue_speech()
    _start(rig, utterance)
    rig.run(0.1)
    discardable = rig.speech.discardable_bytes(utterance)
    _pause(rig)
    assert utterance.resumed_at >= discardable


def test_the_end_of_an_utterance_makes_all_of_it_discardable(rig):
    utterance = _speaking(rig, _speech(1.0), 1.2)
    rig.acknowledge()
    rig.tell(m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    assert rig.speech.discardable_bytes(utterance) == 48_000


def test_a_paused_session_is_pending_no_more(rig):
    """A pause must not keep a session that nobody uses."""
    _speaking(rig, _speech(3.0), 1.0)
    assert rig.speech.is_pending
    _pause(rig)
    assert not rig.speech.is_pending
