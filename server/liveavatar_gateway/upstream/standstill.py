"""Deadlines that tolerate a suspended process: a suspension must not count as silence of the peer.

An event loop that wakes up late runs its timers before it reads data that arrived meanwhile. A deadline that is
noticed late is therefore extended once, so that an answer that has already arrived can be read.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

STOOD_STILL_S = 0.5
"""Delay of a timer above which the process counts as suspended at the deadline."""
EXTRA_WAIT_S = 2.0
"""Extension of a deadline that passed during a suspension."""


class PatientTimer:
    """Timer that fires at its deadline, or once extended if the process was suspended at the deadline."""

    def __init__(self, delay_s: float, on_due: Callable[[], None]) -> None:
        """Start the timer.

        Args:
            delay_s: Time until the deadline.
            on_due: Called at the deadline, from the running loop.
        """
        self._loop = asyncio.get_running_loop()
        self._on_due = on_due
        self._delay_s = delay_s
        self._at_s = self._loop.time() + delay_s
        self._timer = self._loop.call_at(self._at_s, self._on_time)

    def _on_time(self) -> None:
        if self._loop.time() > self._at_s + STOOD_STILL_S:
            self._timer = self._loop.call_later(min(self._delay_s, EXTRA_WAIT_S), self._on_due)
        else:
            self._on_due()

    def cancel(self) -> None:
        """Cancel the timer. Idempotent."""
        self._timer.cancel()


@asynccontextmanager
async def patient_timeout(delay_s: float) -> AsyncIterator[None]:
    """Limit the wait for a peer, as `asyncio.timeout` does; see `PatientTimer`.

    Raises:
        TimeoutError: the deadline has passed.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = PatientTimer(delay_s, lambda: limit.reschedule(loop.time()))
        try:
            yield
        finally:
            timer.cancel()


async def wait_patiently(awaited: "asyncio.Future[Any]", delay_s: float) -> bool:
    """Wait for a future without cancelling it at the deadline; return True if it is done. See `PatientTimer`."""
    with suppress(TimeoutError):
        async with patient_timeout(delay_s):
            await asyncio.wait([awaited])
    return awaited.done()
