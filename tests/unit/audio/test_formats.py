"""Formats: what is taken, what nothing means, and how a refusal names its field."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.audio.formats import NATIVE_BYTE_RATE, NATIVE_FORMAT, AudioFormat, Encoding
from liveavatar_gateway.core.errors import AudioFormatUnsupported


def test_nothing_said_means_liveavatars_own_format():
    assert AudioFormat.checked() == AudioFormat.checked("", 0, 0) == NATIVE_FORMAT
    assert AudioFormat(Encoding.PCM_S16LE, 24_000, 1) == NATIVE_FORMAT
    assert NATIVE_FORMAT.byte_rate == NATIVE_BYTE_RATE == 48_000


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(Encoding), st.integers(8_000, 48_000), st.integers(1, 2))
def test_every_encoding_comes_at_any_rate_in_mono_and_stereo(encoding, rate_hz, channels):
    fmt = AudioFormat.checked(encoding, rate_hz, channels)
    assert fmt == AudioFormat(encoding, rate_hz, channels)
    assert fmt.byte_rate == fmt.frame_bytes * rate_hz


@pytest.mark.parametrize(
    ("encoding", "channels", "frame_bytes"),
    [
        ("PCM_S16LE", 1, 2),
        ("PCM_S16LE", 2, 4),
        ("PCM_F32LE", 1, 4),
        ("PCM_F32LE", 2, 8),
        ("MULAW", 1, 1),
        ("ALAW", 2, 2),
    ],
)
def test_a_frame_is_one_sample_over_all_channels(encoding, channels, frame_bytes):
    assert AudioFormat.checked(encoding, 16_000, channels).frame_bytes == frame_bytes


def _refusal(*args) -> AudioFormatUnsupported:
    with pytest.raises(AudioFormatUnsupported) as refused:
        AudioFormat.checked(*args)
    return refused.value


@pytest.mark.parametrize("encoding", ["OPUS", "7", "pcm_s16le"])
def test_an_unknown_encoding_is_refused_with_those_that_are_taken(encoding):
    refusal = _refusal(encoding)
    assert refusal.field == "header.format.encoding"
    assert refusal.metadata == {
        "encoding": encoding,
        "supported_encodings": "PCM_S16LE, PCM_F32LE, MULAW, ALAW",
    }
    assert all(value in refusal.message for value in refusal.metadata.values())


@pytest.mark.parametrize("rate_hz", [-1, 1, 7_999, 48_001, 96_000])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_rate_outside_the_range_is_refused_with_the_range(encoding, rate_hz):
    refusal = _refusal(encoding, rate_hz)
    assert refusal.field == "header.format.sample_rate_hz"
    assert refusal.metadata == {
        "sample_rate_hz": str(rate_hz),
        "min_sample_rate_hz": "8000",
        "max_sample_rate_hz": "48000",
    }
    assert all(value in refusal.message for value in refusal.metadata.values())


@pytest.mark.parametrize("channels", [-1, 3, 6])
def test_more_than_two_channels_are_refused(channels):
    refusal = _refusal(Encoding.PCM_S16LE, 24_000, channels)
    assert refusal.field == "header.format.channel_count"
    assert refusal.metadata == {
        "channel_count": str(channels),
        "min_channel_count": "1",
        "max_channel_count": "2",
    }
    assert all(value in refusal.message for value in refusal.metadata.values())


@pytest.mark.parametrize("encoding", Encoding)
def test_a_format_is_found_by_its_name(encoding):
    audio_format = AudioFormat(encoding, 44_100, 2)
    assert AudioFormat.named(audio_format.name) == audio_format


@pytest.mark.parametrize("name", ["", "OPUS 48000 Hz 2 ch", "PCM_S16LE fast Hz 1 ch", "PCM_S16LE 24000 Hz 1"])
def test_a_name_of_no_format_is_refused(name):
    with pytest.raises(ValueError, match=r".+"):
        AudioFormat.named(name)
