"""Audio formats, and cutting audio into chunks: pure, no I/O."""

import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc

from liveavatar.gateway.errors import AudioMisaligned
from liveavatar.gateway.v1 import audio_pb2


class AudioEncoding(enum.StrEnum):
    """Encoding of samples. All encodings are raw: no WAV or other header."""

    PCM_S16LE = "pcm_s16le"
    """Signed 16-bit little-endian PCM, 2 bytes per sample."""
    PCM_F32LE = "pcm_f32le"
    """32-bit float little-endian PCM in -1.0 to 1.0, 4 bytes per sample."""
    MULAW = "mulaw"
    """ITU-T G.711 mu-law, 1 byte per sample."""
    ALAW = "alaw"
    """ITU-T G.711 A-law, 1 byte per sample."""


_SAMPLE_BYTES = {
    AudioEncoding.PCM_S16LE: 2,
    AudioEncoding.PCM_F32LE: 4,
    AudioEncoding.MULAW: 1,
    AudioEncoding.ALAW: 1,
}
_TO_PROTO = {
    AudioEncoding.PCM_S16LE: audio_pb2.AUDIO_ENCODING_PCM_S16LE,
    AudioEncoding.PCM_F32LE: audio_pb2.AUDIO_ENCODING_PCM_F32LE,
    AudioEncoding.MULAW: audio_pb2.AUDIO_ENCODING_MULAW,
    AudioEncoding.ALAW: audio_pb2.AUDIO_ENCODING_ALAW,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFormat:
    """Format of raw samples. The default is LiveAvatar's own format, which needs no resampling."""

    encoding: AudioEncoding = AudioEncoding.PCM_S16LE
    """Encoding of the samples."""
    sample_rate_hz: int = 24_000
    """Samples per second and channel; the gateway supports 8000 to 48000 Hz."""
    channel_count: int = 1
    """1 (mono) or 2 (interleaved stereo, which the gateway mixes down)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoding", AudioEncoding(self.encoding))
        if self.sample_rate_hz < 1 or self.channel_count < 1:
            msg = f"{self.channel_count} channels at {self.sample_rate_hz} Hz are invalid; both must be at least 1"
            raise ValueError(msg)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels; chunks are cut between frames."""
        return _SAMPLE_BYTES[self.encoding] * self.channel_count

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second of audio."""
        return self.frame_bytes * self.sample_rate_hz

    def whole(self, size_bytes: int) -> int:
        """Return `size_bytes` rounded down to whole frames."""
        return size_bytes - size_bytes % self.frame_bytes

    def size_bytes(self, seconds: float) -> int:
        """Return the bytes of `seconds` of audio: whole frames, at least one."""
        return max(int(seconds * self.sample_rate_hz), 1) * self.frame_bytes

    def duration(self, size_bytes: int) -> timedelta:
        """Return the duration of `size_bytes` of audio."""
        return timedelta(seconds=size_bytes / self.bytes_per_second)

    def check_whole(self, size_bytes: int) -> None:
        """Refuse audio that ends inside a frame.

        Raises:
            AudioMisaligned: the audio ends inside a frame, so the format or the length is wrong.
        """
        if size_bytes % self.frame_bytes:
            raise AudioMisaligned(
                f"{size_bytes} bytes are not a multiple of the {self.frame_bytes}-byte sample size",
                code=grpc.StatusCode.INVALID_ARGUMENT,
                metadata={"size_bytes": str(size_bytes), "frame_bytes": str(self.frame_bytes)},
            )

    def to_proto(self) -> audio_pb2.AudioFormat:
        """Return the message for `AudioHeader.format`."""
        return audio_pb2.AudioFormat(
            encoding=_TO_PROTO[self.encoding],
            sample_rate_hz=self.sample_rate_hz,
            channel_count=self.channel_count,
        )


def encodings_from_proto(values: Iterable[int]) -> tuple[AudioEncoding, ...]:
    """Return the encodings among `values` that this library knows."""
    known = {int(number): encoding for encoding, number in _TO_PROTO.items()}
    return tuple(known[value] for value in values if value in known)


class ChunkBuffer:
    """Buffer between a source and the stream, emptied in whole frames.

    Invariant: the bytes taken and the bytes left are the bytes put in, in order. The buffer never waits for a full
    chunk, so a real-time source is not delayed.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self._format = audio_format
        self._pieces: deque[memoryview] = deque()
        self._size_bytes = 0
        self._finished = False

    @property
    def size_bytes(self) -> int:
        """Bytes in the buffer, including an incomplete frame."""
        return self._size_bytes

    @property
    def exhausted(self) -> bool:
        """True when the source has ended and no whole frame is left."""
        return self._finished and self._size_bytes < self._format.frame_bytes

    def put(self, audio: Any) -> None:
        """Add a bytes-like object, cut anywhere, which must not change until it was taken."""
        view = memoryview(audio).cast("B")
        if view.nbytes:
            self._pieces.append(view)
            self._size_bytes += view.nbytes

    def finish(self) -> int:
        """Note the end of the source.

        Returns:
            Bytes of an incomplete last frame, which are never taken; 0 without such a frame.
        """
        self._finished = True
        return self._size_bytes % self._format.frame_bytes

    def take(self, limit_bytes: int) -> bytes:
        """Remove and return up to `limit_bytes` of whole frames; empty without a whole frame within the limit."""
        wanted = self._format.whole(min(limit_bytes, self._size_bytes))
        taken: list[memoryview] = []
        left = wanted
        while left > 0:
            piece = self._pieces.popleft()
            if piece.nbytes > left:
                self._pieces.appendleft(piece[left:])
                piece = piece[:left]
            taken.append(piece)
            left -= piece.nbytes
        self._size_bytes -= max(wanted, 0)
        return b"".join(taken)
