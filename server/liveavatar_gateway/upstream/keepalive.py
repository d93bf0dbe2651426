"""One timer that keeps all sessions alive, instead of a task for each."""

import heapq
import itertools
import random
from dataclasses import dataclass
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAliveConfig:
    """When keep-alives are sent."""

    interval_s: float = 60.0
    """How long after the last command. LiveAvatar ends sessions that are idle for 5 minutes, and some observers
    saw ends after 2 to 3; its own plugin sends every 60 s. Higher risks that, lower only costs messages."""
    jitter: float = 0.1
    """Share of the interval by which each is sent earlier, at random, so that many do not send at once."""


class KeepAliveTarget(Protocol):
    """Something that goes to sleep when it sends nothing."""

    @property
    def last_command_at_s(self) -> float:
        """Monotonic time of its last command."""

    def keep_alive(self) -> None:
        """Send a keep-alive."""


@dataclass(slots=True)
class _Entry:
    """A session's place in the schedule; None when the session was let go, which is then free to go itself."""

    session: KeepAliveTarget | None


class KeepAliveSchedule:
    """Who is to be kept alive, and when. Pure: time comes in as an argument.

    A session's entry is looked at when it may be due; one that has spoken meanwhile is put back by as much, so
    that speaking costs nothing here.
    """

    def __init__(self, config: KeepAliveConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._heap: list[tuple[float, int, _Entry]] = []
        self._count = itertools.count()
        self._entries: dict[int, _Entry] = {}

    def add(self, session: KeepAliveTarget, now_s: float) -> None:
        """Keep a session alive from now on. Once for each session."""
        entry = self._entries[id(session)] = _Entry(session)
        self._push(entry, now_s)

    def remove(self, session: KeepAliveTarget) -> None:
        """Let it go. Its empty entry falls out when it comes up."""
        if (entry := self._entries.pop(id(session), None)) is not None:
            entry.session = None

    def next_s(self) -> float | None:
        """When `run` is due next; None when there is nobody."""
        return self._heap[0][0] if self._heap else None

    def run(self, now_s: float) -> int:
        """Keep alive all that are due; returns how many."""
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
            except Exception:  # noqa: BLE001 - a fault of one session must not let the others fall asleep
                _log.exception("keep_alive.failed")
            count += 1
            self._push(entry, now_s)
        return count

    def _push(self, entry: _Entry, since_s: float) -> None:
        early = self._rng.uniform(0.0, self._config.jitter)
        due_s = since_s + self._config.interval_s * (1 - early)
        heapq.heappush(self._heap, (due_s, next(self._count), entry))
