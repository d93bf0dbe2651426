"""Unanswered commands of the current socket, to match answers that name no command."""

from collections import deque
from dataclasses import dataclass
from enum import Enum, unique
from itertools import takewhile

_MAX_PENDING = 1024
"""Largest number of commands that are kept where LiveAvatar acknowledges nothing: some 17 minutes of speech."""


@unique
class Kind(Enum):
    """Kind of a command that LiveAvatar answers, each with its own type of event."""

    PACKET = "packet"
    END = "end"
    INTERRUPT = "interrupt"


@dataclass(slots=True, eq=False)
class PendingAck:
    """Command whose answer may still come."""

    kind: Kind
    event_id: str
    """Upstream id of the utterance, or of the interrupt."""
    number: int
    """Number of its sending."""
    ordinal: int = 0
    """Ordinal of the packet in its utterance."""
    settled_at_s: float | None = None
    """Time at which a later command was answered before this one; None while that has not happened."""


class PendingAcks:
    """Unanswered commands of one socket in the order of sending, those of ended utterances included.

    LiveAvatar answers commands in that order. When it answers one, the commands before it were either dropped by
    an interrupt without an answer, or their answers are late. For a moment the answers count as late: an answer
    that is matched to an earlier packet costs at most a repeat, while one that is matched to a later packet would
    lose audio.
    """

    def __init__(self, late_s: float) -> None:
        """Create an empty queue.

        Args:
            late_s: Longest delay of an answer behind the answer to a later command.
        """
        self._late_s = late_s
        self._all: deque[PendingAck] = deque(maxlen=_MAX_PENDING)

    def add(self, awaited: PendingAck) -> None:
        """Add a command that is sent now."""
        self._all.append(awaited)

    def take(self, kind: Kind, event_id: str, now_s: float) -> PendingAck | None:
        """Remove and return the oldest command of a kind, with an `event_id` the oldest one of that id."""
        self._forget_settled(now_s)
        found = next(
            (one for one in self._all if one.kind is kind and (not event_id or one.event_id == event_id)), None
        )
        if found is None:
            return None
        for earlier in takewhile(lambda one: one is not found, self._all):
            if earlier.settled_at_s is None:
                earlier.settled_at_s = now_s
        self._all.remove(found)
        return found

    def has(self, kind: Kind, event_id: str) -> bool:
        """Return True when the answer to a command may still come."""
        return any(one.kind is kind and one.event_id == event_id for one in self._all)

    def _forget_settled(self, now_s: float) -> None:
        while self._all:
            settled_at_s = self._all[0].settled_at_s
            if settled_at_s is None or now_s - settled_at_s <= self._late_s:
                return
            self._all.popleft()

    def clear(self) -> None:
        """Remove all commands, since their socket is lost."""
        self._all.clear()
