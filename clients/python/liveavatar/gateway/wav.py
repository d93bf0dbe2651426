"""Reader of WAV files. Uses the standard library only, and never seeks, since a file may be a pipe."""

import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self

from liveavatar.gateway.audio import AudioEncoding, AudioFormat

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
_NAMES = {_PCM: "PCM", _FLOAT: "float", _ALAW: "A-law", _MULAW: "mu-law"}
_LONG_KINDS: Final = (b"RF64", b"BW64")
_KINDS: Final = (b"RIFF", *_LONG_KINDS)
HEAD_BYTES: Final = 4
"""Bytes that `is_wav` needs."""
_LONGEST_TRUE_BYTES: Final = 0x7FFF_0000
"""Data size of a RIFF header above which the header of a pipe is ignored. Programs that write to a pipe do not
know the size in advance and write 0, 0xFFFFFFFF, 0x7FFFFFFF, or one of these minus the header's size."""
_READ_BYTES = 1 << 16
_UNSIGNED_TO_SIGNED: Final = bytes(value ^ 0x80 for value in range(256))


class WavError(ValueError):
    """File that this library cannot read as WAV; the message names the reason and the remedy."""


class _Samples(NamedTuple):
    """Kind of samples in a file, and their conversion."""

    file_bytes: int
    """Bytes of one sample in the file."""
    encoding: AudioEncoding
    """Encoding after the conversion."""
    convert: Callable[[bytes], bytes]
    """Converts whole samples of the file."""


def _as_they_are(data: bytes) -> bytes:
    return data


def _from_unsigned_8(data: bytes) -> bytes:
    out = bytearray(2 * len(data))
    out[1::2] = data.translate(_UNSIGNED_TO_SIGNED)
    return bytes(out)


def _from_24(data: bytes) -> bytes:
    out = bytearray(len(data) // 3 * 2)
    out[0::2], out[1::2] = data[1::3], data[2::3]
    return bytes(out)


def _from_32(data: bytes) -> bytes:
    out = bytearray(len(data) // 2)
    out[0::2], out[1::2] = data[2::4], data[3::4]
    return bytes(out)


_SAMPLES: Final = {
    (_PCM, 8): _Samples(1, AudioEncoding.PCM_S16LE, _from_unsigned_8),
    (_PCM, 16): _Samples(2, AudioEncoding.PCM_S16LE, _as_they_are),
    # The avatar plays 16 bits, so the lowest bits of longer samples are dropped here.
    (_PCM, 24): _Samples(3, AudioEncoding.PCM_S16LE, _from_24),
    (_PCM, 32): _Samples(4, AudioEncoding.PCM_S16LE, _from_32),
    (_FLOAT, 32): _Samples(4, AudioEncoding.PCM_F32LE, _as_they_are),
    (_ALAW, 8): _Samples(1, AudioEncoding.ALAW, _as_they_are),
    (_MULAW, 8): _Samples(1, AudioEncoding.MULAW, _as_they_are),
}


def is_wav(head: bytes) -> bool:
    """Return True when audio that starts with `head`, at least `HEAD_BYTES` long, is a WAV file."""
    return head[:HEAD_BYTES] in _KINDS


class WavReader:
    """Reader of one WAV file: 8-, 16-, 24- or 32-bit PCM, 32-bit float, mu-law or A-law, at any rate.

    An implausible data size (0, larger than the file, or the placeholder of a program that writes to a pipe) means
    that the samples extend to the end of the file. Close the reader, or use it as a context manager.
    """

    def __init__(self, file: BinaryIO, name: str, *, head: bytes = b"", size_bytes: int | None = None) -> None:
        """Read the header; blocks until the header is complete.

        Args:
            file: File, from its beginning; closed together with the reader.
            name: Name of the file for errors.
            head: First bytes of the file, if they were read already.
            size_bytes: Size of the file; None for a pipe.

        Raises:
            OSError: the file cannot be read.
            WavError: not a WAV file, an incomplete header, or samples of an unsupported kind.
        """
        self._file = file
        self._name = name
        self._head = head
        self._position = 0
        self._size_bytes = size_bytes
        try:
            self.format, self._samples, self._data_bytes = self._parse()
        except WavError as error:
            raise WavError(f"{name}: {error}") from error
        except struct.error as error:
            raise WavError(f"{name}: its header is too short; the file is damaged") from error

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file, or a pipe by its path, such as /dev/stdin.

        Raises:
            OSError, WavError: see the constructor.
        """
        file = path.open("rb")
        try:
            status = os.fstat(file.fileno())
            return cls(file, str(path), size_bytes=status.st_size if stat.S_ISREG(status.st_mode) else None)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def duration(self) -> timedelta | None:
        """Length of the audio; None when only its end will tell."""
        if self._data_bytes is None:
            return None
        frames = self._data_bytes // self._frame_bytes
        return self.format.duration(frames * self.format.frame_bytes)

    @property
    def _frame_bytes(self) -> int:
        return self._samples.file_bytes * self.format.channel_count

    def samples(self) -> Iterator[bytes]:
        """Yield the samples in `format`, as they come, in pieces of whole samples. Blocks; to be used once.

        Raises:
            OSError: the file cannot be read.
            WavError: it became shorter while it was read.
        """
        left, rest = self._data_bytes, b""
        while left is None or left > 0:
            piece = self._read(_READ_BYTES if left is None else min(_READ_BYTES, left))
            if not piece:
                if left is not None and self._size_bytes is not None:
                    raise WavError(f"{self._name}: the file became shorter while it was read")
                break
            left = None if left is None else left - len(piece)
            data = rest + piece
            whole = len(data) - len(data) % self._frame_bytes
            rest = data[whole:]
            if whole:
                yield self._samples.convert(data[:whole])

    # --- the header

    def _parse(self) -> tuple[AudioFormat, _Samples, int | None]:
        kind, _, form = struct.unpack("<4sI4s", self._exactly(12))
        if kind not in _KINDS or form != b"WAVE":
            raise WavError(
                "not a WAV file; convert it, for example with `ffmpeg -i in.mp3 -ar 24000 -ac 1 out.wav`"
            )
        found: tuple[AudioFormat, _Samples] | None = None
        long_data_bytes = 0
        while True:
            chunk, chunk_bytes = struct.unpack("<4sI", self._exactly(8))
            read_bytes = 0
            if chunk == b"ds64":
                read_bytes = 16
                long_data_bytes = struct.unpack("<QQ", self._exactly(read_bytes))[1]
            elif chunk == b"fmt ":
                read_bytes = min(chunk_bytes, 40)
                found = _format(self._exactly(read_bytes))
            elif chunk == b"data":
                if found is None:
                    raise WavError("the samples precede their format; the file is damaged")
                is_long = kind in _LONG_KINDS and chunk_bytes == 0xFFFFFFFF
                return *found, self._data_size(long_data_bytes if is_long else chunk_bytes, is_long=is_long)
            # Chunks are padded to even sizes.
            self._skip(chunk_bytes + chunk_bytes % 2 - read_bytes)

    def _data_size(self, announced: int, *, is_long: bool) -> int | None:
        """Return the size of the samples; None: to the end of the pipe."""
        if self._size_bytes is None:
            is_known = announced > 0 and (is_long or announced < _LONGEST_TRUE_BYTES)
            return announced if is_known else None
        present = max(0, self._size_bytes - self._position)
        return announced if 0 < announced <= present else present

    # --- bytes, forward only

    def _read(self, limit_bytes: int) -> bytes:
        """Return at most so many bytes, as soon as there are any; empty at the end."""
        if self._head:
            data, self._head = self._head[:limit_bytes], self._head[limit_bytes:]
        else:
            file = self._file
            data = file.read1(limit_bytes) if isinstance(file, io.BufferedReader) else file.read(limit_bytes)
        self._position += len(data)
        return data

    def _exactly(self, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes:
            piece = self._read(size_bytes - len(data))
            if not piece:
                raise WavError("the file ends before its samples; it was truncated or contains none")
            data += piece
        return data

    def _skip(self, size_bytes: int) -> None:
        left = size_bytes
        while left > 0:
            piece = self._read(min(left, _READ_BYTES))
            if not piece:
                raise WavError("the file ends before its samples; it was truncated or contains none")
            left -= len(piece)


def _format(body: bytes) -> tuple[AudioFormat, _Samples]:
    tag, channel_count, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE:
        # The first two bytes of the sub-format GUID are the format tag.
        (tag,) = struct.unpack_from("<H", body, 24)
    # A sample of 12 or 20 bits is stored in whole bytes, left-aligned.
    samples = _SAMPLES.get((tag, -(-bits // 8) * 8 if tag == _PCM else bits))
    if samples is None:
        raise WavError(
            f"{bits}-bit {_NAMES.get(tag, f'format {tag:#06x}')} samples are not supported, only PCM of 8, 16, 24 "
            "and 32 bits, 32-bit float, mu-law and A-law; convert it, for example with "
            "`ffmpeg -i in.wav -c:a pcm_s16le out.wav`"
        )
    if rate_hz < 1 or channel_count < 1:
        raise WavError(f"{channel_count} channels at {rate_hz} Hz are invalid; the file is damaged")
    found = AudioFormat(encoding=samples.encoding, sample_rate_hz=rate_hz, channel_count=channel_count)
    return found, samples
