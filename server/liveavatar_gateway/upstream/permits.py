"""Permits for sessions on one LiveAvatar account, with a bounded waiting queue for callers above the limit."""

import asyncio
import functools
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from liveavatar_gateway.core.errors import CapacityExhausted

_LEAST_STEP_S: Final = 0.25
"""Shortest pause after a refusal."""
_MAX_STEP_S: Final = 4.0
"""Longest pause after a refusal."""
_MAX_SETTLE_S: Final = 8.0
"""Upper bound of the learned pause after the end of a session."""
_SHRINKING: Final = 0.9
_FORGETTING: Final = 0.98
_ABOVE: Final = 1.1
_SUSPECT_S: Final = 15.0
"""Time after the end of a session during which a refusal is attributed to LiveAvatar not having freed it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitsConfig:
    """Number of concurrent sessions, and bounds of the waiting queue."""

    limit: int = 1
    """Concurrent sessions: the account's concurrency limit. LiveAvatar refuses sessions above it (code 4032)."""
    max_waiting: int = 100
    """Size of the waiting queue; the next caller is refused at once. Higher bridges longer peaks but lets callers
    wait in vain."""
    wait_s: float = 30.0
    """Longest wait of a caller without a deadline of its own."""
    settle_s: float = 1.0
    """Time for which a permit stays in use after a stop, since LiveAvatar needs about a second to free the
    session. Lower risks code 4032. Grows automatically, up to 8 s, while LiveAvatar takes longer."""


class Settling:
    """Pause between the end of a session and the next start, learned from LiveAvatar's answers. Pure.

    Two bounds are learned: the longest time after an end at which a start was refused, and the time at which a
    start was accepted. The pause moves from the second towards the first, and the first decays slowly.
    """

    def __init__(self, least_s: float) -> None:
        self.pause_s = least_s
        self._least_s = least_s
        self._refused_after_s = 0.0
        self._shrunk_at_s = float("-inf")

    def refused(self, waited_s: float) -> float:
        """Learn from a refused start and return the additional wait, which grows with the time waited in vain.

        Args:
            waited_s: Time since the previous session of this permit ended.
        """
        self._refused_after_s = max(self._refused_after_s, min(waited_s, _MAX_SETTLE_S))
        step_s = min(max(waited_s / 2, _LEAST_STEP_S), _MAX_STEP_S)
        self._set(max(self.pause_s, waited_s + step_s))
        return step_s

    def accepted(self, waited_s: float, *, had_refusals: bool, now_s: float) -> None:
        """Learn from an accepted start.

        Args:
            waited_s: Time since the previous session of this permit ended.
            had_refusals: Earlier starts with this permit were refused.
            now_s: Monotonic time. Without refusals the pause shrinks at most once per pause, because simultaneous
                starts carry the same information.
        """
        if had_refusals:
            # LiveAvatar counts sessions, not permits: a session that ended later may have made room for this
            # start.
            self._set(max(waited_s, self._refused_after_s * _ABOVE))
        elif now_s >= self._shrunk_at_s + self.pause_s:
            self._shrunk_at_s = now_s
            self._refused_after_s *= _FORGETTING
            self._set(self._refused_after_s + (self.pause_s - self._refused_after_s) * _SHRINKING)

    def _set(self, pause_s: float) -> None:
        self.pause_s = max(self._least_s, min(pause_s, _MAX_SETTLE_S))


class Permit:
    """Right to run one session on the account, until `release` or `refuse`."""

    def __init__(
        self,
        permits: "Permits",
        position: int,
        *,
        waited: bool,
        ended_at_s: float | None = None,
        had_refusals: bool = False,
    ) -> None:
        self._permits = permits
        self._returned = False
        self.position = position
        """Position of the caller in the waiting queue; the lowest is served first."""
        self.waited = waited
        """True if the caller waited in the queue."""
        self.had_refusals = had_refusals
        """True if LiveAvatar refused earlier starts with this permit."""
        self.may_retry = False
        """Set by `refuse`: LiveAvatar is likely to accept a session soon."""
        self.ended_at_s = ended_at_s
        """Monotonic time at which the previous session ended; None if unknown or long ago."""

    def accept(self) -> None:
        """Record that LiveAvatar started a session with this permit."""
        if self.ended_at_s is not None:
            now_s = time.monotonic()
            self._permits.settling.accepted(now_s - self.ended_at_s, had_refusals=self.had_refusals, now_s=now_s)

    def refuse(self) -> None:
        """Return the permit because LiveAvatar reports a full account.

        If sessions end while other callers wait, LiveAvatar has probably not freed one yet: the permit then
        settles, longer after each refusal. Otherwise other programs use the account, or the configured limit is
        too high.
        """
        self.may_retry = self._permits.is_refusal_temporary(waited=self.waited)
        self._return(self._permits.step_after_refusal(self) if self.may_retry else 0.0, had_refusals=True)

    def release(self, *, settle: bool) -> None:
        """Return the permit; `settle` if a session ran, because LiveAvatar frees the session a little later."""
        if settle and not self._returned:
            self.ended_at_s = time.monotonic()
            self._permits.note_end()
        self._return(self._permits.settling.pause_s if settle else 0.0)

    def _return(self, pause_s: float, *, had_refusals: bool = False) -> None:
        if not self._returned:
            self._returned = True
            self._permits.take_back(pause_s, self.ended_at_s, had_refusals=had_refusals)


class Permits:
    """Semaphore in order of arrival, with a bounded queue and a deadline for each waiting caller.

    Invariant: `used` <= `limit` except for permits of `acquire_above_limit`; no caller waits while a permit is
    free.
    """

    def __init__(self, config: PermitsConfig) -> None:
        self._config = config
        self._queue: OrderedDict[int, asyncio.Future[Permit]] = OrderedDict()
        self._last_position = 0
        self._full_until_s = float("-inf")
        self._ended_at_s: float | None = None
        self.used = 0
        self.settling = Settling(config.settle_s)
        """Learned pause for which a permit stays in use after the end of its session."""

    @property
    def limit(self) -> int:
        """Number of sessions that may run concurrently."""
        return self._config.limit

    @property
    def is_full(self) -> bool:
        """True if the next caller would be refused at once: all permits are used and the queue is full."""
        return self.used >= self._config.limit and len(self._queue) >= self._config.max_waiting

    @property
    def waiting(self) -> int:
        """Number of callers in the queue."""
        return len(self._queue)

    async def acquire(
        self,
        *,
        wait_s: float | None = None,
        refused: Permit | None = None,
        on_wait: Callable[[], object] = lambda: None,
    ) -> Permit:
        """Wait for a permit, at most `wait_s` seconds (default: the configured wait).

        Args:
            wait_s: Longest wait, seconds.
            refused: Permit that LiveAvatar refused; its caller keeps its position in the queue.
            on_wait: Called before the caller enters the queue; what it raises keeps the caller out.

        Raises:
            CapacityExhausted: the queue is full, or no permit came free in time.
        """
        if refused is None:
            self._last_position += 1
        position = self._last_position if refused is None else refused.position
        if self.used < self._config.limit and not self._queue:
            self.used += 1
            had_refusals = refused is not None and refused.may_retry
            return Permit(
                self,
                position,
                waited=refused is not None,
                ended_at_s=self._recent_end_s,
                had_refusals=had_refusals,
            )
        if refused is None and len(self._queue) >= self._config.max_waiting:
            raise self._exhausted(f"{len(self._queue)} callers already wait")
        on_wait()
        wait_s = self._config.wait_s if wait_s is None else wait_s
        granted: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._queue[position] = granted
        if refused is not None:
            self._queue = OrderedDict(sorted(self._queue.items()))
        try:
            # wait, not wait_for or timeout: a permit that arrives together with the deadline must not be lost.
            await asyncio.wait([granted], timeout=max(0.0, wait_s))
        except asyncio.CancelledError:
            if granted.done():
                granted.result().release(settle=False)
            raise
        finally:
            self._queue.pop(position, None)
        if not granted.done():
            raise self._exhausted(f"none came free in {wait_s:.1f} s")
        return granted.result()

    def acquire_above_limit(self) -> Permit:
        """Return a permit for a session that already runs, even if all permits are used."""
        self.used += 1
        self._last_position += 1
        return Permit(self, self._last_position, waited=False)

    def is_refusal_temporary(self, *, waited: bool) -> bool:
        """Return True if LiveAvatar's refusal is attributed to a session that it has not freed yet.

        Args:
            waited: The refused caller had waited in the queue.
        """
        return waited or bool(self._queue) or time.monotonic() < self._full_until_s

    def note_end(self) -> None:
        """Record the end of a session; called by `Permit.release`."""
        self._ended_at_s = time.monotonic()
        if self.used >= self._config.limit:
            self._full_until_s = self._ended_at_s + _SUSPECT_S

    def step_after_refusal(self, permit: Permit) -> float:
        """Return the pause for which a refused permit settles; called by `Permit.refuse`."""
        ended_at_s = permit.ended_at_s
        return self.settling.refused(0.0 if ended_at_s is None else time.monotonic() - ended_at_s)

    def take_back(self, pause_s: float, ended_at_s: float | None, *, had_refusals: bool) -> None:
        """Free a permit after a pause; called by `Permit`."""
        if pause_s > 0:
            free = functools.partial(self._free, ended_at_s, had_refusals=had_refusals)
            asyncio.get_running_loop().call_later(pause_s, free)
        else:
            self._free(ended_at_s, had_refusals=had_refusals)

    @property
    def _recent_end_s(self) -> float | None:
        """Time of the last session's end; None once LiveAvatar must have freed that session."""
        is_recent = self._ended_at_s is not None and time.monotonic() < self._ended_at_s + _SUSPECT_S
        return self._ended_at_s if is_recent else None

    def _free(self, ended_at_s: float | None, *, had_refusals: bool) -> None:
        self.used -= 1
        while self._queue and self.used < self._config.limit:
            position, granted = self._queue.popitem(last=False)
            if not granted.done():
                self.used += 1
                granted.set_result(
                    Permit(self, position, waited=True, ended_at_s=ended_at_s, had_refusals=had_refusals)
                )

    def _exhausted(self, cause: str) -> CapacityExhausted:
        return CapacityExhausted(
            f"all {self._config.limit} sessions of the account are in use and {cause}; "
            "end a session, wait longer, or raise GATEWAY_MAX_SESSIONS if the account allows more",
            scope="upstream_account",
            retry_after_s=1.0,
            values={"limit": self._config.limit, "waiting": len(self._queue)},
        )
