"""Waiting for a change of state within one event loop."""

import asyncio
from collections.abc import Callable


class Condition:
    """Wakes all waiting tasks, which then check the state themselves.

    No lock is needed within one loop: no other task runs between the check and the wait, so no change is missed.
    Bound: one future per waiting task.
    """

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake all tasks that are waiting now."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Sleep until the next `notify`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    async def until(self, predicate: Callable[[], object]) -> None:
        """Sleep until `predicate()` is true; return at once if it is."""
        while not predicate():
            await self.wait()
