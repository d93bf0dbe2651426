"""Speech on its way out: utterances in line, packets in order, credit, and waking up in time."""

from dataclasses import replace

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    CreditExceeded,
    InvalidField,
    SessionEnded,
    UpstreamStalled,
    UtteranceIdReused,
)
from liveavatar_gateway.core.states import EndReason, Outcome


def started(utterance) -> m.SpeakStarted:
    return m.SpeakStarted(m.Refs((utterance.upstream_id,)))


def ended(utterance) -> m.SpeakEnded:
    return m.SpeakEnded(m.Refs((utterance.upstream_id,)))


def appended(utterance) -> m.Appended:
    return m.Appended(m.Refs((utterance.upstream_id,)))


# --- packets


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
    rig.tell(m.Appended(m.Refs((utterance.upstream_id,))))
    rig.run(9)
    assert rig.sent(utterance.upstream_id) == audio
    assert rig.commands[-1] == m.SpeakEnd(utterance.upstream_id)


def test_a_real_time_source_is_sent_without_any_other_input(rig):
    """The first chunk of an idle session has to wake whoever sends."""
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
    """Its bytes were all taken before the end was known, and not one came out."""
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
    assert rig.commands[-1] == m.SpeakEnd(utterance.upstream_id)


def test_an_utterance_without_audio_ends_as_soon_as_it_is_sealed_and_leaves_no_trace_upstream(rig):
    utterance = rig.begin("u")
    rig.seal(utterance)
    assert utterance.outcome is Outcome.COMPLETED
    assert rig.commands == []


def test_audio_that_amounts_to_no_sample_ends_without_a_trace(rig):
    """A single sample of 48 kHz may be rounded away."""

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


# --- intake


def test_chunks_after_the_seal_are_dropped_and_counted(rig):
    utterance = rig.say("u", 0.4)
    rig.receive(utterance, rig.pcm(0.1))
    assert rig.speech.totals.dropped_bytes == 4_800
    assert rig.speech.totals.received_bytes == 19_200


def test_an_id_that_is_in_line_is_refused(rig):
    rig.begin("u")
    with pytest.raises(UtteranceIdReused):
        rig.begin("u")


def test_an_id_that_ended_is_refused(rig):
    rig.seal(rig.begin("u"))
    with pytest.raises(UtteranceIdReused):
        rig.begin("u")


def test_an_utterance_without_an_id_gets_one(rig):
    first, second = rig.begin(), rig.begin()
    assert first.id
    assert first.id != second.id


def test_more_utterances_than_may_be_in_line_are_refused_with_whose_limit_it_is(make_rig):
    rig = make_rig({"max_utterances": 2}).ready()
    rig.begin("a")
    rig.begin("b")
    with pytest.raises(CapacityExhausted) as refused:
        rig.begin("c")
    assert refused.value.metadata == {"limit": "2", "scope": "session"}
    assert refused.value.retry_after_s == 1.0


def test_only_so_many_ended_utterances_are_remembered(make_rig):
    rig = make_rig({"remembered_utterances": 2}).ready()
    for utterance_id in "abc":
        rig.seal(rig.begin(utterance_id))
    with pytest.raises(UtteranceIdReused):
        rig.begin("c")
    assert rig.begin("a").id == "a"


def test_sealing_an_ended_utterance_changes_nothing(rig):
    utterance = rig.begin("u")
    rig.seal(utterance)
    rig.seal(utterance, UpstreamStalled("late"))
    assert utterance.failure is None
    assert rig.story("u") == ["completed"]


# --- credit


def test_credit_is_what_may_wait_less_what_waits(make_rig):
    rig = make_rig({"max_buffered_s": 2.0}).connect()
    assert rig.speech.credit_bytes(rig.native) == 96_000
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(0.5))
    assert rig.speech.credit_bytes(rig.native) == 72_000
    rig.receive(utterance, rig.pcm(1.5))
    assert rig.speech.credit_bytes(rig.native) == 0


def test_credit_is_shared_by_all_utterances_of_a_session(make_rig):
    rig = make_rig({"max_buffered_s": 2.0}).connect()
    rig.say("a", 1.5)
    second = rig.begin("b")
    rig.receive(second, rig.pcm(0.5))
    with pytest.raises(CreditExceeded):
        rig.receive(second, rig.pcm(0.1))


def test_credit_is_whole_samples_of_the_callers_format(make_rig):
    rig = make_rig({"max_buffered_s": 1.00001}).connect()
    stereo = replace(rig.native, byte_rate=8 * 11_025, frame_bytes=8)
    assert rig.speech.credit_bytes(stereo) == 88_200


@pytest.mark.parametrize("byte_rate", [8_000, 11_025 * 2, 22_050 * 4, 44_100 * 2, 48_000 * 8])
def test_all_of_the_credit_can_be_used_in_any_format(make_rig, byte_rate):
    """Seconds are floats and bytes are not: rounding must not turn told credit into a refusal."""
    for others_bytes in range(2, 400, 6):
        rig = make_rig({"max_buffered_s": 1.0}).connect()
        intake = replace(rig.native, byte_rate=byte_rate, frame_bytes=2)
        rig.receive(rig.begin("a", intake), bytes(others_bytes))
        rig.seal(rig.speech.active[0])
        utterance = rig.begin("b", intake)
        rig.receive(utterance, bytes(64))
        rig.receive(utterance, bytes(rig.speech.credit_bytes(intake)))
        assert rig.speech.credit_bytes(intake) == 0


def test_credit_grows_as_audio_goes_up(rig):
    before = rig.speech.credit_bytes(rig.native)
    rig.say("u", 10)
    assert rig.speech.credit_bytes(rig.native) == before - rig.speech.active[0].buffered


def test_credit_that_an_interrupt_frees_can_be_used_at_once(make_rig):
    """It is told in the next ack, before LiveAvatar has answered the interrupt."""
    rig = make_rig({"max_buffered_s": 5.0}).ready()
    rig.say("a", 5)
    second = rig.begin("b")
    rig.interrupt("a")
    credit = rig.speech.credit_bytes(rig.native)
    assert credit == 5 * m.BYTE_RATE
    rig.receive(second, bytes(credit))


def test_credit_that_was_told_holds_when_audio_has_to_wait_again(make_rig):
    rig = make_rig({"max_buffered_s": 4.0}).ready()
    first = rig.say("a", 1.4)
    rig.tell(started(first))
    rig.run(1.0)
    second = rig.begin("b")
    rig.receive(second, rig.pcm(4.0))
    told = rig.speech.credit_bytes(rig.native)
    assert told > 0
    rig.interrupt("a")
    rig.cleared()
    assert rig.speech.credit_bytes(rig.native) >= told
    rig.receive(second, bytes(told))


# --- progress


def test_sent_bytes_are_the_confirmed_ones_where_liveavatar_confirms(rig):
    utterance = rig.say("u", 2.4)
    assert rig.speech.sent_bytes(utterance) == 0
    rig.tell(appended(utterance))
    assert rig.speech.sent_bytes(utterance) == 0.4 * m.BYTE_RATE
    rig.tell(appended(utterance))
    assert rig.speech.sent_bytes(utterance) == 1.4 * m.BYTE_RATE


def test_sent_bytes_are_all_that_were_sent_where_liveavatar_never_confirms(rig):
    utterance = rig.say("u", 10)
    rig.tell(started(utterance))
    assert rig.speech.sent_bytes(utterance) == 2.4 * m.BYTE_RATE


def test_sent_bytes_of_a_cut_utterance_leave_out_what_was_dropped_here(rig):
    utterance = rig.say("u", 10)
    rig.tell(started(utterance))
    rig.interrupt()
    assert rig.speech.sent_bytes(utterance) == 2.4 * m.BYTE_RATE
    rig.cleared()
    assert rig.speech.sent_bytes(utterance) == 2.4 * m.BYTE_RATE


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


# --- what goes wrong


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


# --- streams that come back


def test_an_utterance_is_found_again_as_long_as_it_lives(rig):
    utterance = rig.begin("u")
    assert rig.speech.take_up("u", rig.native) is utterance
    assert rig.speech.take_up("another", rig.native) is None


def test_an_utterance_that_has_ended_is_answered_with_its_end(rig):
    rig.say("u", 0)
    ended = rig.speech.take_up("u", rig.native)
    assert (ended.utterance_id, ended.outcome) == ("u", Outcome.COMPLETED)


def test_an_utterance_is_not_found_again_in_another_format(rig):
    rig.begin("u", replace(rig.native, format="ULAW 8000 Hz"))
    with pytest.raises(InvalidField) as refused:
        rig.speech.take_up("u", replace(rig.native, format="PCM 24000 Hz"))
    assert refused.value.field == "header.format"
    assert (refused.value.metadata["begun_format"], refused.value.metadata["format"]) == (
        "ULAW 8000 Hz",
        "PCM 24000 Hz",
    )
