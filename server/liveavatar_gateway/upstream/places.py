"""Places on a LiveAvatar account: as many sessions as it allows, callers in line for more."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from liveavatar_gateway.core.errors import CapacityExhausted

_FIRST_SETTLE_S: Final = 0.25
"""Shortest pause after a refusal, where none is configured."""
_MAX_SETTLE_S: Final = 8.0
"""Longest pause that is learnt."""
_SHRINKING: Final = 0.9
_SUSPECT_S: Final = 15.0
"""How long after the end of a session a refusal is put down to LiveAvatar, which has not freed it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacesConfig:
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

    A refusal doubles it, a start that is accepted shrinks it a little. Either counts once in each pause, since
    many starts at once say the same thing.
    """

    def __init__(self, least_s: float) -> None:
        self.pause_s = least_s
        self._least_s = least_s
        self._changed_at_s = float("-inf")

    def refused(self, now_s: float) -> None:
        """Wait longer: LiveAvatar still counted a session that had ended."""
        if self._may_change(now_s):
            longer_s = max(self.pause_s * 2, _FIRST_SETTLE_S)
            self.pause_s = max(self._least_s, min(longer_s, _MAX_SETTLE_S))

    def accepted(self, now_s: float) -> None:
        """Try a slightly shorter pause: a session could be started."""
        if self.pause_s > self._least_s and self._may_change(now_s):
            self.pause_s = max(self._least_s, self.pause_s * _SHRINKING)

    def _may_change(self, now_s: float) -> bool:
        if now_s < self._changed_at_s + self.pause_s:
            return False
        self._changed_at_s = now_s
        return True


class Place:
    """The right to one session on the account, until `release` or `refuse`."""

    def __init__(self, places: "Places", ticket: int, *, waited: bool) -> None:
        self._places = places
        self._released = False
        self.ticket = ticket
        """Position of its caller in line; the lowest is served first."""
        self.waited = waited
        self.is_hopeful = False
        """Set by `refuse`: LiveAvatar is likely to accept a session soon."""

    def refuse(self) -> None:
        """Give it back since LiveAvatar says that the account is full.

        Where sessions end and others wait for their places, LiveAvatar has likely not freed one yet: then the
        place settles, longer each time. Otherwise others use the account, or the limit here is too high.
        """
        self.is_hopeful = self._places.is_refusal_temporary(waited=self.waited)
        if self.is_hopeful:
            self._places.settling.refused(time.monotonic())
        self.release(settle=self.is_hopeful, ended=False)

    def release(self, *, settle: bool, ended: bool = True) -> None:
        """Give it back.

        Args:
            settle: A session was started in it, which LiveAvatar forgets a little later.
            ended: That session has ended; False when LiveAvatar refused to start it.
        """
        if not self._released:
            self._released = True
            self._places.give_back(settle=settle, ended=ended)


class Places:
    """First come, first served, up to a limit, with a bounded line and a deadline for each who waits.

    Invariant: `used` <= `limit` but for places that were seized; nobody waits while a place is free.
    """

    def __init__(self, config: PlacesConfig) -> None:
        self._config = config
        self._line: OrderedDict[int, asyncio.Future[Place]] = OrderedDict()
        self._tickets = 0
        self._full_until_s = float("-inf")
        self.used = 0
        self.settling = Settling(config.settle_s)
        """How long a place stays taken after its session has ended."""

    @property
    def limit(self) -> int:
        """Sessions that may live at once."""
        return self._config.limit

    @property
    def waiting(self) -> int:
        """Callers in line."""
        return len(self._line)

    async def take(self, *, wait_s: float | None = None, again: Place | None = None) -> Place:
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
            return Place(self, ticket, waited=again is not None)
        if again is None and len(self._line) >= self._config.max_waiting:
            raise self._refusal(f"{len(self._line)} callers wait already")
        wait_s = self._config.wait_s if wait_s is None else wait_s
        turn: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
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

    def seize(self) -> Place:
        """Take a place for a session that runs already, be there one or not."""
        self.used += 1
        self._tickets += 1
        return Place(self, self._tickets, waited=False)

    def give_back(self, *, settle: bool, ended: bool) -> None:
        """Called by `Place.release`."""
        if ended and settle and self.used >= self._config.limit:
            self._full_until_s = time.monotonic() + _SUSPECT_S
        if settle and self.settling.pause_s > 0:
            asyncio.get_running_loop().call_later(self.settling.pause_s, self._free)
        else:
            self._free()

    def _free(self) -> None:
        self.used -= 1
        while self._line and self.used < self._config.limit:
            ticket, turn = self._line.popitem(last=False)
            if not turn.done():
                self.used += 1
                turn.set_result(Place(self, ticket, waited=True))

    def _refusal(self, why: str) -> CapacityExhausted:
        return CapacityExhausted(
            f"all {self._config.limit} sessions of the account are in use and {why}; "
            "end one, wait longer, or raise GATEWAY_MAX_SESSIONS if the account allows more",
            scope="upstream_account",
            retry_after_s=1.0,
            facts={"limit": self._config.limit, "waiting": len(self._line)},
        )
