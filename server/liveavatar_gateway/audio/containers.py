"""Tells files from raw samples, so that a header is refused instead of spoken as noise.

Magic words of four bytes and more are believed as they are, also when nothing follows them: by chance they
start one utterance in four billion. Formats that are known by a bit pattern only (bare MP3 and AAC) need two
frame headers in a row that agree, because `0xFF 0xFB` is a perfectly good pair of bytes in raw audio; a chunk
shorter than one frame is never taken for one of these.

Sources: EBU Tech 3306 (RIFF, RF64), id3.org (ID3v2), ISO/IEC 11172-3 and 13818-3 (MPEG audio frames), ISO/IEC
13818-7 (ADTS), RFC 3533 (Ogg), RFC 9639 (FLAC), RFC 8794 (EBML), ISO/IEC 14496-12 (ftyp).
"""

from collections.abc import Callable
from typing import Final

_FRAMES_CHECKED = 3
"""Frame headers that are looked at where the chunk holds that many; two are needed."""

_RIFF: Final = frozenset({b"RIFF", b"RIFX", b"RF64", b"BW64"})
_MAGIC: Final = {b"OggS": "Ogg", b"fLaC": "FLAC", b".snd": "AU", b"caff": "Core Audio", b"\x1aE\xdf\xa3": "WebM"}
_ID3_VERSIONS: Final = (2, 3, 4)
_LARGEST_FTYP_BYTES = 1024

# kbit/s by bitrate index from 1 to 14, ISO/IEC 11172-3 and 13818-3, table B.1; 0 ("free") and 15 are refused.
_MPEG1_LAYER2: Final = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_MPEG1_LAYER3: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_LAYER23: Final = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG1_RATES_HZ: Final = (44_100, 48_000, 32_000)
_RATE_DIVISOR: Final = {0b11: 1, 0b10: 2, 0b00: 4}  # MPEG-1, MPEG-2, MPEG-2.5

_ADTS_RATES = 13
_ADTS_HEADER_BYTES = 7


def detect_container(head: bytes) -> str | None:
    """Name the file format that a first chunk starts with, or None for raw samples.

    Cheap enough for each utterance: it looks at a few bytes, and after `0xFF` at two or three frame headers.

    Args:
        head: The first bytes of an utterance. Four are enough for most formats (`RIFF` alone counts as WAV),
            MP4 needs 8, AIFF 12, bare MP3 and AAC one frame and the next one's header. Below four all is raw.
    """
    if len(head) < 4:
        return None
    return _by_frames(head) if head[0] == 0xFF else _by_magic(head)


def _by_magic(head: bytes) -> str | None:
    """Name a format that starts with a word of its own."""
    magic = bytes(head[:4])
    name = _MAGIC.get(magic)
    if magic in _RIFF:
        name = _riff(head)
    elif magic[:3] == b"ID3" and magic[3] in _ID3_VERSIONS:
        name = "MP3"
    elif magic == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        name = "AIFF"
    elif head[4:8] == b"ftyp" and int.from_bytes(magic, "big") <= _LARGEST_FTYP_BYTES:
        name = "MP4"
    return name


def _by_frames(head: bytes) -> str | None:
    """Name a format that starts with a frame, and goes on with another."""
    if _frames_in_a_row(head, _mpeg_frame):
        return "MP3"
    if _frames_in_a_row(head, _adts_frame):
        return "AAC"
    return None


def _riff(head: bytes) -> str:
    """Tell WAV from the other files in a RIFF envelope; a head too short to say is WAV, as nearly all are."""
    form = bytes(head[8:12])
    return "WAV" if b"WAVE".startswith(form) else "RIFF"


def _frames_in_a_row(head: bytes, parse: Callable[[bytes], tuple[int, int] | None]) -> bool:
    """Whether frame headers chain up from the start: each sits where the one before says, and they agree."""
    at = seen = first_kind = 0
    while seen < _FRAMES_CHECKED:
        header = bytes(head[at : at + _ADTS_HEADER_BYTES])
        if len(header) < _ADTS_HEADER_BYTES:
            break
        frame = parse(header)
        if frame is None:
            return False
        kind, size_bytes = frame
        if seen and kind != first_kind:
            return False
        first_kind = kind
        seen += 1
        at += size_bytes
    return seen >= 2


def _mpeg_frame(header: bytes) -> tuple[int, int] | None:
    """Read an MPEG audio header of layer II or III: what all frames share, and this frame's size.

    Layer I is left out: nobody sends it, and silence in mu-law (`0xFF 0xFF`) looks like its start.
    """
    if header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate_index, rate_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    emphasis = header[3] & 3
    divisor = _RATE_DIVISOR.get(version)
    if (
        divisor is None
        or layer not in (0b01, 0b10)
        or not 1 <= bitrate_index <= 14
        or rate_index == 3
        or emphasis == 2
    ):
        return None
    layer3 = layer == 0b01
    if version == 0b11:
        kbit_s = (_MPEG1_LAYER3 if layer3 else _MPEG1_LAYER2)[bitrate_index - 1]
    else:
        kbit_s = _MPEG2_LAYER23[bitrate_index - 1]
    samples = 576 if layer3 and version != 0b11 else 1152
    size_bytes = samples // 8 * kbit_s * 1000 // (_MPEG1_RATES_HZ[rate_index] // divisor) + padding
    return version << 4 | layer << 2 | rate_index, size_bytes


def _adts_frame(header: bytes) -> tuple[int, int] | None:
    """Read an ADTS header: what all frames share (profile, rate, channels), and this frame's size."""
    if header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    profile, rate_index = header[2] >> 6, header[2] >> 2 & 0xF
    channels = (header[2] & 1) << 2 | header[3] >> 6
    size_bytes = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    if rate_index >= _ADTS_RATES or size_bytes <= _ADTS_HEADER_BYTES:
        return None
    return profile << 8 | rate_index << 4 | channels, size_bytes
