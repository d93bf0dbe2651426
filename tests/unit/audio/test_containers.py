"""Containers: files are told from raw samples, and raw samples are never taken for files."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.audio.containers import detect_container, may_be_container

_MAGIC_HEADS = {
    b"RIFF\x24\x08\x00\x00WAVEfmt ": "WAV",
    b"RIFX\x00\x00\x08\x24WAVEfmt ": "WAV",
    b"RF64\xff\xff\xff\xffWAVEds64": "WAV",
    b"ID3\x04\x00\x00\x00\x00\x00\x23TSSE": "MP3",
    b"OggS\x00\x02\x00\x00\x00\x00\x00\x00": "Ogg",
    b"fLaC\x00\x00\x00\x22\x10\x00\x10\x00": "FLAC",
    b"FORM\x00\x00\x10\x00AIFFCOMM": "AIFF",
    b"FORM\x00\x00\x10\x00AIFCFVER": "AIFF",
    b".snd\x00\x00\x00\x18\x00\x00\x10\x00": "AU",
    b"caff\x00\x01\x00\x00desc": "Core Audio",
    b"\x00\x00\x00\x20ftypM4A \x00\x00\x02\x00": "MP4",
    b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81": "WebM",
    b"OpusHead\x01\x01\x38\x01\x80\xbb": "Opus",
    b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb": "WAV",
    b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa": "WMA",
    b"ADIF\x30\x00\x1f\x40\x00\x00\x00\x00": "AAC",
    b"#!AMR\n\x3c\x08\x00\x00\x00\x00": "AMR",
    b"wvpk\x3c\x08\x00\x00\x10\x04\x00\x00": "WavPack",
    b"MAC \x96\x0f\x00\x00\x34\x00\x00\x00": "Monkey's Audio",
    b"TTA1\x01\x00\x01\x00\x10\x00\x00\x00": "TTA",
    b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00": "FLV",
    b"MThd\x00\x00\x00\x06\x00\x01\x00\x02": "MIDI",
    b"\x00\x1b\x8a\x10moov\x00\x00\x00\x6c": "MP4",
    b"\x00\x00\x00\x01mdat\x00\x00\x00\x00": "MP4",
    b"\x00\x00\x00\x08wide\x00\x12\x34\x56": "MP4",
    b"\x00\x00\x00\x08free\x00\x12\x34\x56": "MP4",
    b"\x00\x00\x00\x08skip\x00\x12\x34\x56": "MP4",
}


@pytest.mark.parametrize(("head", "name"), _MAGIC_HEADS.items())
def test_a_file_is_known_by_its_magic_word(head, name):
    assert detect_container(head) == name
    assert detect_container(head + bytes(4_000)) == name


@pytest.mark.parametrize("size_bytes", range(4, 17))
def test_a_wav_header_is_known_however_little_of_it_the_first_chunk_holds(size_bytes):
    assert detect_container(b"RIFF\x24\x08\x00\x00WAVEfmt "[:size_bytes]) == "WAV"


def test_another_file_in_a_riff_envelope_is_refused_too():
    assert detect_container(b"RIFF\x24\x08\x00\x00AVI LIST") == "RIFF"


@pytest.mark.parametrize("head", [b"", b"R", b"RIF", b"\xff\xfb\x90"])
def test_nothing_is_claimed_below_four_bytes(head):
    assert detect_container(head) is None


@pytest.mark.parametrize("head", [b"FORM", b"FORM\x00\x00\x10\x00ILBM", b"ID3\x07", b"\x7f\xff\xff\xffftypM4A "])
def test_half_a_match_is_raw_audio(head):
    assert detect_container(head) is None


def _mpeg_header(version: int, layer: int, bitrate: int, rate: int, padding: int) -> bytes:
    return bytes((0xFF, 0xE1 | version << 3 | layer << 1, bitrate << 4 | rate << 2 | padding << 1, 0x44))


# (version bits, layer bits, bitrate index, rate index, frame size without padding), sizes from the standard's
# formula worked by hand: 144 * bit rate / sample rate, and 72 * for layer III of MPEG-2.
_MPEG_FRAMES = [
    (0b11, 0b01, 9, 0, 417),  # 128 kbit/s, 44.1 kHz
    (0b11, 0b01, 14, 1, 960),  # 320 kbit/s, 48 kHz
    (0b11, 0b10, 8, 1, 384),  # layer II, 128 kbit/s, 48 kHz
    (0b10, 0b01, 8, 1, 192),  # MPEG-2, 64 kbit/s, 24 kHz
    (0b10, 0b10, 8, 0, 417),  # MPEG-2 layer II, 64 kbit/s, 22.05 kHz
    (0b00, 0b01, 4, 2, 288),  # MPEG-2.5, 32 kbit/s, 8 kHz
]


@pytest.mark.parametrize(("version", "layer", "bitrate", "rate", "size_bytes"), _MPEG_FRAMES)
def test_bare_mp3_is_known_by_frames_that_chain_up(version, layer, bitrate, rate, size_bytes):
    stream = b""
    for padding in (1, 0, 0, 1):
        frame = _mpeg_header(version, layer, bitrate, rate, padding)
        stream += frame + random.Random(padding).randbytes(size_bytes + padding - len(frame))
    assert detect_container(stream) == "MP3"
    assert detect_container(stream[: size_bytes + 1 + 7]) == "MP3", "one frame and the next header are enough"
    assert detect_container(stream[:size_bytes]) is None, "one frame alone proves nothing"
    shifted = stream[:200] + b"\x00" + stream[200:]
    assert detect_container(shifted) is None, "the second header is not where the first one says"


def test_frames_of_another_sample_rate_are_not_a_stream():
    frame = _mpeg_header(0b11, 0b01, 9, 0, 0)
    assert detect_container(frame + bytes(413) + _mpeg_header(0b11, 0b01, 9, 1, 0) + bytes(400)) is None


def _adts(size_bytes: int, *, rate_index: int = 6) -> bytes:
    header = struct.pack(
        ">7B",
        0xFF,
        0xF1,
        1 << 6 | rate_index << 2,
        1 << 6 | size_bytes >> 11,
        size_bytes >> 3 & 0xFF,
        (size_bytes & 7) << 5 | 0x1F,
        0xFC,
    )
    return header + random.Random(size_bytes).randbytes(size_bytes - len(header))


def test_adts_aac_is_known_by_frames_that_chain_up():
    assert detect_container(_adts(211) + _adts(187) + _adts(230)) == "AAC"
    assert detect_container(_adts(211) + _adts(187)[:7]) == "AAC"
    assert detect_container(_adts(211)) is None
    assert detect_container(_adts(211) + _adts(187, rate_index=3)) is None
    assert detect_container(_adts(211) + b"\x00" + _adts(187)) is None
    assert detect_container(_adts(211, rate_index=14) + _adts(187, rate_index=14)) is None


def _first_verdict(stream: bytes) -> tuple[int, str | None]:
    """Return after how many bytes, coming one by one, it is decided, and on what."""
    size = next(size for size in range(len(stream) + 1) if not may_be_container(stream[:size]))
    return size, detect_container(stream[:size])


@pytest.mark.parametrize(("head", "name"), _MAGIC_HEADS.items())
def test_a_file_that_comes_byte_by_byte_is_known_as_soon_as_its_magic_word_is_there(head, name):
    size, found = _first_verdict(head + bytes(4_000))
    assert found == name
    assert 4 <= size <= 12


@pytest.mark.parametrize(("version", "layer", "bitrate", "rate", "size_bytes"), _MPEG_FRAMES)
def test_bare_mpeg_frames_that_come_byte_by_byte_are_known_with_the_second_header(
    version, layer, bitrate, rate, size_bytes
):
    frame = _mpeg_header(version, layer, bitrate, rate, 0) + bytes(size_bytes - 4)
    assert _first_verdict(frame * 3) == (size_bytes + 7, "MP3")


def test_bare_adts_frames_that_come_byte_by_byte_are_known_with_the_second_header():
    assert _first_verdict(_adts(211) + _adts(187) + _adts(230)) == (211 + 7, "AAC")


@pytest.mark.parametrize("byte", [0x00, 0x7F, 0xD5, 0x55, 0xFE, 0xFB, 0x80, 0xFF])
def test_silence_is_told_from_a_file_within_eight_bytes(byte):
    size, found = _first_verdict(bytes((byte,)) * 4_800)
    assert found is None
    assert size <= 8


@given(st.binary(min_size=8, max_size=8))
def test_speech_waits_for_its_first_eight_bytes_at_most_unless_it_begins_like_a_file(start):
    if start[0] == 0xFF or start[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return
    assert not may_be_container(start)


def test_what_begins_like_a_frame_is_decided_within_the_longest_frame():
    for seed in range(300):
        noise = b"\xff\xfb\x90\x44" + random.Random(seed).randbytes(4_800)
        size, found = _first_verdict(noise)
        assert found is None
        assert size <= 2_048 + 7


def test_raw_audio_that_starts_like_an_mpeg_frame_is_raw_audio():
    """Bytes 0xFF 0xFB are the 16-bit sample -1025, a common one."""
    for seed in range(500):
        noise = random.Random(seed).randbytes(4_800)
        for start in (
            b"\xff\xfb",
            b"\xff\xf3",
            b"\xff\xf1",
            b"\xff\xfb\x90\x44",
            b"\xff\xf1\x50\x80\x1a\x7f\xfc",
        ):
            assert detect_container(start + noise) is None


@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x7F, 0xD5, 0x55, 0xFE, 0xFB])
def test_silence_and_constant_levels_are_raw_audio(byte):
    assert detect_container(bytes((byte,)) * 4_800) is None
    assert detect_container(bytes((0xFF, byte)) * 2_400) is None


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=64))
def test_no_bytes_break_it(head):
    assert detect_container(head) in {None, "RIFF", *_MAGIC_HEADS.values()}
