"""Speech and its schedule: whole samples, no two stretches alike, sources that cause no underrun."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.speech import BYTE_RATE, Text, Voice, at_once, burst, real_time

# The machine may be busy.
in_no_hurry = settings(deadline=None)

_sizes = st.integers(1, BYTE_RATE * 3).map(lambda samples: 2 * samples)


@pytest.fixture(scope="module")
def voice() -> Voice:
    return Voice()


def test_a_text_is_the_same_bytes_everywhere_and_of_its_length(voice: Voice):
    text = voice.pick(random.Random(1), 3.1)
    assert len(voice.pcm(text)) == text.size_bytes == round(3.1 * 24_000) * 2
    assert voice.pcm(text) == Voice().pcm(text)


def test_speech_is_speech(voice: Voice):
    """The recordings' samples with two bits of noise: loud here, quiet there, never silent to the last bit."""
    import numpy as np

    samples = np.frombuffer(voice.pcm(Text(0, 0, 10 * BYTE_RATE)), dtype="<i2")
    loudness = [float(np.abs(piece).mean()) for piece in np.split(samples, 100)]
    assert max(loudness) > 1500
    assert min(loudness) < max(loudness) / 10


def test_no_two_pieces_are_alike(voice: Voice):
    """20 ms of one place never equal 20 ms of another, not even where the recordings are silent."""
    rng = random.Random(2)
    pieces = set()
    for _ in range(20):
        pcm = voice.pcm(voice.pick(rng, 4.0))
        pieces.update(pcm[at : at + 960] for at in range(0, len(pcm), 960))
    assert len(pieces) == 20 * 200


def test_speech_longer_than_the_recordings_goes_on_from_their_beginning(voice: Voice):
    pcm = voice.pcm(Text(1000, 5, 70 * BYTE_RATE))
    assert len(pcm) == 70 * BYTE_RATE


def test_the_digest_of_a_beginning_is_that_of_the_bytes(voice: Voice):
    text = voice.pick(random.Random(3), 2.0)
    for size in (0, 2, 960, text.size_bytes):
        assert voice.sha256(text, size) == hashlib.sha256(voice.pcm(text)[:size]).hexdigest()


@in_no_hurry
@given(_sizes, st.sampled_from([5, 20, 100, 1000]))
def test_a_real_time_source_gives_all_of_it_at_its_own_pace(size: int, chunk_ms: int):
    delivery = real_time(size, chunk_ms=chunk_ms)
    assert delivery.ends[-1] == size
    step = BYTE_RATE * chunk_ms // 1000
    assert list(delivery.ends[:-1]) == [step * (k + 1) for k in range(len(delivery.ends) - 1)]
    assert list(delivery.dues) == pytest.approx([k * chunk_ms / 1000 for k in range(len(delivery.ends))])


@in_no_hurry
@given(_sizes, st.integers(0, 2**32))
def test_a_burst_gives_whole_samples_in_order_and_never_later_than_it_is_heard(size: int, seed: int):
    delivery = burst(size, random.Random(seed))
    starts = [0, *delivery.ends[:-1]]
    assert delivery.ends[-1] == size
    assert all(end % 2 == 0 and end > start for start, end in zip(starts, delivery.ends, strict=True))
    assert list(delivery.dues) == sorted(delivery.dues)
    assert all(due <= start / BYTE_RATE for start, due in zip(starts, delivery.dues, strict=True))


@in_no_hurry
@given(_sizes)
def test_a_flood_is_due_at_once(size: int):
    delivery = at_once(size, chunk_ms=200)
    assert delivery.ends[-1] == size
    assert set(delivery.dues) == {0.0}


@in_no_hurry
@given(_sizes, st.integers(1, 400_000))
def test_the_chunk_that_completes_a_packet_is_found(size: int, packet: int):
    delivery = real_time(size, chunk_ms=100)
    index = delivery.covered(packet)
    assert index == len(delivery.ends) - 1 or delivery.ends[index] >= packet
    assert index == 0 or delivery.ends[index - 1] < packet


def test_a_faster_delivery_has_the_same_chunks():
    slow = real_time(48_000, chunk_ms=100)
    fast = slow.faster(20.0)
    assert fast.ends == slow.ends
    assert fast.dues[-1] == pytest.approx(slow.dues[-1] / 20)
