"""Storage of the pool's book: what a registry offers to permits."""

import time
import uuid
from collections.abc import Callable
from typing import Protocol, TypeVar

from liveavatar_gateway.pool.book import Book

_Result = TypeVar("_Result")

PoolChange = Callable[[Book, float], _Result]
"""Pure change of the book at a time of the registry's clock, which is the monotonic clock of every caller. It may
run on another thread."""


class PoolStore(Protocol):
    """Book that all processes on a registry share."""

    owner: str
    """Id of this process."""

    async def pool(self, change: PoolChange[_Result]) -> tuple[_Result, int]:
        """Run a change of the book in one transaction; returns its result and the version after it.

        Waiters of dead processes have left and their permits are suspect by then; `Book.running` says which of
        their sessions may still run. Changes of a process are run in the order of their calls.

        Raises:
            RegistryUnavailable: the book cannot be changed; nothing was.
        """

    async def pool_version(self) -> int:
        """Return the version of the book, which every change of the book raises.

        Raises:
            RegistryUnavailable: the book cannot be read.
        """


class MemoryPool:
    """Book of one process."""

    def __init__(self) -> None:
        self.owner = str(uuid.uuid4())
        self._book = Book(generation=str(uuid.uuid4()))
        self._version = 0

    async def pool(self, change: PoolChange[_Result]) -> tuple[_Result, int]:
        """Run a change, see `PoolStore.pool`."""
        book = self._book.copy()
        result = change(book, time.monotonic())
        if book != self._book:
            self._book = book
            self._version += 1
        return result, self._version

    async def pool_version(self) -> int:
        """Return the version, see `PoolStore.pool_version`."""
        return self._version
