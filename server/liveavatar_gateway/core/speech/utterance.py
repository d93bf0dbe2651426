"""One spoken turn: the caller's bytes on their way in, and how far they came."""

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
from liveavatar_gateway.core.speech.delivery import Delivery, Sending
from liveavatar_gateway.core.speech.playout import PlayoutClock
from liveavatar_gateway.core.speech.scheduler import PacketScheduler
from liveavatar_gateway.core.states import Outcome


class Converter(Protocol):
    """Turns one utterance into 24 kHz mono s16le, piece by piece. Not shared between utterances."""

    def convert(self, chunks: Sequence[bytes], *, last: bool) -> bytes:
        """Convert the utterance's next bytes.

        Args:
            chunks: Raw audio in the caller's format, whole samples together, cut anywhere; may be empty.
            last: The utterance ends here, so what the converter holds back comes out too. Final call only.

        Returns:
            PCM that is ready now. It may be empty, and it lags behind its input until `last`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInput:
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
    may_be_container: Callable[[bytes], bool]
    """Says whether some first bytes are too few to tell, so that more must be seen before any is spoken."""
    format: str = ""
    """Name of the caller's format, to tell it from others."""


class Utterance:
    """Bytes of one spoken turn.

    Bytes come cut anywhere. A sample that has not come whole waits for its rest, and the first bytes wait until
    they are known to be samples and no file header.

    Invariant: confirmed <= cut <= freed <= received, all in bytes of the caller's format, and `cut` is whole
    samples. Once `outcome` is set nothing changes any more.
    """

    __slots__ = (
        "_buffer",
        "_converter",
        "_flushed",
        "_held_back",
        "_retained",
        "_unrecognized",
        "blind",
        "committed",
        "cut",
        "delivery",
        "discarded",
        "doubted_at",
        "dry_after_s",
        "end_sending",
        "failure",
        "first_sent_at_s",
        "freed",
        "id",
        "idle_since_s",
        "idle_timeout_s",
        "inferred",
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
        "underrun_count",
        "upstream_id",
        "window",
    )

    def __init__(self, id: str, upstream_id: str, intake: AudioInput, scheduler: PacketScheduler) -> None:  # noqa: A002 - the attribute is public as `id`
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
        self.inferred = False
        """True when its end was concluded from the clock, since LiveAvatar gave no sign."""
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
        self.underrun_count = 0
        self.dry_after_s = 0.0
        """How much of it was sent when it ran dry last, seconds."""
        self.idle_timeout_s: float | None = None
        """Longest time without audio before it is sealed; None for no limit."""
        self.idle_since_s: float | None = None
        """Start of the time that counts for `idle_timeout_s`, unless audio came later; None while no stream can
        bring any."""
        self.outcome: Outcome | None = None
        self._buffer: list[bytes] = []
        self._retained: list[bytes] = []
        self.delivery = Delivery()
        self._converter = intake.new_converter()
        self._flushed = False
        self._held_back = 0.0
        self._unrecognized = True

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
        # Its first bytes were looked at where they came in.
        self._unrecognized = taken_bytes == 0

    @property
    def confirmed(self) -> int:
        """Bytes of it that LiveAvatar is known to have."""
        return self.delivery.confirmed

    @property
    def doubted(self) -> bool:
        """Return whether a socket was taken for dead over it, and nothing more of it was confirmed since."""
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
        """Bytes that wait and can be sent: whole samples, and none while they may be a file's header."""
        if self._unrecognized:
            return 0
        waiting = self._waiting
        return waiting - waiting % self.intake.frame_bytes

    @property
    def _waiting(self) -> int:
        """Bytes that were received, neither cut nor dropped."""
        return self.received - self.cut - self.discarded

    @property
    def dropped_tail_bytes(self) -> int:
        """Bytes of a last sample that never came whole; 0 while the rest may still come."""
        return self.received % self.intake.frame_bytes if self.sealed else 0

    @property
    def has_tail(self) -> bool:
        """Whether all bytes were cut but the converter still holds some of their sound back."""
        return self.sealed and self.cut > 0 and self.buffered == 0 and not self._flushed

    @property
    def charged_s(self) -> float:
        """Seconds that count against the credit. What was cut once does not, even when it has to wait again."""
        return (self.received - self.freed) / self.intake.byte_rate

    @property
    def room_s(self) -> float:
        """Seconds of audio that its window still takes."""
        return (self.window - (self.received - self.freed)) / self.intake.byte_rate

    @property
    def idle_at_s(self) -> float | None:
        """Time at which its idle limit is reached unless audio comes; None when none is running."""
        if self.sealed or self.idle_timeout_s is None or self.idle_since_s is None:
            return None
        return max(self.idle_since_s, self.last_chunk_at_s) + self.idle_timeout_s

    def receive(self, offset: int | None, audio: bytes, now_s: float) -> int:
        """Take a chunk and return how many of its bytes were new.

        Args:
            offset: Where in the utterance the chunk starts, bytes; None is right after the last one.
            audio: Raw samples of the caller's format, cut anywhere.
            now_s: Monotonic time.

        Raises:
            ChunkTooLarge, AudioContainerDetected, AudioGap, InvalidField, CreditExceeded: nothing was taken.
        """
        size = len(audio)
        intake = self.intake
        if size > intake.max_chunk_bytes:
            raise ChunkTooLarge(size, intake.max_chunk_bytes)
        if offset is not None and offset != self.received:
            audio = self._beyond(offset, audio)
            size = len(audio)
        if size == 0:
            return 0
        if self._unrecognized:
            head = b"".join((*self._buffer, audio))
            undecided = intake.may_be_container(head)
            if not undecided and (container := intake.detect_container(head)):
                raise AudioContainerDetected(container)
        else:
            undecided = False
        charged = self.received - self.freed
        if charged + size > self.window:
            raise CreditExceeded(size, max(0, self.window - charged), size / intake.byte_rate)
        self._unrecognized = undecided
        self._buffer.append(audio)
        self.received += size
        self.last_chunk_at_s = now_s
        return size

    def _beyond(self, offset: int, audio: bytes) -> bytes:
        """Drop what was received before; refuse a hole."""
        if offset < 0:
            raise InvalidField(
                f"offset_bytes {offset} is before the utterance; it counts from 0",
                field="chunk.offset_bytes",
                offset_bytes=offset,
            )
        overlap = self.received - offset
        if overlap < 0:
            raise AudioGap(self.id, self.received, offset)
        return audio[overlap:]

    def seal(self, failure: GatewayError | None = None) -> int:
        """Take no more bytes. With a `failure` the utterance ends as FAILED once it is played.

        First bytes that were still undecided are judged as they are: a file's header is dropped and makes the
        utterance fail.

        Returns:
            Bytes that were dropped because they are a file's.
        """
        self.sealed = True
        is_file = isinstance(failure, AudioContainerDetected)
        if self._unrecognized:
            self._unrecognized = False
            if container := self.intake.detect_container(b"".join(self._buffer)):
                is_file = True
                failure = failure or AudioContainerDetected(container)
        self.failure = self.failure or failure
        # What came before the file was recognized is the beginning of its header.
        dropped = self.drop() if is_file else 0
        if self.buffered == 0:
            self.freed = self.received
        return dropped

    def take_packet(self, size: int, sending: Sending) -> bytes:
        """Cut `size` buffered bytes and return them as upstream PCM; may be empty while a resampler fills.

        With a size of 0, take the tail alone. The packet is kept until it is confirmed.
        """
        chunks = self._take(size)
        self.cut += size
        if not self.started:
            self._retained.extend(chunks)
        self._flushed = self.sealed and self.buffered == 0
        self.freed = max(self.freed, self.received if self._flushed else self.cut)
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
        self.sent_s = self.dry_after_s = 0.0
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
        dropped = self._waiting
        self.sealed = True
        self._unrecognized = False
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
