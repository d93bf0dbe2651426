"""Locks by name, each kept as long as it is used."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class _Lock(asyncio.Lock):
    """Lock that counts the tasks that hold it or wait for it."""

    users = 0


class KeyedLocks:
    """Serializer of calls about the same session or request, each of which awaits between a check and a change."""

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}

    @contextlib.asynccontextmanager
    async def locked(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of a name."""
        lock = self._locks.setdefault(name, _Lock())
        lock.users += 1
        try:
            async with lock:
                yield
        finally:
            lock.users -= 1
            if not lock.users:
                del self._locks[name]
