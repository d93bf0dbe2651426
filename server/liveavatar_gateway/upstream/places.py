"""Places on a LiveAvatar account: as many sessions as it allows, callers in line for more."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from liveavatar_gateway.core.errors import CapacityExhausted


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
    """How long a place stays taken after a stop: LiveAvatar frees it within about a second. Lower risks 4032."""


class Place:
    """The right to one session on the account, until `release`."""

    def __init__(self, places: "Places") -> None:
        self._places = places
        self._released = False

    def release(self, *, settle: bool) -> None:
        """Give it back; `settle` when a session was started in it, which LiveAvatar forgets a little later."""
        if not self._released:
            self._released = True
            self._places.give_back(settle=settle)


class Places:
    """First come, first served, up to a limit, with a bounded line and a deadline for each who waits.

    Invariant: `used` <= `limit` but for places that were seized; nobody waits while a place is free.
    """

    def __init__(self, config: PlacesConfig) -> None:
        self._config = config
        self._line: OrderedDict[int, asyncio.Future[Place]] = OrderedDict()
        self._tickets = 0
        self.used = 0

    @property
    def limit(self) -> int:
        """Sessions that may live at once."""
        return self._config.limit

    @property
    def refuses(self) -> bool:
        """Whether the next caller would be refused at once, since all are taken and the line is full."""
        return self.used >= self._config.limit and len(self._line) >= self._config.max_waiting

    @property
    def waiting(self) -> int:
        """Callers in line."""
        return len(self._line)

    async def take(self, *, wait_s: float | None = None) -> Place:
        """Wait for a place, at most `wait_s` seconds (default: the configured wait).

        Raises:
            CapacityExhausted: the line is full, or the wait was in vain.
        """
        if self.used < self._config.limit and not self._line:
            self.used += 1
            return Place(self)
        if len(self._line) >= self._config.max_waiting:
            raise self._refusal(f"{len(self._line)} callers wait already")
        wait_s = self._config.wait_s if wait_s is None else wait_s
        self._tickets += 1
        ticket = self._tickets
        turn: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._line[ticket] = turn
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

    def seize(self) -> Place:
        """Take a place for a session that runs already, be there one or not."""
        self.used += 1
        return Place(self)

    def give_back(self, *, settle: bool) -> None:
        """Called by `Place.release`."""
        if settle and self._config.settle_s > 0:
            asyncio.get_running_loop().call_later(self._config.settle_s, self._free)
        else:
            self._free()

    def _free(self) -> None:
        self.used -= 1
        while self._line and self.used < self._config.limit:
            _, turn = self._line.popitem(last=False)
            if not turn.done():
                self.used += 1
                turn.set_result(Place(self))

    def _refusal(self, why: str) -> CapacityExhausted:
        return CapacityExhausted(
            f"all {self._config.limit} sessions of the account are in use and {why}; "
            "end one, wait longer, or raise GATEWAY_MAX_SESSIONS if the account allows more",
            scope="upstream_account",
            retry_after_s=1.0,
            facts={"limit": self._config.limit, "waiting": len(self._line)},
        )
