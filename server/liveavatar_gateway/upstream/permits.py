"""Places on a LiveAvatar account: as many sessions as it allows, callers in line for more."""

import asyncio
import functools
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from liveavatar_gateway.core.errors import CapacityExhausted

_LEAST_STEP_S: Final = 0.25
"""Shortest pause after a refusal."""
_MAX_STEP_S: Final = 4.0
"""Longest pause after a refusal."""
_MAX_SETTLE_S: Final = 8.0
"""Longest pause after an end that is learnt."""
_SHRINKING: Final = 0.9
_FORGETTING: Final = 0.98
_ABOVE: Final = 1.1
_SUSPECT_S: Final = 15.0
"""How long after the end of a session a refusal is put down to LiveAvatar, which has not freed it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitsConfig:
    """How many sessions may live, and who may wait."""

    limit: int = 1
    """Sessions at once: the account's concurrency limit. Above it LiveAvatar refuses (code 4032)."""
    max_waiting: int = 100
    """Callers in line; one more is refused at once. Higher hides longer peaks and lets callers wait in vain."""
    wait_s: float = 30.0
    """Longest wait of a caller without a deadline of its own."""
    settle_s: float = 1.0
    """How long a place stays taken after a stop: LiveAvatar frees it within about a second. Lower risks 4032. It
    grows by itself, up to 8 s, while LiveAvatar turns out to take longer."""


class Settling:
    """Pause between the end of a session and the next start in its place, learnt from LiveAvatar's answers. Pure.

    Learnt are two bounds: how long after an end a start was refused, and how long after it one was accepted. The
    pause goes from the second towards the first, which is slowly forgotten.
    """

    def __init__(self, least_s: float) -> None:
        self.pause_s = least_s
        self._least_s = least_s
        self._refused_after_s = 0.0
        self._shrunk_at_s = float("-inf")

    def refused(self, waited_s: float) -> float:
        """Learn that a start was refused; returns how much longer to wait, the longer the more was in vain.

        Args:
            waited_s: Time since the session before it in its place has ended.
        """
        self._refused_after_s = max(self._refused_after_s, min(waited_s, _MAX_SETTLE_S))
        step_s = min(max(waited_s / 2, _LEAST_STEP_S), _MAX_STEP_S)
        self._set(max(self.pause_s, waited_s + step_s))
        return step_s

    def accepted(self, waited_s: float, *, had_refusals: bool, now_s: float) -> None:
        """Learn that a start was accepted.

        Args:
            waited_s: Time since the session before it in its place has ended.
            had_refusals: Starts in the same place were refused before.
            now_s: Monotonic time. Without refusals the pause shrinks once in each, since many starts at once
                say the same thing.
        """
        if had_refusals:
            # LiveAvatar counts sessions, not places: one that ended later may have made room for this start.
            self._set(max(waited_s, self._refused_after_s * _ABOVE))
        elif now_s >= self._shrunk_at_s + self.pause_s:
            self._shrunk_at_s = now_s
            self._refused_after_s *= _FORGETTING
            self._set(self._refused_after_s + (self.pause_s - self._refused_after_s) * _SHRINKING)

    def _set(self, pause_s: float) -> None:
        self.pause_s = max(self._least_s, min(pause_s, _MAX_SETTLE_S))


class Permit:
    """The right to one session on the account, until `release` or `refuse`."""

    def __init__(self, places: "Permits", ticket: int, *, waited: bool, ended_at_s: float | None = None) -> None:
        self._places = places
        self._released = False
        self.ticket = ticket
        """Position of its caller in line; the lowest is served first."""
        self.waited = waited
        self.had_refusals = False
        self.is_hopeful = False
        """Set by `refuse`: LiveAvatar is likely to accept a session soon."""
        self.ended_at_s = ended_at_s
        """When the session before it ended, monotonic; None when that is not known, or long ago."""

    def accept(self) -> None:
        """Note that LiveAvatar started a session in it."""
        if self.ended_at_s is not None:
            now_s = time.monotonic()
            self._places.settling.accepted(now_s - self.ended_at_s, had_refusals=self.had_refusals, now_s=now_s)

    def refuse(self) -> None:
        """Give it back since LiveAvatar says that the account is full.

        Where sessions end and others wait for their places, LiveAvatar has likely not freed one yet: then the
        place settles, longer each time. Otherwise others use the account, or the limit here is too high.
        """
        self.is_hopeful = self._places.is_refusal_temporary(waited=self.waited)
        self._give_back(self._places.step_after_refusal(self) if self.is_hopeful else 0.0, had_refusals=True)

    def release(self, *, settle: bool) -> None:
        """Give it back; `settle` when a session was started in it, which LiveAvatar forgets a little later."""
        if settle and not self._released:
            self.ended_at_s = time.monotonic()
            self._places.note_end()
        self._give_back(self._places.settling.pause_s if settle else 0.0)

    def _give_back(self, pause_s: float, *, had_refusals: bool = False) -> None:
        if not self._released:
            self._released = True
            self._places.give_back(pause_s, self.ended_at_s, had_refusals=had_refusals)


class Permits:
    """First come, first served, up to a limit, with a bounded line and a deadline for each who waits.

    Invariant: `used` <= `limit` but for places that were seized; nobody waits while a place is free.
    """

    def __init__(self, config: PermitsConfig) -> None:
        self._config = config
        self._line: OrderedDict[int, asyncio.Future[Permit]] = OrderedDict()
        self._tickets = 0
        self._full_until_s = float("-inf")
        self._ended_at_s: float | None = None
        self.used = 0
        self.settling = Settling(config.settle_s)
        """How long a place stays taken after its session has ended."""

    @property
    def limit(self) -> int:
        """Sessions that may live at once."""
        return self._config.limit

    @property
    def refuses(self) -> bool:
        """Return whether the next caller would be refused at once, since all are taken and the line is full."""
        return self.used >= self._config.limit and len(self._line) >= self._config.max_waiting

    @property
    def waiting(self) -> int:
        """Callers in line."""
        return len(self._line)

    async def take(self, *, wait_s: float | None = None, again: Permit | None = None) -> Permit:
        """Wait for a place, at most `wait_s` seconds (default: the configured wait).

        Args:
            wait_s: Longest wait, seconds.
            again: The place that LiveAvatar refused: its caller goes back to where it stood in line.

        Raises:
            CapacityExhausted: the line is full, or the wait was in vain.
        """
        if again is None:
            self._tickets += 1
        ticket = self._tickets if again is None else again.ticket
        if self.used < self._config.limit and not self._line:
            self.used += 1
            had_refusals = again is not None and again.is_hopeful
            return self._place(ticket, self._recent_end_s, waited=again is not None, had_refusals=had_refusals)
        if again is None and len(self._line) >= self._config.max_waiting:
            raise self._refusal(f"{len(self._line)} callers wait already")
        wait_s = self._config.wait_s if wait_s is None else wait_s
        turn: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._line[ticket] = turn
        if again is not None:
            self._line = OrderedDict(sorted(self._line.items()))
        try:
            # wait, not wait_for or timeout: a place that arrives together with the deadline must not be lost.
            await asyncio.wait([turn], timeout=max(0.0, wait_s))
        except asyncio.CancelledError:
            if turn.done():
                turn.result().release(settle=False)
            raise
        finally:
            self._line.pop(ticket, None)
        if not turn.done():
            raise self._refusal(f"none came free in {wait_s:.1f} s")
        return turn.result()

    def is_refusal_temporary(self, *, waited: bool) -> bool:
        """Return whether LiveAvatar's refusal is put down to a session that it has not freed yet.

        Args:
            waited: The refused caller had waited in line.
        """
        return waited or bool(self._line) or time.monotonic() < self._full_until_s

    def seize(self) -> Permit:
        """Take a place for a session that runs already, be there one or not."""
        self.used += 1
        self._tickets += 1
        return self._place(self._tickets, None, waited=False)

    def note_end(self) -> None:
        """Called by `Permit.release` when a session has ended."""
        self._ended_at_s = time.monotonic()
        if self.used >= self._config.limit:
            self._full_until_s = self._ended_at_s + _SUSPECT_S

    def step_after_refusal(self, place: Permit) -> float:
        """Return how long a refused place settles; called by `Permit.refuse`."""
        ended_at_s = place.ended_at_s
        return self.settling.refused(0.0 if ended_at_s is None else time.monotonic() - ended_at_s)

    def give_back(self, pause_s: float, ended_at_s: float | None, *, had_refusals: bool) -> None:
        """Free a place after a pause; called by `Permit`."""
        if pause_s > 0:
            free = functools.partial(self._free, ended_at_s, had_refusals=had_refusals)
            asyncio.get_running_loop().call_later(pause_s, free)
        else:
            self._free(ended_at_s, had_refusals=had_refusals)

    @property
    def _recent_end_s(self) -> float | None:
        """When the last session ended, unless LiveAvatar must have noticed by now."""
        is_recent = self._ended_at_s is not None and time.monotonic() < self._ended_at_s + _SUSPECT_S
        return self._ended_at_s if is_recent else None

    def _free(self, ended_at_s: float | None, *, had_refusals: bool) -> None:
        self.used -= 1
        while self._line and self.used < self._config.limit:
            ticket, turn = self._line.popitem(last=False)
            if not turn.done():
                self.used += 1
                turn.set_result(self._place(ticket, ended_at_s, waited=True, had_refusals=had_refusals))

    def _place(self, ticket: int, ended_at_s: float | None, *, waited: bool, had_refusals: bool = False) -> Permit:
        place = Permit(self, ticket, waited=waited, ended_at_s=ended_at_s)
        place.had_refusals = had_refusals
        return place

    def _refusal(self, why: str) -> CapacityExhausted:
        return CapacityExhausted(
            f"all {self._config.limit} sessions of the account are in use and {why}; "
            "end one, wait longer, or raise GATEWAY_MAX_SESSIONS if the account allows more",
            scope="upstream_account",
            retry_after_s=1.0,
            facts={"limit": self._config.limit, "waiting": len(self._line)},
        )
