"""Input side of an utterance: the caller's bytes until they are cut into packets."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from liveavatar_gateway.core.errors import (
    AudioContainerDetected,
    AudioGap,
    ChunkTooLarge,
    CreditExceeded,
    GatewayError,
    InvalidField,
)
from liveavatar_gateway.core.messages import BYTE_RATE
from liveavatar_gateway.core.speech.words import UtteranceText
from liveavatar_gateway.core.states import INPUT_TRANSITIONS, InputState, move

# Reading a member of an enum class costs a call; these are read for each chunk.
_UNDECIDED, _OPEN, _SEALED, _FLUSHED = InputState


class Converter(Protocol):
    """Converter of one utterance into 24 kHz mono s16le, piece by piece. Not shared between utterances."""

    def convert(self, chunks: Sequence[bytes], *, last: bool) -> bytes:
        """Convert the utterance's next bytes.

        Args:
            chunks: Raw audio in the caller's format, whole samples together, cut anywhere; may be empty.
            last: True in the final call, which also returns the audio that the converter holds back.

        Returns:
            PCM that is ready now. The PCM may be empty, and lags behind its input until `last`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInput:
    """Format of a caller's audio, and the functions to read it. Shared by all utterances of a stream."""

    byte_rate: int
    """Bytes per second of the caller's format."""
    frame_bytes: int
    """Bytes of one sample over all channels."""
    max_chunk_bytes: int
    """Size of the largest accepted chunk."""
    new_converter: Callable[[], Converter]
    """Factory of an utterance's converter."""
    detect_container: Callable[[bytes], str | None]
    """Name of the file format that begins with these bytes, if any."""
    may_be_container: Callable[[bytes], bool]
    """Test whether first bytes are too few to exclude a container, so that more must come before speech begins."""
    format: str = ""
    """Name of the caller's format."""


class UtteranceInput:
    """Audio of an utterance as the caller sends it, until it is cut into packets.

    Chunks may be cut anywhere. An incomplete sample waits for the rest of its bytes, and the first bytes wait
    until they are known to be samples instead of a file header.

    Invariant: cut <= freed <= received, all in bytes of the caller's format, and `cut` is whole samples.
    """

    __slots__ = (
        "_buffer",
        "_converter",
        "_held_back",
        "_retained",
        "_retained_from",
        "audio_input",
        "cut",
        "discarded",
        "failure",
        "freed",
        "id",
        "idle_since_s",
        "idle_timeout_s",
        "input_state",
        "last_chunk_at_s",
        "received",
        "text",
        "window",
    )

    def __init__(self, id: str, audio_input: AudioInput) -> None:  # noqa: A002 - the attribute is public as `id`
        self.id = id
        self.audio_input = audio_input
        self.input_state = _UNDECIDED
        self.failure: GatewayError | None = None
        self.received = 0
        self.cut = 0
        self.discarded = 0
        self.freed = 0
        self.window = 0
        self.last_chunk_at_s = 0.0
        self.text: UtteranceText | None = None
        """Text with its times; None before any came, as for callers that send none."""
        self.idle_timeout_s: float | None = None
        """Longest time without audio before the utterance is sealed; None for no limit."""
        self.idle_since_s: float | None = None
        """Start of the time that counts for `idle_timeout_s`, unless audio came later; None while no stream is
        open for it."""
        self._buffer: list[bytes] = []
        self._retained: list[bytes] = []
        """Audio that was cut and may have to be cut again: all between `_retained_from` and `cut`."""
        self._retained_from = 0
        self._converter = audio_input.new_converter()
        self._held_back = 0.0

    def _move_input(self, following: InputState) -> None:
        self.input_state = move(INPUT_TRANSITIONS, self.input_state, following)

    @property
    def sealed(self) -> bool:
        """True when the utterance accepts no more audio."""
        return self.input_state is _SEALED or self.input_state is _FLUSHED

    @property
    def buffered(self) -> int:
        """Bytes that can be cut, in whole samples; 0 while they may be the header of a file."""
        if self.input_state is _UNDECIDED:
            return 0
        waiting = self._waiting
        return waiting - waiting % self.audio_input.frame_bytes

    @property
    def _waiting(self) -> int:
        """Bytes that were received and neither cut nor dropped."""
        return self.received - self.cut - self.discarded

    @property
    def dropped_tail_bytes(self) -> int:
        """Bytes of an incomplete last sample; 0 while the rest of the sample may still come."""
        return self.received % self.audio_input.frame_bytes if self.sealed else 0

    @property
    def has_tail(self) -> bool:
        """True when all bytes were cut and the converter still holds back a part of their sound."""
        return self.input_state is _SEALED and self.cut > 0 and self.buffered == 0

    @property
    def charged_s(self) -> float:
        """Seconds that count against the credit; audio that was cut once does not, even when it waits again."""
        return (self.received - self.freed) / self.audio_input.byte_rate

    @property
    def room_s(self) -> float:
        """Seconds of audio that the window still accepts."""
        return (self.window - (self.received - self.freed)) / self.audio_input.byte_rate

    @property
    def idle_at_s(self) -> float | None:
        """Time at which the idle limit is reached unless audio comes; None when no limit is running."""
        if self.sealed or self.idle_timeout_s is None or self.idle_since_s is None:
            return None
        return max(self.idle_since_s, self.last_chunk_at_s) + self.idle_timeout_s

    def start_idle_limit(self, timeout_s: float | None, now_s: float) -> None:
        """Count the time without audio from now on.

        Args:
            timeout_s: Longest time without audio; None keeps the limit that it has, if any.
            now_s: Monotonic time.
        """
        if timeout_s is not None:
            self.idle_timeout_s = timeout_s
        self.idle_since_s = now_s

    def stop_idle_limit(self) -> None:
        """Count no time without audio until `start_idle_limit`: no stream can bring any."""
        self.idle_since_s = None

    def receive(self, offset: int | None, audio: bytes, now_s: float) -> int:
        """Accept a chunk, and return how many of its bytes were new.

        Args:
            offset: Position of the chunk in the utterance, bytes; None for right after the last chunk.
            audio: Raw samples of the caller's format, cut anywhere.
            now_s: Monotonic time.

        Raises:
            ChunkTooLarge, AudioContainerDetected, AudioGap, InvalidField, CreditExceeded: The chunk was refused.
        """
        size = len(audio)
        audio_input = self.audio_input
        if size > audio_input.max_chunk_bytes:
            raise ChunkTooLarge(size, audio_input.max_chunk_bytes)
        if offset is not None and offset != self.received:
            audio = self._beyond(offset, audio)
            size = len(audio)
        if size == 0:
            return 0
        is_decided = False
        if self.input_state is _UNDECIDED:
            head = b"".join((*self._buffer, audio))
            is_decided = not audio_input.may_be_container(head)
            if is_decided and (container := audio_input.detect_container(head)):
                raise AudioContainerDetected(container)
        charged = self.received - self.freed
        if charged + size > self.window:
            raise CreditExceeded(size, max(0, self.window - charged), size / audio_input.byte_rate)
        if is_decided:
            self._move_input(_OPEN)
        self._buffer.append(audio)
        self.received += size
        self.last_chunk_at_s = now_s
        return size

    def _beyond(self, offset: int, audio: bytes) -> bytes:
        """Return the chunk without the part that was received before; refuse a gap."""
        if offset < 0:
            raise InvalidField(
                f"offset_bytes {offset} is negative; count from 0, the first byte of the utterance",
                field="chunk.offset_bytes",
                offset_bytes=offset,
            )
        overlap = self.received - offset
        if overlap < 0:
            raise AudioGap(self.id, self.received, offset)
        return audio[overlap:]

    def seal(self, failure: GatewayError | None = None) -> int:
        """Accept no more bytes. With a `failure`, the utterance ends as FAILED after it was played.

        First bytes that were undecided so far are checked again: the header of a file is dropped and makes the
        utterance fail.

        Returns:
            Number of bytes that were dropped because they belong to a file.
        """
        is_file = isinstance(failure, AudioContainerDetected)
        if self.input_state is _UNDECIDED and (
            container := self.audio_input.detect_container(b"".join(self._buffer))
        ):
            is_file = True
            failure = failure or AudioContainerDetected(container)
        if not self.sealed:
            self._move_input(_SEALED)
        self.fail(failure)
        # The bytes before the detection are the beginning of the file's header.
        dropped = self.drop() if is_file else 0
        if self.buffered == 0:
            self.freed = self.received
        return dropped

    def fail(self, failure: GatewayError | None) -> None:
        """Make its outcome FAILED; the first failure stays."""
        self.failure = self.failure or failure

    def drop(self) -> int:
        """Drop waiting audio, accept no more, and return how many bytes were dropped."""
        dropped = self._waiting
        if self.input_state is not _FLUSHED:
            self._move_input(_FLUSHED)
        self._buffer = []
        self.discarded += dropped
        self.freed = self.received
        return dropped

    def _cut(self, size: int) -> bytes:
        """Cut `size` buffered bytes and convert them; they can be cut again after `_restart`."""
        chunks = self._take(size)
        self.cut += size
        self._retained.extend(chunks)
        if self.input_state is _SEALED and self.buffered == 0:
            self._move_input(_FLUSHED)
        flushed = self.input_state is _FLUSHED
        self.freed = max(self.freed, self.received if flushed else self.cut)
        pcm = self._converter.convert(chunks, last=flushed)
        converted = len(pcm) * self.audio_input.byte_rate / BYTE_RATE
        self._held_back = 0.0 if flushed else self._held_back + size - converted
        return pcm

    @property
    def _converted(self) -> int:
        """Position up to which the converter has returned its audio; the rest is lost with this process."""
        frame_bytes = self.audio_input.frame_bytes
        return self.cut - math.ceil(max(0.0, self._held_back) / frame_bytes) * frame_bytes

    def _take(self, size: int) -> list[bytes]:
        if size == self._waiting:
            taken, self._buffer = self._buffer, []
            return taken
        if not size:
            return []
        taken, rest = [], size
        while rest:
            taken.append(self._buffer[len(taken)][:rest])
            rest -= len(taken[-1])
        left = self._buffer[len(taken) - 1][len(taken[-1]) :]
        self._buffer[: len(taken)] = [left] if left else []
        return taken

    def _position_of(self, seconds: float) -> int:
        """Return the position of a time in the utterance, bytes, in whole samples."""
        frame_bytes = self.audio_input.frame_bytes
        return round(seconds * self.audio_input.byte_rate / frame_bytes) * frame_bytes

    def _release(self, before: int) -> None:
        """Release the retained audio before a position, as far as it lies in whole chunks."""
        released = 0
        for chunk in self._retained:
            if self._retained_from + len(chunk) > before:
                break
            self._retained_from += len(chunk)
            released += 1
        del self._retained[:released]

    def _retained_pcm(self, start: int, end: int) -> bytes:
        """Return retained audio between two positions as LiveAvatar's PCM."""
        audio = b"".join(self._retained)[start - self._retained_from : end - self._retained_from]
        return self.audio_input.new_converter().convert([audio], last=True)

    def _restart(self, at: int) -> None:
        """Make the audio from a retained position on, which was cut, wait again."""
        if self.input_state is _FLUSHED and self.cut > at:
            self._move_input(_SEALED)
        audio = b"".join(self._retained)
        kept, again = audio[: at - self._retained_from], audio[at - self._retained_from :]
        self._buffer = [again, *self._buffer] if again else self._buffer
        self._retained = [kept] if kept else []
        self._converter = self.audio_input.new_converter()
        self._held_back = 0.0
        self.cut = at
