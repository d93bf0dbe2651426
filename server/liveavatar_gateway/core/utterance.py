"""One spoken turn: the caller's bytes on their way in, and how far they came."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from liveavatar_gateway.core.delivery import Delivery, Sending
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
        "_held_back",
        "_retained",
        "blind",
        "committed",
        "cut",
        "delivery",
        "discarded",
        "doubted_at",
        "end_sending",
        "failure",
        "first_sent_at_s",
        "freed",
        "id",
        "intake",
        "interrupted",
        "last_chunk_at_s",
        "outcome",
        "overdue_at_s",
        "played_s",
        "received",
        "revived",
        "rewindable",
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
        self.discarded = 0
        self.freed = 0
        self.window = 0
        self.sealed = False
        self.failure: GatewayError | None = None
        self.started = False
        self.signed = False
        self.committed = False
        self.blind = False
        self.rewindable = True
        self.revived = False
        self.doubted_at: int | None = None
        self.interrupted = False
        self.start_s = 0.0
        self.sent_s = 0.0
        self.played_s = 0.0
        self.first_sent_at_s: float | None = None
        self.end_sending: Sending | None = None
        self.overdue_at_s: float | None = None
        self.last_chunk_at_s = 0.0
        self.outcome: Outcome | None = None
        self._buffer: list[bytes] = []
        self._retained: list[bytes] = []
        self.delivery = Delivery()
        self._converter = intake.new_converter()
        self._flushed = False
        self._held_back = 0.0

    def continue_at(self, taken_bytes: int, sent_s: float, start_s: float, now_s: float, *, started: bool) -> None:
        """Go on where another process was: LiveAvatar has its beginning, and nobody else has that any more.

        Args:
            taken_bytes: How much LiveAvatar has, bytes of the caller's format.
            sent_s: The same in seconds.
            start_s: Position of its first sound on the session's playout clock.
            now_s: Monotonic time.
            started: Whether its start was told.
        """
        self.received = self.cut = self.delivery.confirmed = self.freed = taken_bytes
        self.sent_s = sent_s
        self.start_s = start_s
        self.first_sent_at_s = self.last_chunk_at_s = now_s
        self.started = started
        self.signed = True
        self.rewindable = False

    @property
    def confirmed(self) -> int:
        """Bytes of it that LiveAvatar is known to have."""
        return self.delivery.confirmed

    @property
    def doubted(self) -> bool:
        """Whether a socket was taken for dead over it, and nothing more of it was confirmed since."""
        return self.doubted_at is not None and self.delivery.confirmed <= self.doubted_at

    @property
    def taken(self) -> int:
        """Bytes of it that went out over a socket which still is, or that LiveAvatar is known to have."""
        return self.delivery.taken

    @property
    def end_sent(self) -> bool:
        """Whether LiveAvatar was told that it is whole, over the socket that is or so that it knows."""
        return self.end_sending is not None

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

    def take_packet(self, size: int, sending: Sending) -> bytes:
        """Cut `size` buffered bytes and return them as upstream PCM; may be empty while a resampler fills.

        With a size of 0, take the tail alone. The packet is kept until it is confirmed.
        """
        chunks = self._take(size)
        self.cut += size
        self.freed = max(self.freed, self.cut)
        if not self.started:
            self._retained.extend(chunks)
        self._flushed = self.sealed and self.cut == self.received
        pcm = self._converter.convert(chunks, last=self._flushed)
        self._held_back = 0.0 if self._flushed else self._held_back + size - self._in_bytes(len(pcm))
        if pcm:
            self.delivery.send(pcm, self._spoken, sending)
        self.sent_s += len(pcm) / BYTE_RATE
        return pcm

    def _in_bytes(self, pcm_bytes: int) -> float:
        return pcm_bytes * self.intake.byte_rate / BYTE_RATE

    @property
    def _spoken(self) -> int:
        """How far its sound came out of the converter, which dies with this process and what it holds back."""
        frame_bytes = self.intake.frame_bytes
        return self.cut - math.ceil(max(0.0, self._held_back) / frame_bytes) * frame_bytes

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

    def confirm_all(self) -> None:
        """Note that LiveAvatar has all that was sent: something that came after it was taken."""
        self.delivery.confirm_all()
        self.committed = self.end_sent

    def read(self, number: int, *, sent_by_s: float) -> None:
        """Note that LiveAvatar read all up to a number; see `Delivery.read`."""
        self.delivery.read(number, sent_by_s=sent_by_s)
        end = self.end_sending
        if end is not None and end.number <= number and end.at_s <= sent_by_s:
            self.committed = True

    def presume(self, *, sent_by_s: float) -> None:
        """Take for there what was sent by then, where nothing will ever prove it."""
        self.delivery.presume(sent_by_s=sent_by_s)
        if self.end_sending is not None and self.end_sending.at_s <= sent_by_s:
            self.committed = True

    def lose(self) -> int:
        """Note that the socket is gone; returns how much goes out again that was not confirmed, PCM bytes.

        What was to go out again before, and did not yet, is not counted.
        """
        if not self.committed:
            self.end_sending = self.overdue_at_s = None
        self.blind = not self.started
        return self.delivery.lose()

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
        self.delivery = Delivery()
        self.committed = self.blind = False
        self._converter = self.intake.new_converter()
        self._held_back = 0.0
        self.cut = 0
        self.sent_s = 0.0
        self.signed = False
        self._flushed = False
        self.first_sent_at_s = self.overdue_at_s = None
        self.end_sending = None

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
        self.delivery.again.clear()
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
        self.delivery.forget()
        if outcome is Outcome.COMPLETED:
            self.delivery.confirmed = self.cut
        return dropped
