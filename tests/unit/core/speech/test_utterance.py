"""Utterance: bytes in by offset, packets out, and the progress of each byte."""

from dataclasses import replace

import pytest

from liveavatar_gateway.core.errors import (
    AudioContainerDetected,
    AudioGap,
    ChunkTooLarge,
    CreditExceeded,
    InvalidField,
    UpstreamStalled,
)
from liveavatar_gateway.core.speech.delivery import Sending
from liveavatar_gateway.core.speech.playout import PlayoutClock
from liveavatar_gateway.core.speech.scheduler import PacketScheduler, SchedulerConfig
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import IllegalTransition, InputState, Outcome, PlaybackState, SendState

NOW = Sending(0.0)


@pytest.fixture
def audio_input(rig):
    return replace(rig.native, max_chunk_bytes=1_000)


@pytest.fixture
def new(audio_input):
    """Factory of utterances with 2000 bytes of credit."""

    def make(**changes) -> Utterance:
        changed = replace(audio_input, **changes)
        scheduler = PacketScheduler(
            SchedulerConfig(), byte_rate=changed.byte_rate, frame_bytes=changed.frame_bytes
        )
        utterance = Utterance("u", "up-1", changed, scheduler)
        utterance.window = 2_000
        return utterance

    return make


@pytest.fixture
def utterance(new):
    return new()


def test_audio_without_offsets_is_taken_as_it_comes(utterance):
    assert utterance.receive(None, b"aabb", 1.0) == 4
    assert utterance.receive(None, b"cc", 2.0) == 2
    assert (utterance.received, utterance.last_chunk_at_s) == (6, 2.0)
    assert utterance.take_packet(6, NOW) == b"aabbcc"


def test_a_repeated_chunk_is_dropped(utterance):
    utterance.receive(0, b"aabb", 1.0)
    assert utterance.receive(0, b"aabb", 2.0) == 0
    assert utterance.received == 4
    assert utterance.last_chunk_at_s == 1.0, "repeated bytes are no sign of a source that continues"


def test_a_chunk_that_ends_before_what_was_received_is_dropped(utterance):
    utterance.receive(0, b"aabbcc", 1.0)
    assert utterance.receive(0, b"aa", 2.0) == 0


def test_an_overlap_is_trimmed(utterance):
    utterance.receive(0, b"aabb", 1.0)
    assert utterance.receive(2, b"bbcc", 2.0) == 2
    assert utterance.take_packet(6, NOW) == b"aabbcc"


def test_a_hole_is_refused_with_the_offset_to_go_on_at(utterance):
    utterance.receive(0, b"aabb", 1.0)
    with pytest.raises(AudioGap) as refused:
        utterance.receive(6, b"dd", 2.0)
    assert refused.value.metadata == {"utterance_id": "u", "expected": "4", "got": "6"}
    assert utterance.receive(4, b"cc", 3.0) == 2


def test_an_offset_before_the_utterance_is_refused(utterance):
    with pytest.raises(InvalidField) as refused:
        utterance.receive(-4, b"aabbccdd", 1.0)
    assert refused.value.field == "chunk.offset_bytes"
    assert refused.value.metadata == {"offset_bytes": "-4"}
    assert utterance.received == 0


def test_a_sample_that_a_chunk_ends_inside_of_waits_for_its_rest(utterance):
    assert utterance.receive(None, b"aab", 1.0) == 3
    assert (utterance.received, utterance.buffered) == (3, 2)
    assert utterance.take_packet(2, NOW) == b"aa"
    assert utterance.receive(None, b"bcc", 2.0) == 3
    assert (utterance.received, utterance.buffered) == (6, 4)
    assert utterance.take_packet(4, NOW) == b"bbcc"


def test_a_sample_may_come_in_as_many_pieces_as_it_has_bytes(new):
    utterance = new(byte_rate=192_000, frame_bytes=4)
    for number, byte in enumerate(b"abcdefg", start=1):
        utterance.receive(None, bytes((byte,)), 1.0)
        assert utterance.buffered == number // 4 * 4
    assert utterance.take_packet(4, NOW) == b"abcd"


def test_a_caller_may_go_on_at_any_byte(utterance):
    utterance.receive(0, b"aab", 1.0)
    assert utterance.receive(1, b"abbc", 2.0) == 2
    assert (utterance.received, utterance.buffered) == (5, 4)
    assert utterance.receive(5, b"c", 3.0) == 1
    assert utterance.take_packet(6, NOW) == b"aabbcc"


def test_a_sample_that_never_comes_whole_is_dropped_at_the_end_and_counted(utterance):
    utterance.receive(None, b"aab", 1.0)
    assert utterance.dropped_tail_bytes == 0, "the rest of the sample may still come"
    utterance.seal()
    assert utterance.dropped_tail_bytes == 1
    assert utterance.take_packet(2, NOW) == b"aa"
    assert not utterance.has_tail, "no audio is left to speak"
    assert utterance.charged_s == 0, "its caller gets the whole credit back"
    assert utterance.finish(Outcome.COMPLETED, 0.0) == 1
    assert (utterance.outcome, utterance.failure, utterance.received) == (Outcome.COMPLETED, None, 3)


def test_an_utterance_that_is_cut_says_too_what_never_came_whole(utterance):
    utterance.receive(None, b"aab", 1.0)
    assert utterance.finish(Outcome.INTERRUPTED, 0.0) == 3
    assert utterance.dropped_tail_bytes == 1


def test_a_converters_tail_comes_out_behind_a_sample_that_never_came_whole(rig, new):
    utterance = new(new_converter=lambda: rig.lagging(4))
    utterance.receive(None, b"aabbccd", 1.0)
    spoken = utterance.take_packet(6, NOW)
    utterance.seal()
    assert utterance.has_tail
    assert spoken + utterance.take_packet(0, NOW) == b"aabbcc"


def test_a_chunk_above_the_limit_is_refused(utterance):
    with pytest.raises(ChunkTooLarge) as refused:
        utterance.receive(None, bytes(1_002), 1.0)
    assert refused.value.metadata == {"size_bytes": "1002", "max_chunk_bytes": "1000"}
    assert utterance.receive(None, bytes(1_000), 1.0) == 1_000


def test_a_file_is_refused_by_its_name(utterance):
    with pytest.raises(AudioContainerDetected) as refused:
        utterance.receive(None, b"RIFF....", 1.0)
    assert refused.value.metadata == {"container": "WAV"}


@pytest.mark.parametrize("cuts", [[1], [2], [3], [1, 2], [1, 2, 3]])
def test_a_file_is_refused_however_its_first_bytes_are_cut(utterance, cuts):
    header = b"RIFF...."
    pieces = [header[start:end] for start, end in zip([0, *cuts], [*cuts, len(header)], strict=True)]
    for piece in pieces[:-1]:
        utterance.receive(None, piece, 1.0)
        assert utterance.buffered == 0, "no audio is sent before the check for a file"
    received = utterance.received
    with pytest.raises(AudioContainerDetected) as refused:
        utterance.receive(None, pieces[-1], 1.0)
    assert utterance.seal(refused.value) == received > 0
    assert (utterance.buffered, utterance.charged_s) == (0, 0)
    assert utterance.finish(Outcome.FAILED, 0.0) == 0, "the beginning of its header is dropped once"


def test_first_bytes_that_only_begin_like_a_file_are_spoken(utterance):
    utterance.receive(None, b"RI", 1.0)
    assert utterance.buffered == 0
    utterance.receive(None, b"ff", 1.0)
    assert utterance.take_packet(4, NOW) == b"RIff"


def test_an_utterance_that_ends_in_the_beginning_of_a_magic_word_is_spoken(utterance):
    utterance.receive(None, b"RI", 1.0)
    assert utterance.seal() == 0
    assert (utterance.failure, utterance.take_packet(2, NOW)) == (None, b"RI")


def test_an_utterance_that_ends_before_its_header_could_be_read_is_a_file_all_the_same(new):
    utterance = new(may_be_container=lambda head: len(head) < 12)
    utterance.receive(None, b"RIFF....", 1.0)
    assert utterance.seal() == 8
    assert isinstance(utterance.failure, AudioContainerDetected)
    assert utterance.buffered == 0


def test_an_utterance_that_another_process_began_is_not_looked_at_again(utterance):
    utterance.restore(4, 0.1, 0.0, 1.0, started=True, interrupted=False)
    utterance.window = 2_000
    assert utterance.receive(None, b"RIFF", 1.0) == 4


def test_only_the_first_bytes_are_looked_at_for_a_file(utterance):
    utterance.receive(None, b"aa", 1.0)
    assert utterance.receive(None, b"RIFF", 1.0) == 4


def test_an_empty_chunk_changes_nothing(utterance):
    assert utterance.receive(None, b"", 1.0) == 0
    assert utterance.receive(0, b"RIFF"[:0], 1.0) == 0
    assert utterance.received == 0


def test_audio_beyond_the_credit_is_refused_with_what_is_left_and_how_long_to_wait(utterance):
    utterance.receive(None, bytes(1_000), 1.0)
    utterance.receive(None, bytes(400), 1.0)
    with pytest.raises(CreditExceeded) as refused:
        utterance.receive(None, bytes(960), 1.0)
    assert refused.value.metadata == {"size_bytes": "960", "credit_bytes": "600"}
    assert refused.value.retry_after_s == pytest.approx(0.02)
    assert utterance.received == 1_400


def test_what_went_upstream_gives_its_credit_back(utterance):
    utterance.receive(None, bytes(1_000), 1.0)
    utterance.receive(None, bytes(1_000), 1.0)
    utterance.take_packet(1_000, NOW)
    assert utterance.receive(None, bytes(1_000), 1.0) == 1_000


def test_a_duplicate_needs_no_credit(utterance):
    utterance.receive(0, bytes(1_000), 1.0)
    utterance.receive(1_000, bytes(1_000), 1.0)
    assert utterance.receive(1_000, bytes(1_000), 1.0) == 0


def test_packets_are_cut_across_chunks_in_order(utterance):
    for chunk in (b"aabb", b"ccdd", b"ee"):
        utterance.receive(None, chunk, 1.0)
    assert utterance.take_packet(2, NOW) == b"aa"
    assert utterance.take_packet(4, NOW) == b"bbcc"
    assert utterance.buffered == 4
    assert utterance.take_packet(4, NOW) == b"ddee"
    assert utterance.sent_s == pytest.approx(10 / 48_000)


def test_a_packet_may_end_where_a_chunk_ends(utterance):
    utterance.receive(None, b"aabb", 1.0)
    utterance.receive(None, b"cc", 1.0)
    assert utterance.take_packet(4, NOW) == b"aabb"
    assert utterance.take_packet(2, NOW) == b"cc"


def test_packets_are_confirmed_in_order(utterance):
    utterance.receive(None, b"aabbcc", 1.0)
    utterance.take_packet(2, NOW)
    utterance.take_packet(4, NOW)
    utterance.delivery.ack(1)
    assert utterance.confirmed == 2
    utterance.delivery.ack(2)
    assert utterance.confirmed == 6


def test_a_confirmation_too_many_changes_nothing(utterance):
    utterance.receive(None, b"aa", 1.0)
    utterance.take_packet(2, NOW)
    utterance.delivery.ack(1)
    utterance.delivery.ack(1)
    assert utterance.confirmed == 2


def test_what_a_converter_holds_back_is_no_packet_until_the_tail(new, rig):
    utterance = new(new_converter=lambda: rig.lagging(4))
    utterance.receive(None, b"aabbcc", 1.0)
    assert utterance.take_packet(2, NOW) == b""
    assert utterance.take_packet(4, NOW) == b"aa"
    assert not utterance.has_tail, "more may come"
    utterance.seal()
    assert utterance.has_tail
    assert utterance.take_packet(0, NOW) == b"bbcc"
    assert not utterance.has_tail
    utterance.delivery.ack(1)
    utterance.delivery.ack(2)
    assert utterance.confirmed == 6


def test_the_last_packet_of_a_sealed_utterance_brings_the_tail_along(new, rig):
    utterance = new(new_converter=lambda: rig.lagging(4))
    utterance.receive(None, b"aabbcc", 1.0)
    utterance.seal()
    assert utterance.take_packet(6, NOW) == b"aabbcc"
    assert not utterance.has_tail


def test_what_a_converter_holds_back_is_not_there_until_it_went_out(new, rig):
    """Another process that continues there, or a caller that releases confirmed audio, would lose these bytes."""
    utterance = new(new_converter=lambda: rig.lagging(4))
    utterance.receive(None, b"aabbccdd", 1.0)
    utterance.take_packet(6, NOW)
    assert (utterance.cut, utterance.taken) == (6, 2)
    utterance.delivery.ack(1)
    assert utterance.confirmed == 2
    utterance.take_packet(2, NOW)
    assert utterance.taken == 4
    utterance.seal()
    utterance.take_packet(0, NOW)
    assert utterance.taken == 8


def test_what_is_held_back_of_another_rate_is_whole_samples_of_it(new):
    class Halved:
        """Converter of 48 kHz stereo: returns a quarter of the bytes, and holds back the latest sample."""

        def convert(self, chunks, *, last):
            size = sum(map(len, chunks)) // 4
            return bytes(size if last else max(0, size - 2))

    utterance = new(byte_rate=192_000, frame_bytes=4, new_converter=Halved)
    utterance.receive(None, bytes(40), 1.0)
    assert len(utterance.take_packet(24, NOW)) == 4
    assert utterance.taken == 16


def test_an_utterance_without_audio_has_no_tail(utterance):
    utterance.seal()
    assert not utterance.has_tail


def test_the_first_failure_is_the_one_that_stays(utterance):
    first, second = UpstreamStalled("first"), UpstreamStalled("second")
    utterance.seal(first)
    utterance.seal(second)
    utterance.seal()
    assert utterance.failure is first


def test_a_rewind_makes_all_audio_wait_again_under_a_fresh_id(utterance):
    utterance.receive(None, b"aabb", 1.0)
    utterance.receive(None, b"ccdd", 1.0)
    utterance.take_packet(6, NOW)
    utterance.delivery.ack(1)
    utterance.begin_sending(0.0, 1.0)
    utterance.accept()
    utterance.rewind("up-2")
    assert (utterance.upstream_id, utterance.buffered, utterance.cut, utterance.confirmed) == ("up-2", 8, 0, 0)
    assert (utterance.sent_s, utterance.first_sent_at_s, utterance.accepted) == (0.0, None, False)
    assert utterance.take_packet(8, NOW) == b"aabbccdd"


def test_a_rewind_starts_the_conversion_anew(new, rig):
    utterance = new(new_converter=lambda: rig.lagging(2))
    utterance.receive(None, b"aabbcc", 1.0)
    utterance.seal()
    utterance.take_packet(6, NOW)
    utterance.begin_sending(0.0, 1.0)
    utterance.rewind("up-2")
    assert utterance.take_packet(2, NOW) == b""
    assert utterance.take_packet(4, NOW) == b"aabbcc"


def test_audio_that_waits_again_does_not_take_the_credit_twice(utterance):
    """A rewind must not revoke credit that the caller was granted."""
    utterance.receive(None, bytes(1_000), 1.0)
    utterance.receive(None, bytes(1_000), 1.0)
    utterance.take_packet(1_000, NOW)
    utterance.begin_sending(0.0, 1.0)
    utterance.rewind("up-2")
    assert utterance.receive(None, bytes(1_000), 1.0) == 1_000
    utterance.take_packet(500, NOW)
    with pytest.raises(CreditExceeded):
        utterance.receive(None, bytes(2), 1.0)


def test_nothing_is_heard_before_the_start(utterance):
    clock = PlayoutClock(start_delay_s=0.0)
    utterance.receive(None, bytes(1_000), 1.0)
    utterance.take_packet(1_000, NOW)
    clock.send(1_000 / 48_000, 1.0)
    assert utterance.position_s(clock, 9.0) == 0.0


def test_the_position_never_falls_and_never_passes_what_was_sent(utterance):
    clock = PlayoutClock(start_delay_s=0.0)
    utterance.receive(None, bytes(960), 1.0)
    utterance.take_packet(960, NOW)
    clock.send(0.02, 1.0)
    utterance.start()
    assert utterance.position_s(clock, 1.01) == pytest.approx(0.01)
    assert utterance.position_s(clock, 1.0) == pytest.approx(0.01)
    assert utterance.position_s(clock, 9.0) == pytest.approx(0.02)


def test_an_utterance_that_ended_keeps_its_position(utterance):
    clock = PlayoutClock(start_delay_s=0.0)
    utterance.receive(None, bytes(960), 1.0)
    utterance.take_packet(960, NOW)
    clock.send(0.02, 1.0)
    utterance.start()
    utterance.position_s(clock, 1.01)
    utterance.finish(Outcome.INTERRUPTED, 0.0)
    assert utterance.position_s(clock, 9.0) == pytest.approx(0.01)


def test_what_is_dropped_is_counted_and_no_more_is_taken(utterance):
    utterance.receive(None, bytes(1_000), 1.0)
    utterance.take_packet(400, NOW)
    assert utterance.drop() == 600
    assert (utterance.sealed, utterance.buffered, utterance.drop()) == (True, 0, 0)


def test_a_completed_utterance_counts_as_confirmed_whole(utterance):
    utterance.receive(None, bytes(1_000), 1.0)
    utterance.take_packet(1_000, NOW)
    assert utterance.finish(Outcome.COMPLETED, 1_000 / 48_000) == 0
    assert utterance.confirmed == 1_000


def test_a_cut_utterance_counts_what_was_never_sent(utterance):
    utterance.receive(None, bytes(1_000), 1.0)
    utterance.take_packet(400, NOW)
    assert utterance.finish(Outcome.INTERRUPTED, 0.0) == 600
    assert utterance.confirmed == 0


def test_what_a_lost_socket_may_not_have_delivered_does_not_count_as_taken(utterance):
    utterance.receive(None, bytes(600), 0.0)
    for _ in range(3):
        utterance.take_packet(200, NOW)
    assert utterance.taken == 600
    utterance.delivery.ack(1)
    assert utterance.taken == 600
    utterance.lose()
    assert utterance.taken == 200
    utterance.delivery.send_again(NOW)
    assert utterance.taken == 400


# --- states: each method in each state


def _waiting(utterance):
    utterance.receive(None, bytes(4), 1.0)


def _sending(utterance):
    _waiting(utterance)
    utterance.take_packet(4, NOW)
    utterance.begin_sending(0.0, 1.0)


def _end_sent(utterance):
    _sending(utterance)
    utterance.seal()
    utterance.send_end(NOW, due_at_s=9.0)


def _committed(utterance):
    _end_sent(utterance)
    utterance.confirm_all()


_REACH_SEND = {
    SendState.WAITING: _waiting,
    SendState.SENDING: _sending,
    SendState.END_SENT: _end_sent,
    SendState.COMMITTED: _committed,
}
_SEND_METHODS = {
    "begin_sending": lambda utterance: utterance.begin_sending(0.0, 1.0),
    "send_end": lambda utterance: utterance.send_end(NOW, due_at_s=9.0),
    "confirm_all": lambda utterance: utterance.confirm_all(),
    "read": lambda utterance: utterance.read(NOW.number, sent_by_s=9.0),
    "presume": lambda utterance: utterance.presume(sent_by_s=9.0),
    "lose": lambda utterance: utterance.lose(),
    "rewind": lambda utterance: utterance.rewind("up-2"),
}
_SEND_FOLLOWING = {
    (SendState.WAITING, "begin_sending"): SendState.SENDING,
    (SendState.WAITING, "send_end"): None,
    (SendState.WAITING, "rewind"): None,
    (SendState.SENDING, "begin_sending"): None,
    (SendState.SENDING, "send_end"): SendState.END_SENT,
    (SendState.SENDING, "rewind"): SendState.WAITING,
    (SendState.END_SENT, "begin_sending"): None,
    (SendState.END_SENT, "send_end"): None,
    (SendState.END_SENT, "confirm_all"): SendState.COMMITTED,
    (SendState.END_SENT, "read"): SendState.COMMITTED,
    (SendState.END_SENT, "presume"): SendState.COMMITTED,
    (SendState.END_SENT, "lose"): SendState.SENDING,
    (SendState.END_SENT, "rewind"): SendState.WAITING,
    (SendState.COMMITTED, "begin_sending"): None,
    (SendState.COMMITTED, "send_end"): None,
    (SendState.COMMITTED, "rewind"): SendState.WAITING,
}
"""Each method is accepted in each state; a pair that is not listed changes no state."""


@pytest.mark.parametrize("method", _SEND_METHODS)
@pytest.mark.parametrize("state", SendState)
def test_the_send_state_changes_by_its_table(utterance, state, method):
    _REACH_SEND[state](utterance)
    assert utterance.send_state is state
    following = _SEND_FOLLOWING.get((state, method), state)
    if following is None:
        with pytest.raises(IllegalTransition):
            _SEND_METHODS[method](utterance)
        return
    _SEND_METHODS[method](utterance)
    assert utterance.send_state is following
    assert utterance.is_upstream == (following is not SendState.WAITING)
    assert utterance.end_sent == (following in {SendState.END_SENT, SendState.COMMITTED})
    assert (utterance.end_sending is not None) == utterance.end_sent
    assert utterance.committed == (following is SendState.COMMITTED)


def _accepted(utterance):
    _sending(utterance)
    utterance.accept()


def _playing(utterance):
    _sending(utterance)
    utterance.start()


def _played(utterance):
    _playing(utterance)
    utterance.finish(Outcome.COMPLETED, 0.1)


def _unplayed(utterance):
    _sending(utterance)
    utterance.finish(Outcome.INTERRUPTED, 0.0)


_REACH_PLAYBACK = {
    PlaybackState.PENDING: _sending,
    PlaybackState.ACCEPTED: _accepted,
    PlaybackState.PLAYING: _playing,
    PlaybackState.PLAYED: _played,
    PlaybackState.UNPLAYED: _unplayed,
}
_PLAYBACK_METHODS = {
    "accept": lambda utterance: utterance.accept(),
    "miss_start": lambda utterance: utterance.miss_start(accepted=True),
    "start": lambda utterance: utterance.start(),
    "rewind": lambda utterance: utterance.rewind("up-2"),
    "finish": lambda utterance: utterance.finish(Outcome.FAILED, 0.0),
}
_PLAYBACK_FOLLOWING = {
    (PlaybackState.PENDING, "accept"): PlaybackState.ACCEPTED,
    (PlaybackState.PENDING, "miss_start"): PlaybackState.ACCEPTED,
    (PlaybackState.PENDING, "start"): PlaybackState.PLAYING,
    (PlaybackState.PENDING, "finish"): PlaybackState.UNPLAYED,
    (PlaybackState.ACCEPTED, "start"): PlaybackState.PLAYING,
    (PlaybackState.ACCEPTED, "rewind"): PlaybackState.PENDING,
    (PlaybackState.ACCEPTED, "finish"): PlaybackState.UNPLAYED,
    (PlaybackState.PLAYING, "start"): None,
    (PlaybackState.PLAYING, "rewind"): PlaybackState.PENDING,
    (PlaybackState.PLAYING, "finish"): PlaybackState.PLAYED,
    (PlaybackState.PLAYED, "start"): None,
    (PlaybackState.PLAYED, "rewind"): None,
    (PlaybackState.PLAYED, "finish"): None,
    (PlaybackState.UNPLAYED, "start"): None,
    (PlaybackState.UNPLAYED, "rewind"): None,
    (PlaybackState.UNPLAYED, "finish"): None,
}
"""Each method is accepted in each state; a pair that is not listed changes no state."""


@pytest.mark.parametrize("method", _PLAYBACK_METHODS)
@pytest.mark.parametrize("state", PlaybackState)
def test_the_playback_state_changes_by_its_table(utterance, state, method):
    _REACH_PLAYBACK[state](utterance)
    assert utterance.playback_state is state
    following = _PLAYBACK_FOLLOWING.get((state, method), state)
    if following is None:
        with pytest.raises(IllegalTransition):
            _PLAYBACK_METHODS[method](utterance)
        return
    _PLAYBACK_METHODS[method](utterance)
    assert utterance.playback_state is following
    assert utterance.accepted == (following is not PlaybackState.PENDING)
    assert utterance.started == (following in {PlaybackState.PLAYING, PlaybackState.PLAYED})
    is_over = following in {PlaybackState.PLAYED, PlaybackState.UNPLAYED}
    assert (utterance.outcome is not None) == is_over


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([], InputState.UNDECIDED),
        (["RI"], InputState.UNDECIDED),
        (["RIff"], InputState.OPEN),
        (["seal"], InputState.SEALED),
        (["RIff", "seal"], InputState.SEALED),
        (["RIff", "seal", "seal"], InputState.SEALED),
        (["RIff", "seal", "take"], InputState.FLUSHED),
        (["drop"], InputState.FLUSHED),
        (["RIff", "drop", "drop", "seal"], InputState.FLUSHED),
        (["RIff", "seal", "drop"], InputState.FLUSHED),
        (["RIff", "seal", "take", "rewind"], InputState.SEALED),
    ],
)
def test_the_input_state_follows_what_came(utterance, steps, state):
    actions = {
        "seal": utterance.seal,
        "drop": utterance.drop,
        "take": lambda: (utterance.take_packet(4, NOW), utterance.begin_sending(0.0, 1.0)),
        "rewind": lambda: utterance.rewind("up-2"),
    }
    for step in steps:
        actions.get(step, lambda step=step: utterance.receive(None, step.encode(), 1.0))()
    assert utterance.input_state is state
    assert utterance.sealed == (state in {InputState.SEALED, InputState.FLUSHED})
