"""Audio of users on its way to one listener: cut into chunks, bounded, and sent as far as credit goes."""

from collections import deque
from dataclasses import dataclass
from typing import Final

MAX_CREDIT_BYTES: Final = 64 * 2**20
"""Most unused credit of a listener, which no audio could use up within minutes."""
_MAX_REMEMBERED: Final = 256
"""Participants whose numbering continues; above that, those who were silent longest are forgotten."""


@dataclass(frozen=True, slots=True)
class UserChunk:
    """Audio of a participant, in the listener's format."""

    participant: str
    captured_s: float
    """Time of the first sample, seconds of the wall clock."""
    sequence: int
    """Number among all chunks of the participant, from 1."""
    audio: bytes
    dropped_s: float
    """Audio of the participant that was dropped directly before."""


class _Voice:
    """Audio of one participant: the begin of a chunk, and the chunks that wait for credit."""

    def __init__(self) -> None:
        self.partial = bytearray()
        self.partial_s = 0.0
        self.sequence = 0
        self.waiting: deque[tuple[int, int, float, bytes]] = deque()
        """Position among the chunks of all participants, sequence, time and audio; oldest first."""
        self.waiting_bytes = 0
        self.dropped_bytes = 0


class ListenerBuffer:
    """Chunks for one listener, oldest first.

    Invariant: what waits of a participant is at most `max_waiting_bytes`. Above that the oldest is dropped, and
    the next chunk of the participant has the duration.
    """

    def __init__(self, *, byte_rate: int, chunk_bytes: int, credit_bytes: int, max_waiting_bytes: int) -> None:
        """Begin without audio.

        Args:
            byte_rate: Bytes per second of the listener's format.
            chunk_bytes: Size of a chunk.
            credit_bytes: First credit.
            max_waiting_bytes: Most bytes of one participant that wait for credit; at least a chunk.
        """
        self._byte_rate = byte_rate
        self._chunk_bytes = chunk_bytes
        self._credit_bytes = min(credit_bytes, MAX_CREDIT_BYTES)
        self._max_waiting_bytes = max(max_waiting_bytes, chunk_bytes)
        self._voices: dict[str, _Voice] = {}
        self._count = 0
        self.sent_bytes = 0
        """Bytes that `take` has returned."""
        self.dropped_bytes = 0
        """Bytes that were dropped for lack of credit."""

    @property
    def credit_bytes(self) -> int:
        """Bytes that may be sent now."""
        return self._credit_bytes

    def grant(self, size_bytes: int) -> None:
        """Add credit."""
        self._credit_bytes = min(self._credit_bytes + size_bytes, MAX_CREDIT_BYTES)

    def append(self, participant: str, audio: bytes, captured_s: float) -> None:
        """Add audio of a participant.

        Args:
            participant: Identity of the participant.
            audio: Whole samples in the listener's format.
            captured_s: Time of the first sample, seconds of the wall clock.
        """
        voice = self._voice(participant)
        # Anew with each piece, so that no difference between clocks adds up.
        voice.partial_s = captured_s - len(voice.partial) / self._byte_rate
        voice.partial += audio
        while len(voice.partial) >= self._chunk_bytes:
            self._add(voice, self._chunk_bytes)
        self._bound(voice)

    def flush(self, participant: str) -> None:
        """Complete the last chunk of a participant who is not heard any more; it may be short."""
        voice = self._voices.get(participant)
        if voice is not None and voice.partial:
            self._add(voice, len(voice.partial))
            self._bound(voice)

    def take(self) -> UserChunk | None:
        """Remove and return the oldest chunk; None if there is none, or the credit is less than it takes."""
        waiting = [(voice.waiting[0], name) for name, voice in self._voices.items() if voice.waiting]
        if not waiting:
            return None
        (_, sequence, captured_s, audio), name = min(waiting)
        if len(audio) > self._credit_bytes:
            return None
        voice = self._voices[name]
        voice.waiting.popleft()
        voice.waiting_bytes -= len(audio)
        self._credit_bytes -= len(audio)
        self.sent_bytes += len(audio)
        dropped_s, voice.dropped_bytes = voice.dropped_bytes / self._byte_rate, 0
        return UserChunk(name, captured_s, sequence, audio, dropped_s)

    def _voice(self, participant: str) -> _Voice:
        voice = self._voices.pop(participant, None) or _Voice()
        self._voices[participant] = voice
        if len(self._voices) > _MAX_REMEMBERED:
            # Whoever spoke last is at the end.
            forgotten = self._voices.pop(next(iter(self._voices)))
            self.dropped_bytes += forgotten.waiting_bytes
        return voice

    def _add(self, voice: _Voice, size_bytes: int) -> None:
        audio = bytes(voice.partial[:size_bytes])
        del voice.partial[:size_bytes]
        self._count += 1
        voice.sequence += 1
        voice.waiting.append((self._count, voice.sequence, voice.partial_s, audio))
        voice.waiting_bytes += size_bytes
        voice.partial_s += size_bytes / self._byte_rate

    def _bound(self, voice: _Voice) -> None:
        while voice.waiting_bytes > self._max_waiting_bytes:
            _, _, _, audio = voice.waiting.popleft()
            voice.waiting_bytes -= len(audio)
            voice.dropped_bytes += len(audio)
            self.dropped_bytes += len(audio)
