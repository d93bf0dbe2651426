"""Sender: packets in order, ends after them, and wakes in time."""

from dataclasses import replace

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.states import Outcome


def started(utterance) -> m.SpeakStarted:
    return m.SpeakStarted(m.Refs((utterance.upstream_id,)))


def ended(utterance) -> m.SpeakEnded:
    return m.SpeakEnded(m.Refs((utterance.upstream_id,)))


def test_a_burst_goes_up_as_400_ms_then_seconds_up_to_the_lead_and_the_rest_stays_here(rig):
    utterance = rig.say("u", 10)
    assert rig.packet_s() == [0.4, 1.0, 1.0]
    assert utterance.buffered == 7.6 * m.BYTE_RATE
    rig.run(0.5)
    assert rig.packet_s() == [0.4, 1.0, 1.0, 1.0]


def test_all_of_a_burst_goes_up_in_order_and_is_sealed_after_its_last_byte(rig):
    utterance = rig.begin("u")
    audio = b"".join(rig.pcm(1, fill=fill) for fill in range(1, 9))
    rig.receive(utterance, audio)
    rig.seal(utterance)
    for _ in range(9):
        rig.acknowledge()
        rig.run(1)
    assert rig.sent(utterance.upstream_id) == audio
    assert [one for one in rig.commands if not isinstance(one, m.Probe)][-1] == m.SpeakEnd(utterance.upstream_id)


def test_a_real_time_source_is_sent_without_any_other_input(rig):
    """The first chunk of an idle session must wake the driver."""
    utterance = rig.begin("u")
    for _ in range(60):
        rig.receive(utterance, rig.pcm(0.02))
        rig.run(0.02)
    assert rig.packet_s()[0] == pytest.approx(0.4)
    assert utterance.buffered < 0.3 * m.BYTE_RATE


def test_the_second_utterance_of_an_idle_session_is_sent_without_any_other_input(rig):
    first = rig.say("a", 0.4)
    rig.tell(started(first))
    rig.run(0.4)
    rig.tell(ended(first))
    rig.run(5)
    second = rig.begin("b")
    rig.receive(second, rig.pcm(0.4))
    assert rig.packet_s(second.upstream_id) == [0.4]


def test_an_utterance_begun_while_another_is_in_line_is_sent_when_its_turn_comes(rig):
    first = rig.begin("a")
    rig.receive(first, rig.pcm(0.5))
    second = rig.begin("b")
    rig.receive(second, rig.pcm(0.5))
    rig.run(1)
    assert rig.packet_s(second.upstream_id) == [], "the first one is still open"
    rig.seal(first)
    rig.run(1)
    assert rig.sent(second.upstream_id) == rig.pcm(0.5)


def test_the_next_utterance_is_sent_when_the_one_before_has_little_left_to_play(rig):
    rig.say("a", 1.4)
    second = rig.say("b", 1.0)
    assert rig.packet_s(second.upstream_id) == []
    rig.run(0.9)
    assert rig.packet_s(second.upstream_id) == []
    rig.run(0.2)
    assert rig.packet_s(second.upstream_id)[0] == pytest.approx(0.4)


def test_the_tail_is_flushed_when_the_source_pauses(rig):
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(0.1))
    rig.run(0.2)
    assert rig.packets == []
    rig.run(0.1)
    assert rig.packet_s() == [pytest.approx(0.1)]
    assert not rig.sealed(utterance.upstream_id), "a pause is no end"


def test_audio_that_comes_before_the_avatar_is_ready_waits_and_is_spoken_whole(make_rig):
    rig = make_rig().connect()
    utterance = rig.say("u", 0.5)
    rig.run(1)
    assert rig.commands == []
    rig.tell(m.StateUpdated("connected"))
    rig.run(1)
    assert rig.sent(utterance.upstream_id) == rig.pcm(0.5)


def test_what_a_resampler_holds_back_follows_before_the_end(rig):
    utterance = rig.say("u", 0.5, replace(rig.native, new_converter=lambda: rig.lagging(1_000)))
    rig.run(1)
    assert rig.sent(utterance.upstream_id) == rig.pcm(0.5)
    assert rig.sealed(utterance.upstream_id)


def test_a_word_shorter_than_what_a_resampler_holds_back_is_spoken(rig):
    """All its bytes were cut before the end was known, and the converter returned none."""
    utterance = rig.begin("u", replace(rig.native, new_converter=lambda: rig.lagging(4_000)))
    rig.receive(utterance, rig.pcm(0.03))
    rig.run(0.5)
    assert rig.packets == []
    rig.seal(utterance)
    assert rig.sent(utterance.upstream_id) == rig.pcm(0.03)
    assert rig.sealed(utterance.upstream_id)


def test_what_a_resampler_holds_back_of_a_paused_source_follows_when_it_is_sealed(rig):
    utterance = rig.begin("u", replace(rig.native, new_converter=lambda: rig.lagging(1_000)))
    rig.receive(utterance, rig.pcm(0.4))
    rig.run(2)
    rig.seal(utterance)
    assert rig.sent(utterance.upstream_id) == rig.pcm(0.4)
    assert [one for one in rig.commands if not isinstance(one, m.Probe)][-1] == m.SpeakEnd(utterance.upstream_id)


def test_an_utterance_without_audio_ends_as_soon_as_it_is_sealed_and_leaves_no_trace_upstream(rig):
    utterance = rig.begin("u")
    rig.seal(utterance)
    assert utterance.outcome is Outcome.COMPLETED
    assert rig.commands == []


def test_audio_that_amounts_to_no_sample_ends_without_a_trace(rig):
    """A resampler may round away a single sample of 48 kHz."""

    class Mute:
        def convert(self, chunks, *, last):
            return b""

    utterance = rig.begin("u", replace(rig.native, new_converter=Mute))
    rig.receive(utterance, bytes(2))
    rig.seal(utterance)
    assert utterance.outcome is Outcome.COMPLETED
    assert rig.commands == []


def test_an_utterance_without_audio_does_not_hold_up_the_next(rig):
    rig.seal(rig.begin("a"))
    second = rig.say("b", 0.4)
    assert rig.packet_s(second.upstream_id) == [0.4]


def test_playback_that_ran_dry_is_primed_again(rig):
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(0.4))
    rig.tell(started(utterance))
    rig.run(3)
    rig.receive(utterance, rig.pcm(0.2))
    assert rig.packet_s() == [0.4], "half a first packet would run dry at once"
    rig.receive(utterance, rig.pcm(0.2))
    assert rig.packet_s() == [0.4, 0.4]
    rig.run(0.1)
    assert utterance.position_s(rig.speech.clock, rig.now_s) == pytest.approx(0.5), "it goes on without a delay"
