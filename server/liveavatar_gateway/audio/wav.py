"""Reads and writes WAV files for the command line and the demo; calls carry raw samples only.

The standard library's `wave` reads PCM alone, so a small chunk reader is here. Sources of the layout:
RFC 2361 and Microsoft's WAVEFORMATEXTENSIBLE.
"""

import struct
import wave
from pathlib import Path
from typing import Final

from liveavatar_gateway.audio.formats import NATIVE_RATE_HZ, AudioFormat, Encoding
from liveavatar_gateway.core.errors import AudioFormatUnsupported

_EXTENSIBLE: Final = 0xFFFE
_ENCODINGS: Final = {
    (1, 16): Encoding.PCM_S16LE,
    (3, 32): Encoding.PCM_F32LE,
    (6, 8): Encoding.ALAW,
    (7, 8): Encoding.MULAW,
}
_TAG_NAMES: Final = {1: "PCM", 2: "ADPCM", 3: "float", 6: "A-law", 7: "mu-law", 17: "IMA ADPCM", 85: "MP3"}


class WavError(ValueError):
    """A file is no WAV, or holds audio that the gateway does not take."""


def read_wav(path: Path) -> tuple[AudioFormat, bytes]:
    """Read a WAV file of 16-bit PCM, 32-bit float or 8-bit mu-law or A-law.

    A file that its recorder did not finish (a size left open or too large) is read as far as it goes.

    Returns:
        Its format and its raw samples, whole ones.

    Raises:
        WavError: It is none of these; the message says what it is and how to convert it.
        OSError: It cannot be read.
    """
    data = path.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise WavError(f"{path} is no WAV file; convert it: ffmpeg -i {path.name} -ar 24000 -ac 1 out.wav")
    fmt: AudioFormat | None = None
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        if name == b"fmt ":
            fmt = _read_format(path, body)
        elif name == b"data":
            if fmt is None:
                raise WavError(f"{path} is damaged: its samples come before their format")
            return fmt, body[: len(body) - len(body) % fmt.frame_bytes]
        at += 8 + size + size % 2  # chunks are padded to even sizes
    raise WavError(f"{path} is damaged: it has no samples")


def write_wav(path: Path, pcm: bytes) -> None:
    """Write 24 kHz mono s16le as a WAV file.

    Raises:
        WavError: `pcm` ends inside a sample.
    """
    if len(pcm) % 2:
        raise WavError(f"{len(pcm)} bytes are no whole number of 2-byte samples")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(NATIVE_RATE_HZ)
        file.writeframes(pcm)


def _read_format(path: Path, body: bytes) -> AudioFormat:
    """Read a `fmt ` chunk."""
    if len(body) < 16:
        raise WavError(f"{path} is damaged: its format takes {len(body)} bytes instead of 16")
    tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 26:
        (tag,) = struct.unpack_from("<H", body, 24)
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None:
        raise WavError(
            f"{path} holds {bits}-bit {_TAG_NAMES.get(tag, f'format {tag:#06x}')}, which is not taken; "
            f"convert it: ffmpeg -i {path.name} -c:a pcm_s16le out.wav"
        )
    if not rate_hz or not channels:
        raise WavError(f"{path} is damaged: {rate_hz} Hz, {channels} channels")
    try:
        return AudioFormat.checked(encoding, rate_hz, channels)
    except AudioFormatUnsupported as refused:
        raise WavError(f"{path}: {refused.message}") from refused
