"""The gate finds speech in audio, and only speech."""

import itertools

import numpy as np
import pytest

from liveavatar_demo.speech_gate import GateConfig, GateState, SpeechBegan, SpeechEnded, SpeechGate, loudness_db

RATE_HZ = 24_000
CHUNK_S = 0.02
CONFIG = GateConfig(onset_s=0.1, silence_s=0.5, margin_s=0.2, longest_s=5.0)


def tone(seconds: float, level_db: float = -20.0) -> bytes:
    times = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    amplitude = 32_768 * 10 ** (level_db / 20) * 2**0.5
    return (np.sin(2 * np.pi * 200 * times) * amplitude).astype("<i2").tobytes()


def silence(seconds: float) -> bytes:
    return bytes(int(seconds * RATE_HZ) * 2)


def heard(gate: SpeechGate, pcm: bytes, at_s: float = 0.0) -> list:
    size = int(CHUNK_S * RATE_HZ) * 2
    events = []
    for number, start in enumerate(range(0, len(pcm), size)):
        events += gate.take(pcm[start : start + size], at_s + number * CHUNK_S)
    return events


def test_speech_begins_with_its_first_sound_and_ends_with_its_last():
    gate = SpeechGate(CONFIG)
    began, ended = heard(gate, silence(1) + tone(0.8) + silence(1), at_s=100)
    assert isinstance(began, SpeechBegan)
    assert began.began_s == pytest.approx(101, abs=0.001)
    assert isinstance(ended, SpeechEnded)
    assert ended.began_s == began.began_s
    assert ended.ended_s == pytest.approx(101.8, abs=0.001)
    assert gate.state is GateState.SILENT


def test_the_audio_has_a_margin_on_both_sides():
    (_, ended) = heard(SpeechGate(CONFIG), silence(1) + tone(0.8) + silence(1))
    seconds = len(ended.audio) / RATE_HZ / 2
    assert seconds == pytest.approx(0.8 + 2 * CONFIG.margin_s, abs=CHUNK_S)
    assert tone(0.8) in ended.audio


def test_without_a_past_there_is_no_margin_before():
    (_, ended) = heard(SpeechGate(CONFIG), tone(0.8) + silence(1))
    assert ended.audio.startswith(tone(0.8))


def test_a_click_is_no_speech():
    assert heard(SpeechGate(CONFIG), (silence(0.5) + tone(0.06)) * 4) == []


def test_noise_below_the_level_is_no_speech():
    assert heard(SpeechGate(CONFIG), tone(3, level_db=CONFIG.open_db - 3)) == []


def test_a_breath_between_words_ends_nothing():
    began, ended = heard(SpeechGate(CONFIG), tone(0.5) + silence(0.3) + tone(0.5) + silence(1))
    assert ended.ended_s - began.began_s == pytest.approx(1.3, abs=0.001)


def test_a_quieter_end_belongs_to_the_speech():
    between_db = (CONFIG.open_db + CONFIG.close_db) / 2
    (_, ended) = heard(SpeechGate(CONFIG), tone(0.5) + tone(0.4, between_db) + silence(1))
    assert ended.ended_s == pytest.approx(0.9, abs=0.001)


def test_endless_speech_is_cut_and_the_rest_is_new_speech():
    events = heard(SpeechGate(CONFIG), tone(12) + silence(1))
    kinds = [type(event) for event in events]
    assert kinds == [SpeechBegan, SpeechEnded] * 3
    longest_bytes = int((CONFIG.longest_s + CONFIG.margin_s + CONFIG.onset_s + CHUNK_S) * RATE_HZ) * 2
    assert all(len(event.audio) <= longest_bytes for event in events if isinstance(event, SpeechEnded))


def test_closing_ends_speech_that_lasts_and_nothing_else():
    gate = SpeechGate(CONFIG)
    assert gate.close() == []
    heard(gate, tone(0.6))
    assert gate.state is GateState.SPEAKING
    (ended,) = gate.close()
    assert ended.audio == tone(0.6)
    assert gate.close() == []


def test_events_alternate_whatever_is_heard():
    generator = np.random.default_rng(7)
    gate = SpeechGate(CONFIG)
    parts = [
        tone(float(seconds), float(level)) if loud else silence(float(seconds))
        for seconds, level, loud in zip(
            generator.uniform(0.02, 1.5, 200),
            generator.uniform(-60, -6, 200),
            generator.integers(0, 2, 200),
            strict=True,
        )
    ]
    events = heard(gate, b"".join(parts)) + gate.close()
    for event, kind in zip(events, itertools.cycle([SpeechBegan, SpeechEnded]), strict=False):
        assert isinstance(event, kind)
    times = [time for event in events if isinstance(event, SpeechEnded) for time in (event.began_s, event.ended_s)]
    assert times == sorted(times)


def test_loudness_is_that_of_the_samples():
    assert loudness_db(tone(0.1, -20)) == pytest.approx(-20, abs=0.2)
    assert loudness_db(silence(0.1)) == loudness_db(b"") == -120
