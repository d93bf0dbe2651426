"""One spoken turn: the caller's bytes on their way in, and how far they came."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from liveavatar_gateway.core.errors import (
    AudioContainerDetected,
    AudioGap,
    AudioMisaligned,
    ChunkTooLarge,
    CreditExceeded,
    GatewayError,
    InvalidField,
)
from liveavatar_gateway.core.messages import BYTE_RATE
from liveavatar_gateway.core.playout import PlayoutClock
from liveavatar_gateway.core.scheduler import PacketScheduler
from liveavatar_gateway.core.states import Outcome


class Converter(Protocol):
    """Turns one utterance into 24 kHz mono s16le, piece by piece. Not shared between utterances."""

    def convert(self, chunks: Sequence[bytes], *, last: bool) -> bytes:
        """Convert the utterance's next bytes.

        Args:
            chunks: Raw audio in the caller's format, whole samples each; may be empty.
            last: The utterance ends here, so what the converter holds back comes out too. Final call only.

        Returns:
            PCM that is ready now. It may be empty, and it lags behind its input until `last`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """How one caller's audio is read. Shared by all utterances of a stream."""

    byte_rate: int
    """Bytes per second of the caller's format."""
    frame_bytes: int
    """Bytes of one sample over all channels."""
    max_chunk_bytes: int
    """Largest chunk that is taken."""
    new_converter: Callable[[], Converter]
    """Makes the converter of one utterance."""
    detect_container: Callable[[bytes], str | None]
    """Names the file format that some first bytes belong to, if any."""
    format: str = ""
    """Name of the caller's format, to tell it from others."""


class Utterance:
    """Bytes of one spoken turn.

    Invariant: confirmed <= cut <= freed <= received, all in bytes of the caller's format. Once `outcome` is set
    nothing changes any more.
    """

    __slots__ = (
        "_buffer",
        "_converter",
        "_flushed",
        "_packets",
        "_retained",
        "confirmed",
        "cut",
        "discarded",
        "end_sent_at_s",
        "failure",
        "first_sent_at_s",
        "freed",
        "id",
        "intake",
        "last_chunk_at_s",
        "outcome",
        "overdue_at_s",
        "played_s",
        "received",
        "scheduler",
        "sealed",
        "sent_s",
        "signed",
        "start_s",
        "started",
        "upstream_id",
        "window",
    )

    def __init__(self, id: str, upstream_id: str, intake: Intake, scheduler: PacketScheduler) -> None:  # noqa: A002 - the attribute is public as `id`
        """Open an utterance.

        Args:
            id: The caller's name for it.
            upstream_id: The `event_id` it has on LiveAvatar's socket, unique for ever.
            intake: How its audio is read.
            scheduler: Decides its packets.
        """
        self.id = id
        self.upstream_id = upstream_id
        self.intake = intake
        self.scheduler = scheduler
        self.received = 0
        self.cut = 0
        self.confirmed = 0
        self.discarded = 0
        self.freed = 0
        self.window = 0
        self.sealed = False
        self.failure: GatewayError | None = None
        self.started = False
        self.signed = False
        self.start_s = 0.0
        self.sent_s = 0.0
        self.played_s = 0.0
        self.first_sent_at_s: float | None = None
        self.end_sent_at_s: float | None = None
        self.overdue_at_s: float | None = None
        self.last_chunk_at_s = 0.0
        self.outcome: Outcome | None = None
        self._buffer: list[bytes] = []
        self._retained: list[bytes] = []
        self._packets: list[int] = []
        self._converter = intake.new_converter()
        self._flushed = False

    @property
    def buffered(self) -> int:
        """Bytes that wait to be sent."""
        return self.received - self.cut - self.discarded

    @property
    def has_tail(self) -> bool:
        """Whether all bytes were cut but the converter still holds some of their sound back."""
        return self.sealed and self.cut == self.received > 0 and not self._flushed

    @property
    def charged_s(self) -> float:
        """Seconds that count against the credit. What was cut once does not, even when it has to wait again."""
        return (self.received - self.freed) / self.intake.byte_rate

    def receive(self, offset: int | None, audio: bytes, now_s: float) -> int:
        """Take a chunk and return how many of its bytes were new.

        Args:
            offset: Where in the utterance the chunk starts, bytes; None is right after the last one.
            audio: Raw samples of the caller's format.
            now_s: Monotonic time.

        Raises:
            ChunkTooLarge, AudioMisaligned, AudioContainerDetected, AudioGap, InvalidField, CreditExceeded: nothing
                was taken.
        """
        size = len(audio)
        intake = self.intake
        if size > intake.max_chunk_bytes:
            raise ChunkTooLarge(size, intake.max_chunk_bytes)
        if size % intake.frame_bytes:
            raise AudioMisaligned(size, intake.frame_bytes)
        if offset is not None and offset != self.received:
            audio = self._beyond(offset, audio)
            size = len(audio)
        if size == 0:
            return 0
        if self.received == 0 and (container := intake.detect_container(audio)):
            raise AudioContainerDetected(container)
        charged = self.received - self.freed
        if charged + size > self.window:
            raise CreditExceeded(size, max(0, self.window - charged), size / intake.byte_rate)
        self._buffer.append(audio)
        self.received += size
        self.last_chunk_at_s = now_s
        return size

    def _beyond(self, offset: int, audio: bytes) -> bytes:
        """Drop what was received before; refuse a hole and an overlap that splits a sample."""
        if offset < 0:
            raise InvalidField(
                f"offset_bytes {offset} is before the utterance; it counts from 0",
                field="chunk.offset_bytes",
                offset_bytes=offset,
            )
        overlap = self.received - offset
        if overlap < 0:
            raise AudioGap(self.id, self.received, offset)
        if overlap % self.intake.frame_bytes:
            raise AudioMisaligned(offset, self.intake.frame_bytes)
        return audio[overlap:]

    def seal(self, failure: GatewayError | None = None) -> None:
        """Take no more bytes. With a `failure` the utterance ends as FAILED once it is played."""
        self.sealed = True
        self.failure = self.failure or failure

    def take_packet(self, size: int) -> bytes:
        """Cut `size` buffered bytes and return them as upstream PCM; may be empty while a resampler fills.

        With a size of 0, take the tail alone.
        """
        chunks = self._take(size)
        self.cut += size
        self.freed = max(self.freed, self.cut)
        self._packets.append(self.cut)
        if not self.started:
            self._retained.extend(chunks)
        self._flushed = self.sealed and self.cut == self.received
        pcm = self._converter.convert(chunks, last=self._flushed)
        if not pcm:
            self._packets.pop()
        self.sent_s += len(pcm) / BYTE_RATE
        return pcm

    def _take(self, size: int) -> list[bytes]:
        if size == self.buffered:
            taken, self._buffer = self._buffer, []
            return taken
        taken, rest = [], size
        while rest:
            taken.append(self._buffer[len(taken)][:rest])
            rest -= len(taken[-1])
        left = self._buffer[len(taken) - 1][len(taken[-1]) :]
        self._buffer[: len(taken)] = [left] if left else []
        return taken

    def confirm_packet(self) -> None:
        """Note that LiveAvatar took the oldest packet that was not confirmed."""
        if self._packets:
            self.confirmed = self._packets.pop(0)

    def start(self) -> None:
        """Note that it is heard: from here on it cannot be sent again."""
        self.started = True
        self.signed = True
        self._retained.clear()

    def rewind(self, upstream_id: str) -> None:
        """Make all audio wait again, under a fresh id: upstream dropped it before any of it was heard."""
        self.upstream_id = upstream_id
        self._buffer = self._retained + self._buffer
        self._retained = []
        self._packets = []
        self._converter = self.intake.new_converter()
        self.cut = self.confirmed = 0
        self.sent_s = 0.0
        self.signed = False
        self._flushed = False
        self.first_sent_at_s = self.end_sent_at_s = self.overdue_at_s = None

    def position_s(self, clock: PlayoutClock, now_s: float) -> float:
        """Seconds of it that were heard by now. Never falls."""
        if self.outcome is None and self.started:
            heard_s = min(self.sent_s, max(0.0, clock.heard_s(now_s) - self.start_s))
            self.played_s = max(self.played_s, heard_s)
        return self.played_s

    def drop(self) -> int:
        """Let go of what waits, take no more, and return how many bytes that were."""
        dropped = self.buffered
        self.sealed = True
        self._buffer = []
        self.discarded += dropped
        self.freed = self.received
        self._flushed = True
        return dropped

    def finish(self, outcome: Outcome, played_s: float) -> int:
        """Set what became of it, let its audio go, and return how many bytes were never sent."""
        dropped = self.drop()
        self.outcome = outcome
        self.played_s = max(self.played_s, played_s)
        self._retained = []
        self._packets = []
        if outcome is Outcome.COMPLETED:
            self.confirmed = self.cut
        return dropped
