"""Credit of a stream, and audio that may have to be sent again. Pure; in bytes of the caller's format."""

from collections import deque
from typing import NamedTuple

from liveavatar.gateway.audio import AudioFormat

MAX_GAPS = 16
"""Most gaps that are repaired in an utterance. More gaps mean a systematic fault."""


class Chunk(NamedTuple):
    """Audio with its offset in an utterance."""

    offset_bytes: int
    audio: bytes

    @property
    def end_bytes(self) -> int:
        """Offset of the audio behind this chunk."""
        return self.offset_bytes + len(self.audio)


class CreditAccount:
    """Credit of one audio stream.

    The gateway reports its credit beyond the bytes it had received; bytes that were sent and not acknowledged
    count against the credit. Invariant: bytes in flight never exceed the newest credit, so the gateway never
    answers CREDIT_EXCEEDED.
    """

    def __init__(self, credit_bytes: int) -> None:
        self._credit_bytes = credit_bytes
        self._sent: dict[str, int] = {}
        self._received: dict[str, int] = {}

    @property
    def in_flight_bytes(self) -> int:
        """Bytes that were sent and not acknowledged."""
        return sum(sent - self._received[utterance_id] for utterance_id, sent in self._sent.items())

    @property
    def available_bytes(self) -> int:
        """Bytes that may be sent now; never negative."""
        return max(self._credit_bytes - self.in_flight_bytes, 0)

    def begin(self, utterance_id: str) -> None:
        """Count the bytes of an utterance. A resumed utterance counts from the offset of its first ack."""
        self._sent[utterance_id] = 0
        self._received[utterance_id] = 0

    def sent(self, utterance_id: str, upto_bytes: int) -> None:
        """Note that the utterance was sent up to `upto_bytes`; lower than before after a rewind."""
        if utterance_id in self._sent:
            self._sent[utterance_id] = max(upto_bytes, self._received[utterance_id])

    def ack(self, utterance_id: str, received_bytes: int, credit_bytes: int) -> None:
        """Take over an ack. Its credit counts even if the utterance was forgotten."""
        self._credit_bytes = credit_bytes
        if utterance_id in self._sent:
            received = max(received_bytes, self._received[utterance_id])
            self._received[utterance_id] = received
            self._sent[utterance_id] = max(self._sent[utterance_id], received)

    def forget(self, utterance_id: str) -> None:
        """Forget an utterance that ended: the gateway drops its audio in flight, which uses no credit."""
        self._sent.pop(utterance_id, None)
        self._received.pop(utterance_id, None)


def sendable_bytes(audio_format: AudioFormat, *, wanted: int, available: int, in_flight: int) -> int:
    """Return how many of `wanted` bytes to send, in whole frames; 0: wait for an ack.

    A chunk is sent when all of it fits the credit, or at least 20 ms: smaller chunks cost too much. Without bytes
    in flight no ack may come, so then a chunk of any size is sent.
    """
    if available >= wanted:
        return audio_format.whole(wanted)
    fits = audio_format.whole(available)
    worthwhile = fits >= audio_format.size_bytes(0.02) or in_flight == 0
    return fits if worthwhile else 0


class SendWindow:
    """Audio of one utterance that LiveAvatar has not confirmed and that may have to be sent again.

    Invariant: the kept chunks are adjacent and end at `next_offset`. Chunks before `sent_offset` were sent on the
    live stream; the others are to be sent again before any new audio.
    """

    def __init__(self) -> None:
        self._sent: deque[Chunk] = deque()
        self._resend: deque[Chunk] = deque()
        self._rewound_to: int | None = None
        self._gaps = 0
        self._next_offset = 0
        self._kept_from = 0

    @property
    def next_offset(self) -> int:
        """Offset of audio that was never sent."""
        return self._next_offset

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept."""
        return self._next_offset - self._kept_from

    @property
    def resend_bytes(self) -> int:
        """Size of the next chunk to send again, before any new audio; 0 without such a chunk."""
        return len(self._resend[0].audio) if self._resend else 0

    @property
    def sent_offset(self) -> int:
        """Offset of the next chunk, sent again or new."""
        return self._resend[0].offset_bytes if self._resend else self._next_offset

    def append(self, audio: bytes) -> Chunk:
        """Keep new audio, and return it with its offset."""
        chunk = Chunk(self._next_offset, audio)
        self._next_offset = chunk.end_bytes
        self._sent.append(chunk)
        return chunk

    def resend(self, limit_bytes: int) -> Chunk:
        """Return the next chunk to send again, at most `limit_bytes` of it."""
        chunk = self._resend.popleft()
        if len(chunk.audio) > limit_bytes:
            self._resend.appendleft(Chunk(chunk.offset_bytes + limit_bytes, chunk.audio[limit_bytes:]))
            chunk = Chunk(chunk.offset_bytes, chunk.audio[:limit_bytes])
        self._sent.append(chunk)
        return chunk

    def discard(self, confirmed_bytes: int) -> None:
        """Discard the chunks that end at or below `confirmed_bytes`, which LiveAvatar has."""
        for chunks in (self._sent, self._resend):
            while chunks and chunks[0].end_bytes <= confirmed_bytes:
                self._kept_from = chunks.popleft().end_bytes

    def rewind(self, offset_bytes: int) -> bool:
        """Schedule the audio behind `offset_bytes` to be sent again, before new audio.

        Returns:
            False when the audio at this offset is not kept or was never sent.
        """
        if not self._kept_from <= offset_bytes <= self._next_offset:
            return False
        self._rewound_to = None
        kept = (*self._sent, *self._resend)
        self._sent.clear()
        self._resend.clear()
        for chunk in kept:
            before = min(max(offset_bytes - chunk.offset_bytes, 0), len(chunk.audio))
            if before:
                self._sent.append(Chunk(chunk.offset_bytes, chunk.audio[:before]))
            if before < len(chunk.audio):
                self._resend.append(Chunk(chunk.offset_bytes + before, chunk.audio[before:]))
        return True

    def repair_gap(self, expected: int) -> bool:
        """Rewind to `expected` after AUDIO_GAP.

        The gateway also refuses later chunks in flight, each with the same `expected`; only the first refusal
        counts.

        Returns:
            False when the bytes at `expected` are not kept, or after more than `MAX_GAPS` gaps.
        """
        if expected == self._rewound_to:
            return True
        self._gaps += 1
        if self._gaps > MAX_GAPS or not self.rewind(expected):
            return False
        self._rewound_to = expected
        return True
