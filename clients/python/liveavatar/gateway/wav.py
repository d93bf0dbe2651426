"""WAV files, read with the standard library alone."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from liveavatar.gateway.audio import AudioEncoding, AudioFormat

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
_ENCODINGS = {
    (_PCM, 16): AudioEncoding.PCM_S16LE,
    (_FLOAT, 32): AudioEncoding.PCM_F32LE,
    (_ALAW, 8): AudioEncoding.ALAW,
    (_MULAW, 8): AudioEncoding.MULAW,
}
_NAMES = {_PCM: "PCM", _FLOAT: "float", _ALAW: "A-law", _MULAW: "mu-law"}
# A program that writes to a pipe cannot know the size in advance and leaves one of these.
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
_READ_BYTES = 1 << 16


class WavError(ValueError):
    """The file is no WAV file this library reads; the message says why and what to do."""


class WavInfo(NamedTuple):
    """Where a WAV file's samples are, and what they are."""

    format: AudioFormat
    data_offset: int
    data_bytes: int


def probe(path: Path) -> WavInfo:
    """Read a WAV file's header: 16-bit PCM, 32-bit float, mu-law or A-law, any rate.

    Raises:
        OSError: the file cannot be read.
        WavError: it is no WAV file, is cut short, or its samples are of another kind.
    """
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        try:
            return _parse(file, size_bytes)
        except WavError as error:
            raise WavError(f"{path}: {error}") from error
        except struct.error as error:
            raise WavError(f"{path}: its header is too short; the file is damaged") from error


def samples(path: Path, info: WavInfo) -> Iterator[bytes]:
    """The samples of a probed file, in pieces of at most 64 KiB. Blocks on the disk."""
    with path.open("rb") as file:
        file.seek(info.data_offset)
        left = info.data_bytes
        while left > 0:
            piece = file.read(min(_READ_BYTES, left))
            if not piece:
                raise WavError(f"{path}: the file became shorter while it was read")
            left -= len(piece)
            yield piece


def _parse(file: BinaryIO, size_bytes: int) -> WavInfo:
    kind, _, form = struct.unpack("<4sI4s", _exactly(file, 12))
    if kind not in (b"RIFF", b"RF64") or form != b"WAVE":
        raise WavError(
            "this is no WAV file; convert it, for example with `ffmpeg -i in.mp3 -ar 24000 -ac 1 out.wav`"
        )
    audio_format: AudioFormat | None = None
    long_data_bytes = 0
    while True:
        chunk, chunk_bytes = struct.unpack("<4sI", _exactly(file, 8))
        start = file.tell()
        if chunk == b"ds64":
            long_data_bytes = struct.unpack("<QQ", _exactly(file, 16))[1]
        elif chunk == b"fmt ":
            audio_format = _format(_exactly(file, min(chunk_bytes, 40)))
        elif chunk == b"data":
            if audio_format is None:
                raise WavError("samples come before their format; the file is damaged")
            if kind == b"RF64" and chunk_bytes == 0xFFFFFFFF:
                chunk_bytes = long_data_bytes
            return WavInfo(audio_format, start, _data_bytes(audio_format, chunk_bytes, size_bytes - start))
        # Chunks are padded to even sizes.
        file.seek(start + chunk_bytes + chunk_bytes % 2)


def _format(body: bytes) -> AudioFormat:
    tag, channel_count, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE:
        # The first two bytes of the sub-format GUID are the tag it stands for.
        (tag,) = struct.unpack_from("<H", body, 24)
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None:
        raise WavError(
            f"{bits}-bit {_NAMES.get(tag, f'format {tag:#06x}')} samples are not taken, only 16-bit PCM, 32-bit "
            "float, mu-law and A-law; convert it, for example with `ffmpeg -i in.wav -c:a pcm_s16le out.wav`"
        )
    if rate_hz < 1 or channel_count < 1:
        raise WavError(f"{channel_count} channels at {rate_hz} Hz make no sense; the file is damaged")
    return AudioFormat(encoding=encoding, sample_rate_hz=rate_hz, channel_count=channel_count)


def _data_bytes(audio_format: AudioFormat, announced: int, present: int) -> int:
    if announced in _UNKNOWN_SIZES:
        return audio_format.whole(present)
    if announced > present:
        raise WavError(f"{announced} bytes of samples are announced, {present} are there; the file was cut short")
    return audio_format.whole(announced)


def _exactly(file: BinaryIO, size_bytes: int) -> bytes:
    data = file.read(size_bytes)
    if len(data) < size_bytes:
        raise WavError("the file ends before its samples; it was cut short or holds none")
    return data
