import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar.gateway import AudioEncoding, AudioFormat, WavError
from liveavatar.gateway.wav import probe, samples

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
    info = probe(path)
    return info.format, b"".join(samples(path, info))


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
        (b"", "cut short"),
        (b"ID3\x04" + bytes(100), "no WAV file"),
        (b"RIFF\0\0\0\0AVI " + bytes(100), "no WAV file"),
        (riff((b"fmt ", fmt())), "holds none"),
        (riff((b"data", b"abcd")), "before their format"),
        (riff((b"fmt ", fmt(bits=24)), (b"data", bytes(6))), "24-bit PCM"),
        (riff((b"fmt ", fmt(tag=0x55)), (b"data", bytes(6))), "format 0x0055"),
        (riff((b"fmt ", fmt(rate=0)), (b"data", bytes(6))), "damaged"),
        (riff((b"fmt ", b"short")), "damaged"),
        (riff((b"fmt ", fmt()), (b"data", b"abcd", 100)), "cut short"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_name(tmp_path, content, said):
    path = tmp_path / "said.wav"
    path.write_bytes(content)
    with pytest.raises(WavError, match=said) as raised:
        probe(path)
    assert str(path) in str(raised.value)


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path):
    path = tmp_path / "said.wav"
    path.write_bytes(riff((b"fmt ", fmt()), (b"data", bytes(200_000))))
    info = probe(path)
    pieces = samples(path, info)
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
    with contextlib.suppress(WavError):
        probe(path)
