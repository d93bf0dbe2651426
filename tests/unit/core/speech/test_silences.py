"""Silences in speech: where a paused utterance continues."""

import random
import struct

import pytest

from liveavatar_gateway.core.speech.silences import last_silence

_RATE = 24_000


def _noise(seconds: float, amplitude: int, seed: int = 1) -> bytes:
    source = random.Random(seed)
    count = round(seconds * _RATE)
    return struct.pack(f"<{count}h", *(source.randint(-amplitude, amplitude) for _ in range(count)))


def _after(pcm: bytes) -> float:
    """Return the seconds between the position and the end."""
    position = last_silence(pcm)
    assert position % 2 == len(pcm) % 2
    return (len(pcm) - position) / 2 / _RATE


def test_speech_continues_at_the_end_of_the_last_silence():
    pcm = _noise(0.3, 8_000) + _noise(0.2, 0) + _noise(0.1, 8_000) + _noise(0.12, 20) + _noise(0.3, 8_000)
    assert 0.3 <= _after(pcm) <= 0.34


@pytest.mark.parametrize("loud", [300, 3_000, 30_000])
def test_a_silence_is_quiet_relative_to_the_speech_around_it(loud):
    pcm = _noise(0.4, loud) + _noise(0.2, loud // 30) + _noise(0.3, loud)
    assert 0.3 <= _after(pcm) <= 0.34


def test_the_closure_before_a_plosive_is_no_silence():
    pcm = _noise(0.4, 8_000) + _noise(0.06, 0) + _noise(0.4, 8_000)
    assert _after(pcm) == 0.0


def test_speech_without_a_silence_continues_where_it_was_heard():
    assert _after(_noise(1.0, 8_000)) == 0.0


def test_speech_that_was_paused_inside_a_silence_is_not_repeated():
    assert _after(_noise(0.5, 8_000) + _noise(0.3, 0)) == 0.0
    assert _after(_noise(1.0, 3)) == 0.0


@pytest.mark.parametrize("size", [0, 2, 958, 960, 962])
def test_less_than_a_silence_of_audio_has_none(size):
    assert last_silence(bytes(size)) == size
