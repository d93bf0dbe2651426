"""Deadlines of one session: duration limit, billing, missing socket, inactivity. Pure.

Source: LiveAvatar API reference, timers.
"""

from enum import Enum, auto

from liveavatar_emulator.config import Settings

BILLING_PERIOD_S = 60.0


class Deadline(Enum):
    """Deadline of a session, in the order in which deadlines of the same moment are taken."""

    # The limit precedes billing, so that a session of exactly one minute costs one minute.
    DURATION = auto()
    BILLING = auto()
    REAP = auto()
    IDLE = auto()


class SessionTimers:
    """Due times of one session's deadlines; all times are seconds of the session's clock."""

    def __init__(self, *, now_s: float, limit_s: float, billed: bool, needs_socket: bool) -> None:
        self._limit_due_s: float | None = now_s + limit_s
        self._billing_due_s: float | None = now_s + BILLING_PERIOD_S if billed else None
        self._last_activity_s = now_s
        self._detached_since_s: float | None = now_s if needs_socket else None

    def note_activity(self, now_s: float) -> None:
        """Restart the idle timer."""
        self._last_activity_s = now_s

    def attach(self) -> None:
        """Stop the reap timer: a socket is attached."""
        self._detached_since_s = None

    def detach(self, now_s: float) -> None:
        """Start the reap timer: no socket is attached."""
        self._detached_since_s = now_s

    def next_due_s(self, settings: Settings) -> float:
        """Return the time of the earliest deadline."""
        due_s = self._last_activity_s + settings.idle_s
        if self._detached_since_s is not None:
            due_s = min(due_s, self._detached_since_s + settings.reap_s)
        for other_s in (self._limit_due_s, self._billing_due_s):
            if other_s is not None and other_s < due_s:
                due_s = other_s
        return due_s

    def take(self, due_s: float, settings: Settings) -> Deadline:
        """Return the deadline that is due at `due_s`, and set the next one of its kind if it recurs."""
        if self._limit_due_s is not None and self._limit_due_s <= due_s:
            self._limit_due_s = None
            return Deadline.DURATION
        if self._billing_due_s is not None and self._billing_due_s <= due_s:
            self._billing_due_s += BILLING_PERIOD_S
            return Deadline.BILLING
        if self._detached_since_s is not None and self._detached_since_s + settings.reap_s <= due_s:
            return Deadline.REAP
        return Deadline.IDLE
