"""Recording of a session, byte for byte."""

import hashlib
import io
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_emulator.playback import Utterance
from liveavatar_emulator.recording import AudioBudget, AudioNotKept, Recording, wav


def recording(keep_bytes: int = 10**9, total_bytes: int = 10**9) -> Recording:
    return Recording(started_mono_s=100.0, keep_bytes=keep_bytes, budget=AudioBudget(total_bytes))


def utterance(number: int = 0) -> Utterance:
    return Utterance(number=number, source_event_id="u", task_id="t", opened_at_s=100.0)


def hear(rec: Recording, life: Utterance, pcm: bytes, now_s: float = 100.0, event_id: str | None = "u") -> None:
    life.received_bytes += len(pcm)
    rec.record_audio(life, event_id, pcm, now_s)


@given(pieces=st.lists(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4), max_size=5))
def test_audio_comes_back_whole_and_in_order(pieces):
    rec = recording()
    for number, utterance_pieces in enumerate(pieces):
        life = utterance(number)
        for piece in utterance_pieces:
            hear(rec, life, piece)
        assert rec.utterance_audio(number) == b"".join(utterance_pieces)
    everything = b"".join(piece for group in pieces for piece in group)
    assert rec.audio() == everything
    assert rec.sha256 == hashlib.sha256(everything).hexdigest()


def test_beyond_the_budget_digests_stay_right_and_audio_is_refused():
    rec = recording(keep_bytes=5)
    hear(rec, utterance(), b"abcd")
    hear(rec, rec.utterances[0].playback, b"efgh")
    assert rec.sha256 == hashlib.sha256(b"abcdefgh").hexdigest()
    with pytest.raises(AudioNotKept, match="4 of 8 bytes"):
        rec.audio()
    with pytest.raises(AudioNotKept):
        rec.utterance_audio(0)


def test_what_is_kept_has_no_holes():
    rec = recording(keep_bytes=6)
    life = utterance()
    for piece in (b"abcd", b"efgh", b"ij"):
        hear(rec, life, piece)
    assert rec.kept_bytes == 4


def test_a_forgotten_recording_gives_its_share_of_the_budget_back():
    budget = AudioBudget(10)
    rec = Recording(started_mono_s=0.0, keep_bytes=10, budget=budget)
    hear(rec, utterance(), b"abcdefgh")
    assert not budget.take(4)
    rec.forget_audio()
    assert budget.take(4)


def test_packets_know_their_size_gap_and_arrival():
    rec = recording()
    life = utterance()
    hear(rec, life, bytes(960), 101.0, "a")
    hear(rec, life, bytes(961), 101.25, "b")
    first, second = rec.packet_rows()
    assert first == {
        "utterance": 0,
        "event_id": "a",
        "size_bytes": 960,
        "arrived_at_s": 1.0,
        "arrived_mono_s": 101.0,
        "gap_s": None,
    }
    assert (second["gap_s"], second["arrived_at_s"]) == (0.25, 1.25)
    assert rec.odd_size_packets == 1


def test_an_utterance_lists_each_of_its_ids_once():
    rec = recording()
    life = utterance()
    for event_id in ("a", "b", "a", None):
        hear(rec, life, b"xx", event_id=event_id)
    row = rec.utterance_row(rec.utterances[0], played_bytes=0)
    assert row["event_ids"] == ["a", "b"]
    assert row["packets"] == 4


def test_the_heard_part_can_be_had_alone():
    rec = recording()
    hear(rec, utterance(), b"abcdef")
    assert rec.utterance_audio(0, played_bytes=4) == b"abcd"


def test_a_wav_file_says_24_khz_mono_16_bit():
    with wave.open(io.BytesIO(wav(b"\1\0\2\0\3"))) as file:
        assert file.getparams()[:4] == (1, 2, 24_000, 2)
        assert file.readframes(9) == b"\1\0\2\0"
