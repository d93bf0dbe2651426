"""WAV files: what is written is read back, what is not taken is refused with advice."""

import struct
import wave
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liveavatar_gateway.audio.formats import NATIVE_FORMAT, AudioFormat, Encoding
from liveavatar_gateway.audio.wav import WavError, read_wav, write_wav

_TAGS = {
    Encoding.PCM_S16LE: (1, 16),
    Encoding.PCM_F32LE: (3, 32),
    Encoding.ALAW: (6, 8),
    Encoding.MULAW: (7, 8),
}
_one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def _chunk(name: bytes, body: bytes, *, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def _format(tag: int, bits: int, rate_hz: int = 24_000, channels: int = 1) -> bytes:
    frame = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * frame, frame, bits)


def _wav(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "speech.wav"
    path.write_bytes(data)
    return path


@_one_file
@given(samples=st.binary(max_size=2_000))
def test_what_is_written_is_read_back(tmp_path, samples):
    pcm = samples[: len(samples) // 2 * 2]
    path = tmp_path / "speech.wav"
    write_wav(path, pcm)
    assert read_wav(path) == (NATIVE_FORMAT, pcm)


@_one_file
@given(
    fmt=st.builds(AudioFormat, st.sampled_from(Encoding), st.integers(8_000, 48_000), st.integers(1, 2)),
    frames=st.integers(0, 50),
    data=st.data(),
)
def test_every_format_that_calls_take_is_read(tmp_path, fmt, frames, data):
    size = frames * fmt.frame_bytes
    samples = data.draw(st.binary(min_size=size, max_size=size))
    tag, bits = _TAGS[fmt.encoding]
    note = _chunk(b"LIST", data.draw(st.binary(max_size=9)))
    header = _chunk(b"fmt ", _format(tag, bits, fmt.rate_hz, fmt.channels))
    path = _file(tmp_path, _wav(note, header, note, _chunk(b"data", samples), note))
    assert read_wav(path) == (fmt, samples)


def test_files_of_the_standard_library_are_read(tmp_path):
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 44_100, 0, "NONE", ""))
        file.writeframes(b"\x01\x02\x03\x04" * 10)
    assert read_wav(path) == (AudioFormat(Encoding.PCM_S16LE, 44_100, 2), b"\x01\x02\x03\x04" * 10)


def test_what_is_written_is_a_wav_of_the_standard_library(tmp_path):
    path = tmp_path / "speech.wav"
    write_wav(path, b"\x01\x02" * 10)
    with wave.open(str(path)) as file:
        assert file.getparams()[:4] == (1, 2, 24_000, 10)
        assert file.readframes(10) == b"\x01\x02" * 10


def test_the_extensible_header_is_read(tmp_path):
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    extensible = _format(0xFFFE, 16, 48_000, 2) + struct.pack("<HHI", 22, 16, 3) + guid
    path = _file(tmp_path, _wav(_chunk(b"fmt ", extensible), _chunk(b"data", bytes(8))))
    assert read_wav(path) == (AudioFormat(Encoding.PCM_S16LE, 48_000, 2), bytes(8))


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 1_000])
def test_an_unfinished_file_is_read_as_far_as_it_goes(tmp_path, size):
    path = _file(
        tmp_path, _wav(_chunk(b"fmt ", _format(1, 16)), _chunk(b"data", b"\x01\x02\x03\x04\x05", size=size))
    )
    fmt, samples = read_wav(path)
    assert fmt == NATIVE_FORMAT
    assert samples[:4] == b"\x01\x02\x03\x04"
    assert len(samples) % 2 == 0


_DATA = _chunk(b"data", bytes(8))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no WAV file.*ffmpeg"),
        (b"ID3\x04 and so on", "is no WAV file.*ffmpeg"),
        (b"RIFF\x24\x08\x00\x00AVI LIST", "is no WAV file"),
        (_wav(_chunk(b"fmt ", _format(1, 24)), _DATA), "24-bit PCM.*ffmpeg"),
        (_wav(_chunk(b"fmt ", _format(17, 4)), _DATA), "IMA ADPCM"),
        (_wav(_chunk(b"fmt ", _format(0x1234, 16)), _DATA), "format 0x1234"),
        (_wav(_chunk(b"fmt ", _format(1, 16, 96_000)), _DATA), "96000 Hz.*8000 to 48000"),
        (_wav(_chunk(b"fmt ", _format(1, 16, 24_000, 6)), _DATA), "6 channels"),
        (_wav(_chunk(b"fmt ", _format(1, 16, 0)), _DATA), "damaged: 0 Hz"),
        (_wav(_chunk(b"fmt ", _format(1, 16, 24_000, 0)), _DATA), "0 channels"),
        (_wav(_chunk(b"fmt ", b"\x01\x00"), _DATA), "2 bytes instead of 16"),
        (_wav(_DATA), "samples come before their format"),
        (_wav(_chunk(b"fmt ", _format(1, 16))), "has no samples"),
    ],
)
def test_what_is_not_taken_is_refused_with_advice(tmp_path, data, said):
    with pytest.raises(WavError, match=said):
        read_wav(_file(tmp_path, data))


@_one_file
@given(tail=st.binary(max_size=60))
def test_no_damage_is_worse_than_a_wav_error(tmp_path, tail):
    path = _file(tmp_path, b"RIFF\x24\x00\x00\x00WAVE" + tail)
    try:
        fmt, samples = read_wav(path)
    except WavError:
        return
    assert len(samples) % fmt.frame_bytes == 0


def test_half_a_sample_is_not_written(tmp_path):
    with pytest.raises(WavError, match="3 bytes"):
        write_wav(tmp_path / "speech.wav", bytes(3))
