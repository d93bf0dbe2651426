"""Emulator time: real, faster or slower than real, or standing still until a test advances it.

All of the emulator's times (playback, readiness, idle, reap, duration, billing, rate limits, faults) are seconds
of one clock. At rate 1 its `now_s` is CLOCK_MONOTONIC, comparable with `time.monotonic()` of any process on the
machine.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol

SETTLE_TURNS = 40
"""Turns of the event loop granted after timers fired, so that the tasks they woke have run before time moves on.
The longest chain (a REST call that wakes, is answered, and is written) takes about ten."""


class Timer(Protocol):
    """A callback that waits for its due time."""

    def cancel(self) -> None:
        """Cancel the callback; does nothing after the call."""


class Clock(Protocol):
    """Source of the emulator's time and of its waits."""

    @property
    def mode(self) -> str:
        """`real` or `manual`."""

    @property
    def rate(self) -> float:
        """Emulator seconds per real second; 0 for a manual clock."""

    @property
    def origin_s(self) -> float:
        """`now_s` at the start of the emulator."""

    def now_s(self) -> float:
        """Return seconds since an arbitrary moment; never decreases."""

    def utc_s(self) -> float:
        """Return seconds since 1970 (UTC), moving with `now_s`."""

    def call_at(self, due_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once `now_s` has reached `due_s`, never earlier."""

    async def sleep(self, seconds: float) -> None:
        """Wait for so many emulator seconds."""

    async def outage(self, seconds: float) -> None:
        """Wait while the emulator is unreachable: emulator seconds, or real seconds for a manual clock."""

    def real_s(self, emulator_s: float) -> float:
        """Return the real duration of so many emulator seconds; 0 for a manual clock."""


class RealClock:
    """Clock that follows the machine's clock at a fixed rate."""

    mode = "real"

    def __init__(self, rate: float = 1.0) -> None:
        self.rate = rate
        self.origin_s = time.monotonic()
        self._origin_utc_s = time.time()

    def now_s(self) -> float:
        """Return CLOCK_MONOTONIC at rate 1; at other rates the clock starts there and runs ahead or behind."""
        real_s = time.monotonic()
        return real_s if self.rate == 1 else self.origin_s + (real_s - self.origin_s) * self.rate

    def utc_s(self) -> float:
        """Return the machine's UTC at rate 1, so that corrections of that clock are followed."""
        return time.time() if self.rate == 1 else self._origin_utc_s + self.now_s() - self.origin_s

    def call_at(self, due_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` at `due_s` or up to a real millisecond later."""
        # uvloop's timers count whole milliseconds: round up, or they fire before they are due.
        delay_ms = int(self.real_s(max(0.0, due_s - self.now_s())) * 1000) + 1
        return asyncio.get_running_loop().call_later(delay_ms / 1000, callback)

    async def sleep(self, seconds: float) -> None:
        """Wait; a wait of 0 lets other tasks run."""
        await asyncio.sleep(self.real_s(seconds))

    async def outage(self, seconds: float) -> None:
        """Wait as in `sleep`."""
        await self.sleep(seconds)

    def real_s(self, emulator_s: float) -> float:
        """Return emulator seconds in real seconds."""
        return emulator_s / self.rate


class _ManualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """Clock that starts at 0 and moves only by `advance`. A second advance waits for the first."""

    mode = "manual"
    rate = 0.0
    origin_s = 0.0

    def __init__(self) -> None:
        self._now_s = 0.0
        self._origin_utc_s = float(int(time.time()))
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._numbers = itertools.count()
        self._moving = asyncio.Lock()
        self._running = asyncio.Event()
        self._running.set()

    def now_s(self) -> float:
        """Return the time to which the clock was advanced."""
        return self._now_s

    def utc_s(self) -> float:
        """Return the whole second of the emulator's start, plus the time advanced."""
        return self._origin_utc_s + self._now_s

    def call_at(self, due_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` within the advance that reaches `due_s`; a due callback waits for the next advance."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (due_s, next(self._numbers), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced so far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        done = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        timer = self.call_at(self._now_s + seconds, wake)
        try:
            await done
        finally:
            timer.cancel()

    async def outage(self, seconds: float) -> None:
        """Wait for real seconds, since no caller can advance the clock; a running advance waits too."""
        self._running.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._running.set()

    def real_s(self, emulator_s: float) -> float:
        """Return 0: no timer is ever late."""
        del emulator_s
        return 0.0

    async def advance(self, seconds: float) -> int:
        """Move by `seconds` and call timers in the order of their times, each at its own time.

        Between two moments all tasks woken by the first run. Returns the number of called timers.
        """
        async with self._moving:
            until_s = self._now_s + seconds
            called = 0
            await self.settle()
            while self._timers and self._timers[0][0] <= until_s:
                called += self._call_due(max(self._now_s, self._timers[0][0]))
                await self.settle()
            self._now_s = until_s
            await self.settle()
            return called

    def _call_due(self, moment_s: float) -> int:
        """Move to `moment_s` and call the due timers; a timer set by them waits for the next call."""
        self._now_s = moment_s
        due: list[_ManualTimer] = []
        while self._timers and self._timers[0][0] <= moment_s:
            due.append(heapq.heappop(self._timers)[2])
        called = 0
        for timer in due:
            # An earlier timer of the same moment may have cancelled this timer.
            if timer.callback is not None:
                timer.callback()
                called += 1
        return called

    async def settle(self) -> None:
        """Let all woken tasks run."""
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
        await self._running.wait()
