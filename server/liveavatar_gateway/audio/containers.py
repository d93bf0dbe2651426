"""Detection of file formats, so that a file header is refused instead of spoken as noise.

Magic words of four or more bytes are sufficient: by chance they start one utterance in four billion. Formats with
only a bit pattern (bare MP3 and AAC) need two consistent frame headers in a row, because `0xFF 0xFB` is valid raw
audio; audio shorter than one frame is never classified as such a format.

The first chunk may have any size, so `may_be_container` reports if more bytes are needed. Silence and nearly all
speech need at most 8 bytes; only audio that begins like an MP3 or AAC frame needs the next frame, at most 2 kB.

Sources: EBU Tech 3306 (RIFF, RF64), id3.org (ID3v2), ISO/IEC 11172-3 and 13818-3 (MPEG audio frames), ISO/IEC
13818-7 (ADTS), RFC 3533 (Ogg), RFC 7845 (Opus), RFC 9639 (FLAC), RFC 8794 (EBML), ISO/IEC 14496-12 (ftyp),
Apple's QuickTime File Format (moov, mdat, wide, free, skip), RFC 4867 (AMR).
"""

from collections.abc import Callable
from typing import Final

_FRAMES_CHECKED = 3
"""Number of frame headers to check if the chunk is long enough; two are required."""

_RIFF: Final = frozenset({b"RIFF", b"RIFX", b"RF64", b"BW64"})
_FORM: Final = b"FORM"
_FORM_BYTES: Final = 12
"""Size of an envelope (RIFF, FORM) up to the name of its content."""
_MAGIC: Final = {
    b"OggS": "Ogg",
    b"OpusHead": "Opus",
    b"fLaC": "FLAC",
    b".snd": "AU",
    b"caff": "Core Audio",
    b"\x1aE\xdf\xa3": "WebM",
    b"riff\x2e\x91\xcf\x11": "WAV",  # Sony Wave64: the first half of its GUID
    b"0&\xb2u\x8ef\xcf\x11": "WMA",  # ASF: the first half of its GUID
    b"ADIF": "AAC",
    b"#!AMR": "AMR",
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"TTA1": "TTA",
    b"FLV\x01": "FLV",
    b"MThd": "MIDI",
}
_ID3: Final = b"ID3"
_ID3_VERSIONS: Final = (2, 3, 4)
_LARGEST_FTYP_BYTES = 1024
_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""First boxes of MP4 and QuickTime files; each follows its size, whose first byte is 0."""
_BOX_BYTES: Final = 8
_LONGEST_FRAME_BYTES: Final = 2048
"""Upper bound of MPEG audio frames (1729) and of stereo ADTS frames (1543)."""

# kbit/s by bitrate index from 1 to 14, ISO/IEC 11172-3 and 13818-3, table B.1; 0 ("free") and 15 are refused.
_MPEG1_LAYER2: Final = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_MPEG1_LAYER3: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_LAYER23: Final = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG1_RATES_HZ: Final = (44_100, 48_000, 32_000)
_RATE_DIVISOR: Final = {0b11: 1, 0b10: 2, 0b00: 4}  # MPEG-1, MPEG-2, MPEG-2.5

_ADTS_RATES = 13
_ADTS_HEADER_BYTES = 7


def may_be_container(head: bytes) -> bool:
    """Return True if more bytes are needed to distinguish a file from raw samples.

    Args:
        head: First bytes of an utterance, of any number.
    """
    size = len(head)
    if head[:1] == b"\xff":
        return _may_be_frames(head, _mpeg_frame) or _may_be_frames(head, _adts_frame)
    if size >= 4 and (head[:4] in _RIFF or head[:4] == _FORM):
        return size < _FORM_BYTES
    words = (*_MAGIC, *_RIFF, _FORM)
    if any(size < len(word) and word.startswith(head) for word in words):
        return True
    if size < 4:
        return _ID3.startswith(head) or head[:1] == b"\0"
    return head[0] == 0 and size < _BOX_BYTES and any(box.startswith(head[4:]) for box in _BOXES)


def detect_container(head: bytes) -> str | None:
    """Return the name of the file format with which an utterance starts; None for raw samples.

    Cheap enough for each utterance: checks a few bytes, and after `0xFF` two or three frame headers.

    Args:
        head: First bytes of an utterance. Four suffice for most formats (`RIFF` alone counts as WAV), MP4 needs 8,
            AIFF 12, bare MP3 and AAC a frame and the next header. Fewer than four count as raw samples.
    """
    if len(head) < 4:
        return None
    return _by_frames(head) if head[0] == 0xFF else _by_magic(head)


def _by_magic(head: bytes) -> str | None:
    """Return the name of a format that starts with a magic word."""
    magic = bytes(head[:4])
    name = next((name for word, name in _MAGIC.items() if head.startswith(word)), None)
    if magic in _RIFF:
        name = _riff(head)
    elif magic[:3] == _ID3 and magic[3] in _ID3_VERSIONS:
        name = "MP3"
    elif magic == _FORM and head[8:12] in (b"AIFF", b"AIFC"):
        name = "AIFF"
    elif head[0] == 0 and head[4:8] in _BOXES:
        size_bytes = int.from_bytes(magic, "big")
        name = "MP4" if head[4:8] != b"ftyp" or size_bytes <= _LARGEST_FTYP_BYTES else None
    return name


def _by_frames(head: bytes) -> str | None:
    """Return the name of a format that consists of frames."""
    if _frames_in_a_row(head, _mpeg_frame):
        return "MP3"
    if _frames_in_a_row(head, _adts_frame):
        return "AAC"
    return None


def _riff(head: bytes) -> str:
    """Return WAV or another RIFF format; a head that is too short counts as WAV, the most common format."""
    form = bytes(head[8:12])
    return "WAV" if b"WAVE".startswith(form) else "RIFF"


def _frames_in_a_row(head: bytes, parse: Callable[[bytes], tuple[int, int] | None]) -> bool:
    """Return True if frame headers follow one another from the start, each at the size of the last, and agree."""
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


def _may_be_frames(head: bytes, parse: Callable[[bytes], tuple[int, int] | None]) -> bool:
    """Return True after one valid frame header if the next header is incomplete."""
    at = first_kind = 0
    for number in range(2):
        header = bytes(head[at : at + _ADTS_HEADER_BYTES])
        if len(header) < _ADTS_HEADER_BYTES:
            return at <= _LONGEST_FRAME_BYTES and _may_begin_frame(header, parse)
        frame = parse(header)
        if frame is None or (number and frame[0] != first_kind):
            return False
        first_kind = frame[0]
        at += frame[1]
    return False


def _may_begin_frame(header: bytes, parse: Callable[[bytes], tuple[int, int] | None]) -> bool:
    """Return True if incomplete bytes can begin a frame header."""
    if len(header) < 4:
        return header[:1] in (b"", b"\xff") and (len(header) < 2 or header[1] & 0xE0 == 0xE0)
    return parse(header.ljust(_ADTS_HEADER_BYTES, b"\xff")) is not None


def _mpeg_frame(header: bytes) -> tuple[int, int] | None:
    """Parse an MPEG audio header of layer II or III; return the shared fields and the frame's size.

    Layer I is excluded: it is not in use, and silence in mu-law (`0xFF 0xFF`) looks like its start.
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
    """Parse an ADTS header; return the shared fields (profile, rate, channels) and the frame's size."""
    if header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    profile, rate_index = header[2] >> 6, header[2] >> 2 & 0xF
    channels = (header[2] & 1) << 2 | header[3] >> 6
    size_bytes = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    if rate_index >= _ADTS_RATES or size_bytes <= _ADTS_HEADER_BYTES:
        return None
    return profile << 8 | rate_index << 4 | channels, size_bytes
