"""How much audio may be sent, and what may have to be sent again: pure accounting in the caller's bytes."""

from collections import deque
from typing import NamedTuple

from liveavatar.gateway.audio import AudioFormat

MAX_GAPS = 16
"""Holes an utterance may have repaired. Only a fault makes one; more of them are no accident."""


class Chunk(NamedTuple):
    """Audio at its place in an utterance."""

    offset_bytes: int
    audio: bytes

    @property
    def end_bytes(self) -> int:
        """Where the audio behind it goes on."""
        return self.offset_bytes + len(self.audio)


class CreditLedger:
    """What one audio stream may still send.

    The gateway tells its credit beyond the bytes it had taken when it spoke; everything sent and not yet
    acknowledged counts against it. Invariant: bytes in flight never exceed the newest credit, so the gateway
    has no cause for CREDIT_EXCEEDED.
    """

    def __init__(self, credit_bytes: int) -> None:
        self._credit_bytes = credit_bytes
        self._sent: dict[str, int] = {}
        self._received: dict[str, int] = {}

    @property
    def in_flight_bytes(self) -> int:
        """Bytes sent that no ack has covered."""
        return sum(sent - self._received[utterance_id] for utterance_id, sent in self._sent.items())

    @property
    def available_bytes(self) -> int:
        """Bytes that may be sent now; never negative."""
        return max(self._credit_bytes - self.in_flight_bytes, 0)

    def begin(self, utterance_id: str) -> None:
        """Count for an utterance from now on. One that is resumed counts from where its first ack says."""
        self._sent[utterance_id] = 0
        self._received[utterance_id] = 0

    def sent(self, utterance_id: str, upto_bytes: int) -> None:
        """Count what goes out: the utterance is sent up to `upto_bytes`. Lower than before means: sent again."""
        if utterance_id in self._sent:
            self._sent[utterance_id] = max(upto_bytes, self._received[utterance_id])

    def ack(self, utterance_id: str, received_bytes: int, credit_bytes: int) -> None:
        """Take over what an ack says. The credit counts even where its utterance is forgotten."""
        self._credit_bytes = credit_bytes
        if utterance_id in self._sent:
            received = max(received_bytes, self._received[utterance_id])
            self._received[utterance_id] = received
            self._sent[utterance_id] = max(self._sent[utterance_id], received)

    def forget(self, utterance_id: str) -> None:
        """The utterance is over: what is on its way is dropped by the gateway and takes no credit."""
        self._sent.pop(utterance_id, None)
        self._received.pop(utterance_id, None)


def sendable_bytes(audio_format: AudioFormat, *, wanted: int, available: int, in_flight: int) -> int:
    """How much of `wanted` bytes to send, whole frames; 0 means wait for an ack.

    A chunk waits until all of it fits, or 20 ms of it: smaller ones would cost more than they carry. With
    nothing in flight no ack need ever come, so then anything goes.
    """
    if available >= wanted:
        return audio_format.whole(wanted)
    fits = audio_format.whole(available)
    worthwhile = fits >= audio_format.size_bytes(0.02) or in_flight == 0
    return fits if worthwhile else 0


class SendWindow:
    """The bytes of one utterance that LiveAvatar is not known to have: a broken stream may want them again.

    Invariant: the kept chunks are adjacent and end at `next_offset`; those before `sent_offset` were sent on the
    stream that lives, the others are to be sent (again) before any new audio.
    """

    def __init__(self) -> None:
        self._sent: deque[Chunk] = deque()
        self._again: deque[Chunk] = deque()
        self._went_back_to: int | None = None
        self._gaps = 0
        self._next_offset = 0
        self._kept_from = 0

    @property
    def next_offset(self) -> int:
        """Where audio that was never sent goes on."""
        return self._next_offset

    @property
    def kept_bytes(self) -> int:
        """How much is kept."""
        return self._next_offset - self._kept_from

    @property
    def again_bytes(self) -> int:
        """Size of the next chunk to repeat, before any new audio; 0 when there is none."""
        return len(self._again[0].audio) if self._again else 0

    @property
    def sent_offset(self) -> int:
        """Where the next chunk goes, repeated or new."""
        return self._again[0].offset_bytes if self._again else self._next_offset

    def send(self, audio: bytes) -> Chunk:
        """Give new audio its place and keep it."""
        chunk = Chunk(self._next_offset, audio)
        self._next_offset = chunk.end_bytes
        self._sent.append(chunk)
        return chunk

    def send_again(self, limit_bytes: int) -> Chunk:
        """Take the next chunk to repeat, at most `limit_bytes` of it."""
        chunk = self._again.popleft()
        if len(chunk.audio) > limit_bytes:
            self._again.appendleft(Chunk(chunk.offset_bytes + limit_bytes, chunk.audio[limit_bytes:]))
            chunk = Chunk(chunk.offset_bytes, chunk.audio[:limit_bytes])
        self._sent.append(chunk)
        return chunk

    def let_go(self, taken_bytes: int) -> None:
        """Keep nothing below `taken_bytes`, which LiveAvatar has: chunks that lie below it as a whole go."""
        for chunks in (self._sent, self._again):
            while chunks and chunks[0].end_bytes <= taken_bytes:
                self._kept_from = chunks.popleft().end_bytes

    def go_back(self, offset_bytes: int) -> bool:
        """Send what follows `offset_bytes` (again), and then go on with new audio.

        Returns:
            False when the utterance cannot go on there: its audio is not kept, or was never sent.
        """
        if not self._kept_from <= offset_bytes <= self._next_offset:
            return False
        self._went_back_to = None
        kept = (*self._sent, *self._again)
        self._sent.clear()
        self._again.clear()
        for chunk in kept:
            before = min(max(offset_bytes - chunk.offset_bytes, 0), len(chunk.audio))
            if before:
                self._sent.append(Chunk(chunk.offset_bytes, chunk.audio[:before]))
            if before < len(chunk.audio):
                self._again.append(Chunk(chunk.offset_bytes + before, chunk.audio[before:]))
        return True

    def gap(self, expected: int) -> bool:
        """Go back to `expected` after AUDIO_GAP.

        Chunks that were on their way behind the hole may be refused as well, each with the same `expected`; the
        first refusal counts.

        Returns:
            False when the utterance cannot go on: the bytes at `expected` are not kept, or holes are the rule.
        """
        if expected == self._went_back_to:
            return True
        self._gaps += 1
        if self._gaps > MAX_GAPS or not self.go_back(expected):
            return False
        self._went_back_to = expected
        return True
