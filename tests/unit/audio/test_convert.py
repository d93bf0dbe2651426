"""Conversion: the same samples however the audio is cut, of the same length, and clean."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from liveavatar_gateway.audio.convert import Resampling, convert_all, converter
from liveavatar_gateway.audio.formats import NATIVE_FORMAT, AudioFormat, Encoding
from liveavatar_gateway.audio.g711 import ALAW_TO_S16, MULAW_TO_S16
from liveavatar_gateway.audio.passthrough import Passthrough

_RATES = st.sampled_from([8_000, 11_025, 12_345, 16_000, 22_050, 23_999, 24_000, 32_000, 44_100, 48_000])
_FORMATS = st.builds(AudioFormat, st.sampled_from(Encoding), _RATES, st.integers(1, 2))


def _noise(fmt: AudioFormat, frames: int, seed: int = 0) -> bytes:
    """Loud noise: every byte matters, and resampling overshoots."""
    rng = np.random.default_rng(seed)
    samples = frames * fmt.channels
    if fmt.encoding is Encoding.PCM_F32LE:
        return rng.uniform(-1.2, 1.2, samples).astype("<f4").tobytes()
    return rng.bytes(samples * fmt.encoding.sample_bytes)


def _s16(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def _sine(rate_hz: int, seconds: float, *, frequency_hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * frequency_hz * np.arange(int(rate_hz * seconds)) / rate_hz)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), fmt=_FORMATS, frames=st.integers(0, 12_000), seed=st.integers(0, 2**32))
def test_output_does_not_depend_on_how_the_input_is_cut_and_grouped(data, fmt, frames, seed):
    audio = _noise(fmt, frames, seed)
    cuts = sorted(data.draw(st.lists(st.integers(0, frames), max_size=12)))
    edges = [0, *cuts, frames]
    chunks = [audio[a * fmt.frame_bytes : b * fmt.frame_bytes] for a, b in pairwise(edges)]
    group_ends = [*sorted(data.draw(st.lists(st.integers(0, len(chunks)), max_size=6))), len(chunks)]
    piecewise = converter(fmt)
    pcm = b""
    start = 0
    for index, end in enumerate(group_ends):
        pcm += piecewise.convert(chunks[start:end], last=index == len(group_ends) - 1)
        start = end
    assert pcm == convert_all(fmt, audio)


@pytest.mark.parametrize("size_ms", [1, 20, 100, 1_000])
@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100])
def test_output_does_not_depend_on_the_chunk_size_of_a_long_utterance(rate_hz, size_ms):
    fmt = AudioFormat(Encoding.PCM_S16LE, rate_hz, 1)
    audio = _noise(fmt, rate_hz * 3)
    size = rate_hz * size_ms // 1_000 * fmt.frame_bytes
    piecewise = converter(fmt)
    pcm = b"".join(piecewise.convert([audio[at : at + size]], last=False) for at in range(0, len(audio), size))
    assert pcm + piecewise.convert([], last=True) == convert_all(fmt, audio)


@settings(deadline=None)
@given(fmt=_FORMATS, frames=st.integers(0, 20_000))
@example(fmt=AudioFormat(Encoding.MULAW, 8_000, 1), frames=1)
def test_duration_is_kept_within_a_sample(fmt, frames):
    pcm = convert_all(fmt, _noise(fmt, frames))
    assert len(pcm) % 2 == 0
    assert abs(len(pcm) / 2 - frames * 24_000 / fmt.rate_hz) <= 1


def test_an_utterance_without_audio_has_no_samples():
    fmt = AudioFormat(Encoding.PCM_F32LE, 48_000, 2)
    assert convert_all(fmt, b"") == b""
    assert converter(fmt).convert([], last=True) == b""


def test_native_audio_is_passed_on():
    assert isinstance(converter(NATIVE_FORMAT), Passthrough)


def test_other_formats_are_converted_also_at_24_khz():
    assert isinstance(converter(AudioFormat(Encoding.MULAW, 24_000, 1)), Resampling)
    assert isinstance(converter(AudioFormat(Encoding.PCM_S16LE, 24_000, 2)), Resampling)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("frequency_hz", [100.0, 440.0, 3_000.0])
def test_a_sine_stays_that_sine(rate_hz, frequency_hz):
    """No delay, no change of level, no noise: within 80 dB of the sine that 24 kHz would have sampled."""
    fmt = AudioFormat(Encoding.PCM_F32LE, rate_hz, 1)
    source = _sine(rate_hz, 1.0, frequency_hz=frequency_hz).astype("<f4")
    piecewise = converter(fmt)
    size = rate_hz // 50
    chunks = [source[at : at + size].tobytes() for at in range(0, len(source), size)]
    pcm = b"".join(piecewise.convert([chunk], last=False) for chunk in chunks) + piecewise.convert([], last=True)
    heard = _s16(pcm)
    wanted = 32_768 * _sine(24_000, 1.0, frequency_hz=frequency_hz)
    inner = slice(2_400, 21_600)  # the edges ring, as a sine that starts at once must
    noise = heard[inner] - wanted[inner]
    snr_db = 10 * np.log10(np.mean(wanted[inner] ** 2) / np.mean(noise**2))
    assert snr_db > 80


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 48_000])
def test_a_constant_level_has_no_jumps_where_chunks_meet(rate_hz):
    fmt = AudioFormat(Encoding.PCM_S16LE, rate_hz, 1)
    audio = np.full(rate_hz, 8_000, "<i2").tobytes()
    piecewise = converter(fmt)
    size = rate_hz // 50 * 2
    pcm = b"".join(piecewise.convert([audio[at : at + size]], last=False) for at in range(0, len(audio), size))
    heard = _s16(pcm)[2_400:]
    assert len(heard) > 15_000
    assert np.all(np.abs(heard - 8_000) <= 1)


def test_stereo_is_averaged():
    fmt = AudioFormat(Encoding.PCM_S16LE, 24_000, 2)
    frames = np.array([[1_000, 3_000], [-2_000, 2_000], [32_767, 32_767], [-32_768, -32_768], [0, 10]], "<i2")
    assert _s16(convert_all(fmt, frames.tobytes())).tolist() == [2_000, 0, 32_767, -32_768, 5]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_stereo_of_two_equal_channels_sounds_like_mono(encoding):
    mono = AudioFormat(encoding, 16_000, 1)
    audio = _noise(mono, 4_000)
    size = mono.frame_bytes
    doubled = b"".join(audio[at : at + size] * 2 for at in range(0, len(audio), size))
    assert convert_all(AudioFormat(encoding, 16_000, 2), doubled) == convert_all(mono, audio)


def test_floats_beyond_full_scale_are_clipped_and_no_numbers_are_silent():
    fmt = AudioFormat(Encoding.PCM_F32LE, 24_000, 1)
    floats = np.array([0.0, 0.5, -0.5, 1.0, -1.0, 7.0, -7.0, np.inf, -np.inf, np.nan, 1e-40], "<f4")
    assert _s16(convert_all(fmt, floats.tobytes())).tolist() == [
        *(0, 16_384, -16_384, 32_767, -32_768),
        *(32_767, -32_768, 32_767, -32_768, 0, 0),
    ]


def test_no_number_in_floats_spoils_what_follows():
    """A NaN inside a resampling filter would silence the rest of the utterance."""
    fmt = AudioFormat(Encoding.PCM_F32LE, 16_000, 1)
    floats = np.full(16_000, 0.25, "<f4")
    floats[100] = np.nan
    assert np.all(np.abs(_s16(convert_all(fmt, floats.tobytes()))[2_400:21_600] - 8_192) <= 1)


def test_overshoot_is_clipped_not_wrapped():
    fmt = AudioFormat(Encoding.PCM_S16LE, 16_000, 1)
    square = np.where(np.arange(16_000) // 20 % 2, 32_767, -32_768).astype("<i2")
    heard = _s16(convert_all(fmt, square.tobytes()))
    middles = heard.reshape(-1, 30)[1:-1, 10:20]
    assert np.all(np.abs(middles) > 25_000)
    assert np.all(np.sign(middles) == np.sign(middles[:, :1])), "a wrapped sample would change its sign"


@pytest.mark.parametrize("encoding", [Encoding.MULAW, Encoding.ALAW])
def test_g711_at_24_khz_is_the_table_alone(encoding):
    table = MULAW_TO_S16 if encoding is Encoding.MULAW else ALAW_TO_S16
    assert _s16(convert_all(AudioFormat(encoding, 24_000, 1), bytes(range(256)))).tolist() == table.tolist()
