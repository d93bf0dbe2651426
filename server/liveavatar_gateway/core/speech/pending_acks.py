"""Unanswered commands of the current socket, so that an answer without a name finds its own."""

from collections import deque
from dataclasses import dataclass
from enum import Enum, unique

_MAX_PENDING = 1024
"""Most commands that are kept where nothing is ever acknowledged: some 17 minutes of speech."""


@unique
class Kind(Enum):
    """Commands that LiveAvatar answers, each kind with an event of its own."""

    PACKET = "packet"
    END = "end"
    INTERRUPT = "interrupt"


@dataclass(slots=True, eq=False)
class PendingAck:
    """A command whose answer may still come."""

    kind: Kind
    event_id: str
    """Upstream id of the utterance, or of the interrupt."""
    number: int
    """The number of its sending."""
    ordinal: int = 0
    """Ordinal of the packet in its utterance."""
    settled_at_s: float | None = None
    """Time at which a later command was answered first; None before."""


class PendingAcks:
    """Unanswered commands of one socket, in the order they went out, whatever became of their utterances.

    LiveAvatar answers them in that order. When it answers one, those before it were either dropped by an interrupt
    without an answer, or their answers are late. For a moment they are still taken for late: an answer that is
    counted for a packet too early costs at most a repeat, one that is counted too late would lose audio.
    """

    def __init__(self, late_s: float) -> None:
        """Begin without any.

        Args:
            late_s: How much later than the answer to a command the answers to those before it may come.
        """
        self._late_s = late_s
        self._all: deque[PendingAck] = deque(maxlen=_MAX_PENDING)

    def add(self, awaited: PendingAck) -> None:
        """Note a command that goes out now."""
        self._all.append(awaited)

    def take(self, kind: Kind, event_id: str, now_s: float) -> PendingAck | None:
        """Take the oldest command of a kind: with an `event_id` the oldest of that one, else of any."""
        self._forget_settled(now_s)
        found = next(
            (one for one in self._all if one.kind is kind and (not event_id or one.event_id == event_id)), None
        )
        if found is None:
            return None
        for earlier in self._all:
            if earlier is found:
                break
            if earlier.settled_at_s is None:
                earlier.settled_at_s = now_s
        self._all.remove(found)
        return found

    def has(self, kind: Kind, event_id: str) -> bool:
        """Return whether an answer to a certain command may still come."""
        return any(one.kind is kind and one.event_id == event_id for one in self._all)

    def _forget_settled(self, now_s: float) -> None:
        while self._all:
            settled_at_s = self._all[0].settled_at_s
            if settled_at_s is None or now_s - settled_at_s <= self._late_s:
                return
            self._all.popleft()

    def clear(self) -> None:
        """Forget all: their socket is gone, and their answers with it."""
        self._all.clear()
