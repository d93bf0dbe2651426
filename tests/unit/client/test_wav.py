import contextlib
import io
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar.gateway import AudioEncoding, AudioFormat, WavError
from liveavatar.gateway.wav import WavReader, is_wav

PCM = 1


def fmt(tag=PCM, channels=1, rate=24_000, bits=16, extension=b""):
    frame = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits) + extension


def riff(*chunks, kind=b"RIFF", form=b"WAVE"):
    body = form
    for name, content, *size in chunks:
        body += name + struct.pack("<I", size[0] if size else len(content)) + content
        body += b"\0" * (len(content) % 2)
    return kind + struct.pack("<I", len(body)) + body


def read(tmp_path, content):
    path = tmp_path / "said.wav"
    path.write_bytes(content)
    with WavReader.open(path) as reader:
        found = reader.format, b"".join(reader.samples())
        assert reader.duration == reader.format.duration(len(found[1]))
    return found


class Dripping(io.RawIOBase):
    """A pipe: it cannot seek, and brings a few bytes at a time."""

    def __init__(self, content, piece_bytes):
        self._content, self._piece_bytes = content, piece_bytes

    def readable(self):
        return True

    def readinto(self, buffer):
        size = min(len(buffer), self._piece_bytes, len(self._content))
        buffer[:size], self._content = self._content[:size], self._content[size:]
        return size


def piped(content, piece_bytes=7, head_bytes=0):
    pipe = io.BufferedReader(Dripping(content, piece_bytes))
    head = pipe.read(head_bytes)
    with WavReader(pipe, "the pipe", head=head) as reader:
        return reader.format, b"".join(reader.samples())


@pytest.mark.parametrize(
    ("tag", "bits", "encoding"),
    [
        (1, 16, AudioEncoding.PCM_S16LE),
        (3, 32, AudioEncoding.PCM_F32LE),
        (6, 8, AudioEncoding.ALAW),
        (7, 8, AudioEncoding.MULAW),
    ],
)
def test_the_format_is_the_files(tmp_path, tag, bits, encoding):
    content = riff((b"fmt ", fmt(tag, 2, 44_100, bits)), (b"data", bytes(64)))
    found, data = read(tmp_path, content)
    assert found == AudioFormat(encoding=encoding, sample_rate_hz=44_100, channel_count=2)
    assert data == bytes(64)


def test_an_extensible_header_says_it_further_back(tmp_path):
    guid = struct.pack("<HHIH", 22, 32, 3, 3) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    found, _ = read(tmp_path, riff((b"fmt ", fmt(0xFFFE, 1, 16_000, 32, guid)), (b"data", bytes(8))))
    assert found.encoding is AudioEncoding.PCM_F32LE


def test_other_chunks_are_skipped(tmp_path):
    """Also odd ones, which are padded, before and after the samples."""
    content = riff(
        (b"LIST", b"odd"), (b"fmt ", fmt()), (b"fact", bytes(4)), (b"data", b"abcd"), (b"id3 ", b"tail")
    )
    assert read(tmp_path, content)[1] == b"abcd"


def int_samples(values, size_bytes):
    return b"".join(value.to_bytes(size_bytes, "little", signed=True) for value in values)


@pytest.mark.parametrize(
    ("bits", "data", "heard"),
    [
        (8, bytes([0, 1, 127, 128, 129, 255]), [-32768, -32512, -256, 0, 256, 32512]),
        (24, int_samples([-(1 << 23), -256, -1, 0, 255, 256, (1 << 23) - 1], 3), [-32768, -1, -1, 0, 0, 1, 32767]),
        (32, int_samples([-(1 << 31), -1, 0, 1 << 16, (1 << 31) - 1], 4), [-32768, -1, 0, 1, 32767]),
        (20, int_samples([-(1 << 23), 0, 256], 3), [-32768, 0, 1]),
    ],
)
@pytest.mark.parametrize("extensible", [False, True])
def test_samples_of_other_sizes_are_given_with_16_bits(tmp_path, bits, data, heard, extensible):
    guid = struct.pack("<HHIH", 22, bits, 4, 1) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    header = fmt(0xFFFE, 1, 16_000, bits, guid) if extensible else fmt(bits=bits, rate=16_000)
    content = riff((b"fmt ", header), (b"data", data))
    for found, spoken in (read(tmp_path, content), piped(content)):
        assert found == AudioFormat(sample_rate_hz=16_000)
        assert spoken == struct.pack(f"<{len(heard)}h", *heard)


@pytest.mark.parametrize(
    "unknown", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF000, 0x80000000, 0xFFFFFFFF - 44, 7]
)
@pytest.mark.parametrize("riff_bytes", [0, 36, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_size_that_cannot_be_true_means_to_the_end(tmp_path, unknown, riff_bytes):
    content = bytearray(riff((b"fmt ", fmt()), (b"data", b"abcd", unknown)))
    content[4:8] = struct.pack("<I", riff_bytes)
    assert read(tmp_path, bytes(content))[1] == b"abcd"
    assert piped(bytes(content))[1] == b"abcd"


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 1_000])
@pytest.mark.parametrize("head_bytes", [0, 4, 5])
def test_a_pipe_is_read_without_a_way_back(piece_bytes, head_bytes):
    content = riff((b"LIST", b"odd"), (b"fmt ", fmt(channels=2)), (b"data", b"abcdefgh"), (b"id3 ", b"tail"))
    assert is_wav(content)
    assert piped(content, piece_bytes, head_bytes) == (AudioFormat(channel_count=2), b"abcdefgh")


def test_a_pipe_that_ends_early_is_spoken_as_far_as_it_came():
    assert piped(riff((b"fmt ", fmt()), (b"data", b"abcd", 1_000)) + b"e")[1] == b"abcd"


def test_a_pipe_is_spoken_as_it_comes(tmp_path):
    """Its first samples are given before its last ones are there."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as source:
        source.write(riff((b"fmt ", fmt()), (b"data", b"", 0xFFFFFFFF)) + b"abcdefg")
        with WavReader.open(Path(f"/dev/fd/{reading}")) as reader:
            os.close(reading)
            assert reader.duration is None
            pieces = reader.samples()
            assert next(pieces) == b"abcdef"
            source.write(b"h")
            assert next(pieces) == b"gh"


@pytest.mark.parametrize("unknown", [0, 0xFFFFFFFF])
def test_a_size_nobody_knew_means_to_the_end(tmp_path, unknown):
    """A program that writes to a pipe cannot go back to fill it in."""
    assert read(tmp_path, riff((b"fmt ", fmt()), (b"data", b"abcde", unknown)))[1] == b"abcdef"[:4] + b"e\0"


def test_a_large_file_says_its_size_elsewhere(tmp_path):
    sizes = struct.pack("<QQQI", 100, 4, 2, 0)
    content = riff(
        (b"ds64", sizes), (b"fmt ", fmt()), (b"data", b"abcd", 0xFFFFFFFF), (b"LIST", b"noise"), kind=b"RF64"
    )
    assert read(tmp_path, content)[1] == b"abcd"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "truncated"),
        (b"ID3\x04" + bytes(100), "not a WAV file"),
        (b"RIFF\0\0\0\0AVI " + bytes(100), "not a WAV file"),
        (riff((b"fmt ", fmt())), "contains none"),
        (riff((b"data", b"abcd")), "precede their format"),
        (riff((b"fmt ", fmt(bits=64)), (b"data", bytes(16))), "64-bit PCM"),
        (riff((b"fmt ", fmt(tag=3, bits=64)), (b"data", bytes(16))), "64-bit float"),
        (riff((b"fmt ", fmt(tag=0x55)), (b"data", bytes(6))), "format 0x0055"),
        (riff((b"fmt ", fmt(rate=0)), (b"data", bytes(6))), "damaged"),
        (riff((b"fmt ", b"short")), "damaged"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_name(tmp_path, content, said):
    path = tmp_path / "said.wav"
    path.write_bytes(content)
    with pytest.raises(WavError, match=said) as raised:
        WavReader.open(path)
    assert str(path) in str(raised.value)


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path):
    path = tmp_path / "said.wav"
    path.write_bytes(riff((b"fmt ", fmt()), (b"data", bytes(200_000))))
    with WavReader.open(path) as reader:
        pieces = reader.samples()
        next(pieces)
        path.write_bytes(b"")
        with pytest.raises(WavError, match="shorter"):
            list(pieces)


def test_half_a_sample_at_the_end_is_left_out(tmp_path):
    assert read(tmp_path, riff((b"fmt ", fmt()), (b"data", b"abcde")))[1] == b"abcd"


@given(st.binary(max_size=300))
def test_nothing_else_is_ever_raised(tmp_path_factory, noise):
    path = tmp_path_factory.mktemp("fuzz") / "said.wav"
    path.write_bytes(b"RIFF\0\0\0\0WAVE" + noise)
    with contextlib.suppress(WavError), WavReader.open(path) as reader:
        list(reader.samples())
    with contextlib.suppress(WavError):
        piped(path.read_bytes())
