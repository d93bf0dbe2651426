"""Playback clock over a queue of utterances: the audio that the avatar has said by a given moment. Pure.

Audio drains at 48 000 bytes per second. An utterance starts a short delay after its first chunk, plays while it
has audio, waits when it runs dry, and ends once its audio is played and `speak_end` has arrived. Then the next
utterance follows. An interrupt cuts all utterances queued before it, a short delay after its arrival.

Times are seconds of one monotonic clock; a change has its exact due time however late `fire` is called.

Source: LiveAvatar API reference, `agent.speak`, `agent.speak_end`, `agent.interrupt` and the playback figures
there.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

BYTES_PER_SECOND = 48_000
"""PCM signed 16-bit little-endian, mono, 24 000 Hz."""

_EPSILON_S = 1e-6


class Outcome(StrEnum):
    """Outcome of an utterance; OPEN also if its session ended first."""

    OPEN = "open"
    ENDED = "ended"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Underrun:
    """Gap in an open utterance that ran dry and resumed later."""

    dry_at_s: float
    resumed_at_s: float


@dataclass(slots=True, eq=False)
class Utterance:
    """Utterance on the playback clock. Invariant: played_bytes <= received_bytes, and neither decreases."""

    number: int
    source_event_id: str | None
    task_id: str
    opened_at_s: float
    received_bytes: int = 0
    startable_at_s: float | None = None
    """Time at which enough audio to start was buffered."""
    started_at_s: float | None = None
    speak_end_at_s: float | None = None
    ended_at_s: float | None = None
    outcome: Outcome = Outcome.OPEN
    played_bytes: int = 0
    underruns: list[Underrun] = field(default_factory=list)
    anchor_s: float = 0.0
    """Time at which the playhead was at `anchor_bytes`; it moves at the clock's rate from there."""
    anchor_bytes: int = 0
    dry_noticed: bool = False
    """True if `RanDry` was returned for the audio received so far."""

    def dry_at_s(self, rate: float) -> float:
        """Return the time at which the audio received so far has been played."""
        return self.anchor_s + (self.received_bytes - self.anchor_bytes) / rate

    def playhead_bytes(self, now_s: float, rate: float) -> int:
        """Return the whole samples played by `now_s`, in bytes."""
        if self.started_at_s is None:
            return 0
        moved = self.anchor_bytes + int(max(0.0, now_s - self.anchor_s) * rate + _EPSILON_S)
        return self.received_bytes if moved >= self.received_bytes else moved & ~1

    def anchor(self, now_s: float, position_bytes: int) -> None:
        """Move the playhead from `position_bytes` from `now_s` on."""
        self.anchor_s = now_s
        self.anchor_bytes = position_bytes


@dataclass(frozen=True, slots=True)
class Started:
    """First frame of an utterance was played."""

    utterance: Utterance
    at_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """End of an utterance that was played completely."""

    utterance: Utterance
    at_s: float


@dataclass(frozen=True, slots=True)
class RanDry:
    """End of the audio of an open utterance; an underrun only if audio follows."""

    utterance: Utterance
    at_s: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Effect of an interrupt. `head` was playing or first in the queue; None for an empty queue."""

    event_id: str | None
    received_at_s: float
    at_s: float
    head: Utterance | None
    dropped: tuple[Utterance, ...]
    """Utterances behind the head, of which no audio was played."""


Change = Started | Ended | RanDry | Cut


@dataclass(frozen=True, slots=True)
class Appended:
    """Audio accepted into `utterance`; `underrun` is the gap it ended, if any."""

    utterance: Utterance
    opened: bool
    underrun: Underrun | None


@dataclass(frozen=True, slots=True)
class _Interrupt:
    event_id: str | None
    received_at_s: float
    effective_at_s: float
    last_number: int


class Playback:
    """Queue of utterances and its clock.

    Call `fire` until it returns None before any other input, so that changes are returned in the order of time.
    """

    def __init__(self, *, speed: float = 1.0, start_delay_s: float = 0.2, start_after_s: float = 0.0) -> None:
        self._rate = BYTES_PER_SECOND * speed
        self._start_delay_s = start_delay_s
        self._start_after_bytes = int(start_after_s * BYTES_PER_SECOND)
        self._queue: deque[Utterance] = deque()
        self._open: Utterance | None = None
        self._interrupts: deque[_Interrupt] = deque()
        self._opened = 0
        self._idle_since_s = float("-inf")

    @property
    def queued(self) -> Iterable[Utterance]:
        """Utterances that have not ended, the playing utterance first."""
        return tuple(self._queue)

    @property
    def talking(self) -> bool:
        """True while an utterance has started and not ended."""
        return bool(self._queue) and self._queue[0].started_at_s is not None

    @property
    def awaits_speak_end(self) -> bool:
        """True if the playing utterance has played all of its audio without a `speak_end`."""
        return self.talking and self._queue[0].dry_noticed and self._queue[0].speak_end_at_s is None

    def configure(self, *, speed: float, start_delay_s: float, start_after_s: float, now_s: float) -> None:
        """Follow changed settings from `now_s` on; the audio played so far stays played."""
        head = self._queue[0] if self._queue else None
        if head is not None and head.started_at_s is not None and head.dry_at_s(self._rate) > now_s:
            head.anchor(now_s, head.playhead_bytes(now_s, self._rate))
        self._rate = BYTES_PER_SECOND * speed
        self._start_delay_s = start_delay_s
        self._start_after_bytes = int(start_after_s * BYTES_PER_SECOND)
        for utterance in self._queue:
            self._note_startable(utterance, now_s)

    def append(self, size_bytes: int, event_id: str | None, now_s: float) -> Appended:
        """Append audio to the open utterance; opens an utterance if none is open."""
        utterance = self._open
        opened = utterance is None
        if utterance is None:
            number = self._opened
            self._opened += 1
            utterance = Utterance(
                number=number, source_event_id=event_id, task_id=f"task-{number + 1}", opened_at_s=now_s
            )
            self._queue.append(utterance)
            self._open = utterance
        underrun = None
        if utterance.started_at_s is not None:
            dry_at_s = utterance.dry_at_s(self._rate)
            if now_s - dry_at_s > _EPSILON_S:
                underrun = Underrun(dry_at_s, now_s)
                utterance.underruns.append(underrun)
                utterance.anchor(now_s, utterance.received_bytes)
        utterance.received_bytes += size_bytes
        utterance.dry_noticed = False
        self._note_startable(utterance, now_s)
        return Appended(utterance, opened, underrun)

    def speak_end(self, now_s: float) -> Utterance | None:
        """Seal the open utterance and return it; None if none is open."""
        utterance, self._open = self._open, None
        if utterance is not None:
            utterance.speak_end_at_s = now_s
            self._note_startable(utterance, now_s)
        return utterance

    def interrupt(self, event_id: str | None, *, effective_at_s: float, now_s: float) -> tuple[Utterance, ...]:
        """Cut all queued utterances at `effective_at_s`; later audio opens a new utterance.

        Returns the affected utterances, also those that end before the cut.
        """
        self._open = None
        if self._interrupts:
            # Interrupts take effect in the order of their arrival, even if the delay was shortened between them.
            effective_at_s = max(effective_at_s, self._interrupts[-1].effective_at_s)
        self._interrupts.append(_Interrupt(event_id, now_s, effective_at_s, self._opened - 1))
        return tuple(self._queue)

    def freeze(self, now_s: float) -> None:
        """Stop for good and leave each utterance in its state at `now_s`."""
        for utterance in self._queue:
            utterance.played_bytes = utterance.playhead_bytes(now_s, self._rate)
        self._queue.clear()
        self._interrupts.clear()
        self._open = None

    def playhead_bytes(self, utterance: Utterance, now_s: float) -> int:
        """Return the bytes of `utterance` played by `now_s`."""
        if utterance.ended_at_s is not None or utterance not in self._queue:
            return utterance.played_bytes
        return utterance.playhead_bytes(now_s, self._rate)

    def backlog_s(self, now_s: float) -> float:
        """Return seconds of audio accepted and not yet played."""
        waiting = sum(item.received_bytes - item.playhead_bytes(now_s, self._rate) for item in self._queue)
        return waiting / BYTES_PER_SECOND

    def next_due_s(self) -> float | None:
        """Return the time of the next change; None if only an input can cause one."""
        due_s = self._head_due_s()
        if self._interrupts:
            cut_s = self._interrupts[0].effective_at_s
            return cut_s if due_s is None or cut_s < due_s else due_s
        return due_s

    def fire(self, now_s: float) -> Change | None:
        """Apply and return the earliest change due by `now_s`; None if no change is due."""
        due_s = self.next_due_s()
        if due_s is None or due_s > now_s:
            return None
        if self._interrupts and self._interrupts[0].effective_at_s <= due_s:
            return self._cut(self._interrupts.popleft())
        head = self._queue[0]
        if head.started_at_s is None:
            head.started_at_s = due_s
            head.anchor(due_s, 0)
            return Started(head, due_s)
        if head.speak_end_at_s is None:
            head.dry_noticed = True
            return RanDry(head, due_s)
        self._queue.popleft()
        self._end(head, Outcome.ENDED, due_s, head.received_bytes)
        return Ended(head, due_s)

    def _head_due_s(self) -> float | None:
        if not self._queue:
            return None
        head = self._queue[0]
        if head.started_at_s is None:
            if head.startable_at_s is None:
                return None
            return max(head.opened_at_s + self._start_delay_s, head.startable_at_s, self._idle_since_s)
        if head.speak_end_at_s is not None:
            return max(head.dry_at_s(self._rate), head.speak_end_at_s)
        return None if head.dry_noticed else head.dry_at_s(self._rate)

    def _note_startable(self, utterance: Utterance, now_s: float) -> None:
        enough = utterance.received_bytes >= self._start_after_bytes or utterance.speak_end_at_s is not None
        if enough and utterance.startable_at_s is None:
            utterance.startable_at_s = now_s

    def _cut(self, interrupt: _Interrupt) -> Cut:
        at_s = interrupt.effective_at_s
        cut: list[Utterance] = []
        while self._queue and self._queue[0].number <= interrupt.last_number:
            utterance = self._queue.popleft()
            self._end(utterance, Outcome.INTERRUPTED, at_s, utterance.playhead_bytes(at_s, self._rate))
            cut.append(utterance)
        head = cut[0] if cut else None
        return Cut(interrupt.event_id, interrupt.received_at_s, at_s, head, tuple(cut[1:]))

    def _end(self, utterance: Utterance, outcome: Outcome, at_s: float, played_bytes: int) -> None:
        utterance.outcome = outcome
        utterance.ended_at_s = at_s
        utterance.played_bytes = played_bytes
        self._idle_since_s = at_s
