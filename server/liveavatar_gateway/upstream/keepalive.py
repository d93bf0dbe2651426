"""Schedule of keep-alives: one timer for all sessions instead of a task for each."""

import asyncio
import heapq
import itertools
import random
import time
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

_log = structlog.get_logger(__name__)

_RETRY_S: Final = 5.0
"""Longest time until another try. With the shortest of LiveAvatar's observed limits, 2 minutes, ten are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAliveConfig:
    """Timing of keep-alives."""

    interval_s: float = 60.0
    """Time after the last command. LiveAvatar ends sessions that are idle for 5 minutes, some users observed 2 to
    3, and its own plugin sends every 60 s. Higher risks such ends, lower only costs messages."""
    jitter: float = 0.1
    """Largest share of the interval by which a keep-alive is sent early, at random, to spread them over time."""

    @property
    def retry_s(self) -> float:
        """Time after which a keep-alive that was not sent is tried again."""
        return min(_RETRY_S, self.interval_s / 12)


class KeepAliveTarget(Protocol):
    """Session that LiveAvatar ends when it is idle."""

    @property
    def last_command_at_s(self) -> float:
        """Monotonic time at which LiveAvatar last got a command or a keep-alive; minus infinity if unknown."""

    def keep_alive(self) -> None:
        """Send a keep-alive. It is repeated soon unless `last_command_at_s` shows that it was sent."""


@dataclass(slots=True)
class _Entry:
    """Heap entry of a session; None once the session was removed, so that the heap does not keep it in memory."""

    session: KeepAliveTarget | None


class KeepAliveSchedule:
    """Keep-alive deadlines of all sessions. Pure: time is an argument.

    An entry is checked at its deadline and rescheduled from the session's last command, so that sending audio
    costs nothing here. A keep-alive counts only once the session has sent it: one that was lost with its socket,
    or that found no socket, is tried again.
    """

    def __init__(self, config: KeepAliveConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._heap: list[tuple[float, int, _Entry]] = []
        self._count = itertools.count()
        self._entries: dict[int, _Entry] = {}

    def add(self, session: KeepAliveTarget, now_s: float) -> None:
        """Keep a session alive from now on. Again after its last command has become an earlier one."""
        self.remove(session)
        entry = self._entries[id(session)] = _Entry(session)
        # One that is overdue, such as that of an adopted session, has a moment for its socket to open.
        soon_s = now_s + self._rng.uniform(0.0, self._config.jitter) * self._config.interval_s
        self._push(entry, max(soon_s, self._due_s(session.last_command_at_s)))

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
                self._push(entry, self._due_s(session.last_command_at_s))
                continue
            try:
                session.keep_alive()
            except Exception:  # noqa: BLE001 - a fault of one session must not keep the others from being kept alive
                _log.exception("keep_alive.failed")
            count += 1
            self._push(entry, now_s + self._config.retry_s)
        return count

    def _due_s(self, since_s: float) -> float:
        return since_s + self._config.interval_s * (1 - self._rng.uniform(0.0, self._config.jitter))

    def _push(self, entry: _Entry, due_s: float) -> None:
        heapq.heappush(self._heap, (due_s, next(self._count), entry))


class KeepAlives:
    """Keep-alives of all sessions of a process, with the one timer that sends them. The creator closes it."""

    def __init__(self, config: KeepAliveConfig, rng: random.Random) -> None:
        """Prepare; the timer starts with the first session."""
        self._schedule = KeepAliveSchedule(config, rng)
        self._timer: asyncio.TimerHandle | None = None

    def add(self, target: KeepAliveTarget) -> None:
        """Keep a session alive until `remove`; see `KeepAliveSchedule.add`."""
        self._schedule.add(target, time.monotonic())
        self._arm()

    def remove(self, target: KeepAliveTarget) -> None:
        """Stop keeping a session alive. Idempotent."""
        self._schedule.remove(target)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        next_s = self._schedule.next_s()
        self.close()
        if next_s is not None:
            delay_s = max(0.0, next_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._schedule.run(time.monotonic())
        self._arm()
