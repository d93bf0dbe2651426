"""The demo's WAV files: what is written is read back, and what it could not speak is refused."""

import wave

import pytest

from liveavatar_demo import recordings, run
from liveavatar_gateway.audio.formats import NATIVE_FORMAT


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "not" / "there" / "yet.wav"
    recordings.write(path, b"\x01\x02" * 100)
    assert recordings.read(path) == (NATIVE_FORMAT, b"\x01\x02" * 100)


@pytest.mark.parametrize("path", [run.GREETING, run.STORY])
def test_the_shipped_recordings_need_resampling_and_last_6_to_10_seconds(path):
    audio_format, samples = recordings.read(path)
    assert (audio_format.rate_hz, audio_format.channels) == (22_050, 1)
    assert 6 <= len(samples) / audio_format.byte_rate <= 10


def test_a_file_of_other_samples_is_refused(tmp_path):
    path = tmp_path / "eight.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(bytes(10))
    with pytest.raises(ValueError, match="8 bits"):
        recordings.read(path)
