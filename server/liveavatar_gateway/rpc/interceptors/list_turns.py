"""Turns of lists: many lists at once would stop the event loop."""

import asyncio
from collections import Counter
from typing import Final

from liveavatar_gateway.core.errors import TooManyCalls

WAITING_LISTS: Final = "waiting_lists"
"""Scope of refusals."""
_PERIOD_S: Final = 0.002
"""Least time from the start of one list to the start of the next."""
_BYTES_PER_S: Final = 32 * 1024 * 1024
"""Rate of answers. A page of 256 KiB takes the event loop 2 to 3 ms of the 8 ms that it costs at this rate."""
MAX_WAITING: Final = 64
"""Lists of one tenant on one connection that wait for their turn. When a connection closes, all its calls end in
one turn of the event loop, 0.15 ms each: hundreds of waiting lists stopped it for 45 ms."""


class ListTurns:
    """Turns of the lists of a process, in order of arrival."""

    def __init__(
        self,
        *,
        period_s: float = _PERIOD_S,
        bytes_per_s: float = _BYTES_PER_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """Begin without lists.

        Args:
            period_s: Least time from one turn to the next, seconds.
            bytes_per_s: Rate of answers, bytes per second.
            max_waiting: Lists of one tenant on one connection that may wait.
        """
        self._period_s = period_s
        self._bytes_per_s = bytes_per_s
        self._max_waiting = max_waiting
        self._turn = asyncio.Lock()
        self._next_s = 0.0
        self._waiting: Counter[tuple[str, str]] = Counter()

    def answered(self, size_bytes: int) -> None:
        """Take note of the size of an answer: after a large one, the next turn is later."""
        self._next_s += size_bytes / self._bytes_per_s

    async def take(self, peer: str, tenant: str) -> None:
        """Wait for the turn of a list. Safe to cancel.

        Args:
            peer: Connection of the caller; that of a proxy has the calls of many.
            tenant: Tenant of the caller.

        Raises:
            TooManyCalls: too many lists of the tenant on the connection wait.
        """
        caller = (peer, tenant)
        if self._waiting[caller] >= self._max_waiting:
            raise TooManyCalls(WAITING_LISTS, self._max_waiting)
        loop = asyncio.get_running_loop()
        self._waiting[caller] += 1
        try:
            async with self._turn:
                await asyncio.sleep(max(0.0, self._next_s - loop.time()))
                self._next_s = max(self._next_s, loop.time()) + self._period_s
        finally:
            self._waiting[caller] -= 1
            if not self._waiting[caller]:
                del self._waiting[caller]
