"""Waiting for state to change, within one event loop."""

import asyncio
from collections.abc import Callable


class Condition:
    """Wakes all who wait; they look at the state themselves.

    One loop, so no lock: between looking and waiting nothing else runs, and no change is missed. Bound: one
    future per waiting task.
    """

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake all who wait now."""
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

    async def until(self, condition: Callable[[], object]) -> None:
        """Sleep until `condition()` is true; at once if it is."""
        while not condition():
            await self.wait()
