"""Queue of utterances: input, refusals, credit, and utterances that are resumed."""

from dataclasses import replace

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    CreditExceeded,
    InvalidField,
    UpstreamStalled,
    UtteranceIdReused,
)
from liveavatar_gateway.core.states import Outcome


def started(utterance) -> m.SpeakStarted:
    return m.SpeakStarted(m.Refs((utterance.upstream_id,)))


# --- input


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
    """Seconds are floats and bytes are not: rounding must not lead to a refusal of granted credit."""
    for others_bytes in range(2, 400, 6):
        rig = make_rig({"max_buffered_s": 1.0}).connect()
        audio_input = replace(rig.native, byte_rate=byte_rate, frame_bytes=2)
        rig.receive(rig.begin("a", audio_input), bytes(others_bytes))
        rig.seal(rig.speech.active[0])
        utterance = rig.begin("b", audio_input)
        rig.receive(utterance, bytes(64))
        rig.receive(utterance, bytes(rig.speech.credit_bytes(audio_input)))
        assert rig.speech.credit_bytes(audio_input) == 0


def test_credit_grows_as_audio_goes_up(rig):
    before = rig.speech.credit_bytes(rig.native)
    rig.say("u", 10)
    assert rig.speech.credit_bytes(rig.native) == before - rig.speech.active[0].buffered


def test_credit_that_an_interrupt_frees_can_be_used_at_once(make_rig):
    """The next ack reports the credit, before LiveAvatar has answered the interrupt."""
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


# --- resumed utterances


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


def test_an_utterance_is_found_by_its_upstream_id_while_it_lives(rig):
    utterance = rig.say("u1", 0.4)
    assert rig.speech.find(utterance.upstream_id) is utterance
    rig.tell(m.SpeakStarted(m.Refs()), m.SpeakEnded(m.Refs()))
    assert rig.speech.find(utterance.upstream_id) is None
