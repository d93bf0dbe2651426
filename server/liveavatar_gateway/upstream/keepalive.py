"""Schedule of keep-alives: one timer for all sessions instead of a task for each."""

import heapq
import itertools
import random
from dataclasses import dataclass
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAliveConfig:
    """Timing of keep-alives."""

    interval_s: float = 60.0
    """Time after the last command. LiveAvatar ends sessions that are idle for 5 minutes, some users observed 2 to
    3, and its own plugin sends every 60 s. Higher risks such ends, lower only costs messages."""
    jitter: float = 0.1
    """Largest share of the interval by which a keep-alive is sent early, at random, to spread them over time."""


class KeepAliveTarget(Protocol):
    """Session that LiveAvatar ends when it is idle."""

    @property
    def last_command_at_s(self) -> float:
        """Monotonic time of the last command."""

    def keep_alive(self) -> None:
        """Send a keep-alive."""


@dataclass(slots=True)
class _Entry:
    """Heap entry of a session; None once the session was removed, so that the heap does not keep it in memory."""

    session: KeepAliveTarget | None


class KeepAliveSchedule:
    """Keep-alive deadlines of all sessions. Pure: time is an argument.

    An entry is checked at its deadline and rescheduled from the session's last command, so that sending audio
    costs nothing here.
    """

    def __init__(self, config: KeepAliveConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._heap: list[tuple[float, int, _Entry]] = []
        self._count = itertools.count()
        self._entries: dict[int, _Entry] = {}

    def add(self, session: KeepAliveTarget, now_s: float) -> None:
        """Keep a session alive from now on. At most once for each session."""
        entry = self._entries[id(session)] = _Entry(session)
        self._push(entry, now_s)

    def remove(self, session: KeepAliveTarget) -> None:
        """Stop keeping a session alive. Its empty entry is dropped at its deadline."""
        if (entry := self._entries.pop(id(session), None)) is not None:
            entry.session = None

    def next_s(self) -> float | None:
        """Return the time at which `run` is due next; None without sessions."""
        return self._heap[0][0] if self._heap else None

    def run(self, now_s: float) -> int:
        """Send the keep-alives that are due; return their number."""
        count = 0
        while self._heap and self._heap[0][0] <= now_s:
            _, _, entry = heapq.heappop(self._heap)
            if (session := entry.session) is None:
                continue
            if session.last_command_at_s + self._config.interval_s * (1 - self._config.jitter) > now_s:
                self._push(entry, session.last_command_at_s)
                continue
            try:
                session.keep_alive()
            except Exception:  # noqa: BLE001 - a fault of one session must not keep the others from being kept alive
                _log.exception("keep_alive.failed")
            count += 1
            self._push(entry, now_s)
        return count

    def _push(self, entry: _Entry, since_s: float) -> None:
        early = self._rng.uniform(0.0, self._config.jitter)
        due_s = since_s + self._config.interval_s * (1 - early)
        heapq.heappush(self._heap, (due_s, next(self._count), entry))
