"""Deadlines of a process that stood still: a suspension must not count as somebody else's silence.

A loop that wakes up late runs its timers before it reads what arrived meanwhile. So a deadline that is noticed
late is not judged by the clock alone: whoever is waited for gets a moment more, in which the answer can be read.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

STOOD_STILL_S = 0.5
"""A deadline that is noticed later than this ended while the process stood still."""
HEARING_S = 2.0
"""How long those who are waited for have to be heard then."""


class PatientTimer:
    """Calls back when a time is over; where the process stood still at its end, a moment later, once."""

    def __init__(self, delay_s: float, due: Callable[[], None]) -> None:
        """Begin to wait.

        Args:
            delay_s: How long.
            due: Called then, from the running loop.
        """
        self._loop = asyncio.get_running_loop()
        self._due = due
        self._delay_s = delay_s
        self._at_s = self._loop.time() + delay_s
        self._timer = self._loop.call_at(self._at_s, self._look)

    def _look(self) -> None:
        if self._loop.time() > self._at_s + STOOD_STILL_S:
            self._timer = self._loop.call_later(min(self._delay_s, HEARING_S), self._due)
        else:
            self._due()

    def cancel(self) -> None:
        """Do not call any more. Idempotent."""
        self._timer.cancel()


@asynccontextmanager
async def patient_timeout(delay_s: float) -> AsyncIterator[None]:
    """Bound what somebody else is waited for, as `asyncio.timeout` does; see `PatientTimer`.

    Raises:
        TimeoutError: the time is over.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = PatientTimer(delay_s, lambda: limit.reschedule(loop.time()))
        try:
            yield
        finally:
            timer.cancel()


async def wait_patiently(awaited: "asyncio.Future[Any]", delay_s: float) -> bool:
    """Wait for something, which goes on if it is late; return whether it is done. See `PatientTimer`."""
    with suppress(TimeoutError):
        async with patient_timeout(delay_s):
            await asyncio.wait([awaited])
    return awaited.done()
