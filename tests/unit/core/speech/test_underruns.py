"""Underruns: an event when the avatar runs dry, and the idle limit of utterances."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import UtteranceIdle
from liveavatar_gateway.core.events import UtteranceUnderrun
from liveavatar_gateway.core.states import Outcome


def _started(rig, seconds=1.0):
    """Open utterance that is playing."""
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(seconds))
    rig.acknowledge()
    rig.tell(m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    return utterance


def test_an_open_utterance_that_runs_dry_says_so_once(rig):
    utterance = _started(rig, 1.0)
    rig.run(0.9)
    assert rig.of(UtteranceUnderrun) == []
    rig.run(5.0)
    (underrun,) = rig.of(UtteranceUnderrun)
    assert underrun.utterance_id == "u"
    assert underrun.played_s == pytest.approx(1.0, abs=0.01)
    assert utterance.underrun_count == 1
    assert utterance.outcome is None


def test_each_dry_spell_is_told(rig):
    utterance = _started(rig, 1.0)
    for count in (1, 2, 3):
        rig.run(3.0)
        assert utterance.underrun_count == count
        rig.receive(utterance, rig.pcm(1.0))
    rig.seal(utterance)
    rig.run(3.0)
    assert utterance.underrun_count == 3
    assert [one.utterance_id for one in rig.of(UtteranceUnderrun)] == ["u"] * 3


def test_a_source_in_real_time_never_runs_dry(rig):
    utterance = _started(rig, 0.5)
    for _ in range(100):
        rig.run(0.02)
        rig.receive(utterance, rig.pcm(0.02))
    assert utterance.underrun_count == 0


def test_an_utterance_that_is_whole_does_not_run_dry(rig):
    utterance = _started(rig, 1.0)
    rig.seal(utterance)
    rig.run(1.5)
    assert rig.of(UtteranceUnderrun) == []


def test_an_utterance_that_was_not_heard_yet_does_not_run_dry(rig):
    utterance = rig.begin("u")
    rig.run(10.0)
    assert utterance.underrun_count == 0


def test_silence_for_want_of_a_socket_is_not_the_sources(rig):
    utterance = _started(rig, 1.0)
    rig.run(0.1)
    rig.lose()
    rig.run(3.0)
    assert utterance.underrun_count == 0
    rig.reopen()
    rig.run(0.1)
    assert utterance.underrun_count == 1, "from here on it is"


def test_an_utterance_behind_one_that_is_heard_does_not_run_dry(rig):
    rig.say("first", 1.0)
    rig.acknowledge()
    utterance = rig.begin("second")
    rig.tell(m.SpeakStarted(m.Refs((rig.packets[0].event_id,))))
    rig.run(1.5)
    assert utterance.underrun_count == 0


def _with_idle_limit(rig, idle_s=0.5):
    utterance = rig.begin("u")
    utterance.start_idle_limit(idle_s, rig.now_s)
    rig.wake()
    return utterance


def test_an_utterance_without_audio_for_its_idle_limit_is_spoken_as_far_as_it_came_and_fails(rig):
    utterance = _with_idle_limit(rig)
    rig.receive(utterance, rig.pcm(0.5) + b"a")
    rig.run(0.45)
    assert not utterance.sealed
    rig.run(0.1)
    assert utterance.sealed
    rig.acknowledge()
    rig.tell(m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.run(1.0)
    rig.tell(m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    ended = rig.end_of("u")
    assert ended.outcome is Outcome.FAILED
    assert isinstance(ended.error, UtteranceIdle)
    assert ended.error.metadata == {"utterance_id": "u", "idle_timeout_s": "0.5"}
    assert rig.sent(utterance.upstream_id) == rig.pcm(0.5)
    assert utterance.dropped_tail_bytes == 1


def test_an_utterance_that_never_got_any_audio_ends_by_its_idle_limit(rig):
    _with_idle_limit(rig)
    rig.run(0.6)
    assert isinstance(rig.end_of("u").error, UtteranceIdle)


def test_a_stream_that_resumes_without_a_limit_keeps_that_of_the_utterance(rig):
    utterance = _with_idle_limit(rig)
    utterance.stop_idle_limit()
    rig.run(2.0)
    assert not utterance.sealed
    utterance.start_idle_limit(None, rig.now_s)
    rig.wake()
    rig.run(0.6)
    assert isinstance(rig.end_of("u").error, UtteranceIdle)


def test_audio_starts_the_idle_limit_anew(rig):
    utterance = _with_idle_limit(rig)
    for _ in range(10):
        rig.run(0.4)
        rig.receive(utterance, rig.pcm(0.02))
    assert not utterance.sealed
    rig.run(0.6)
    assert utterance.sealed


def test_the_idle_limit_ends_with_the_utterances_end(rig):
    utterance = _with_idle_limit(rig)
    rig.receive(utterance, rig.pcm(0.2))
    rig.seal(utterance)
    rig.run(2.0)
    assert utterance.failure is None


def test_a_caller_that_waits_for_credit_is_not_idle(make_rig):
    rig = make_rig({"max_buffered_s": 5.0}).ready()
    utterance = _with_idle_limit(rig, 0.2)
    rig.receive(utterance, rig.pcm(5.0))
    assert utterance.room_s < 5.0
    rig.receive(utterance, rig.pcm(utterance.room_s))
    for _ in range(10):
        rig.run(0.05)
        assert not utterance.sealed
        rig.receive(utterance, rig.pcm(max(0.0, utterance.room_s)))
    rig.run(20.0)
    assert utterance.sealed


def test_an_utterance_that_no_stream_brings_audio_for_is_not_idle(rig):
    utterance = _with_idle_limit(rig)
    utterance.stop_idle_limit()
    rig.run(5.0)
    assert not utterance.sealed
