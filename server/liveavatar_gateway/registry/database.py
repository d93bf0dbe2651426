"""Connections to one SQLite file, and the two threads that use them."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.guarded_files import UnsafeFile, open_own, require_closed_folder, require_own

_Result = TypeVar("_Result")

BUSY_MS: Final = 3000
"""Longest wait for a write of another process, from when work is handed in. The write is tried again later."""


_COMPANIONS: Final = ("-wal", "-shm", "-journal")


class Database:
    """SQLite file with a thread that writes and a thread that reads.

    A lookup does not wait behind a write that waits for the lock of another process, and the event loop waits for
    neither. Work functions run on a thread and take the connection of that thread.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="registry-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="registry-reader")
        self._connections: list[sqlite3.Connection] = []
        self._writing: sqlite3.Connection
        self._reading: sqlite3.Connection
        self._file_id: tuple[int, int] | None = None

    async def open(self, prepare: Callable[[sqlite3.Connection], None]) -> None:
        """Open the file, made with access for its owner alone, and run `prepare` on the writing thread.

        Raises:
            RegistryUnavailable: the file cannot be used.
        """

        def work() -> None:
            require_closed_folder(self.path.parent)
            self._require_own_companions()
            # Before SQLite makes the file with the permissions of everyone; its companions get those of the file.
            with open_own(self.path, os.O_RDWR | os.O_CREAT) as descriptor:
                opened = os.fstat(descriptor)
            self._writing = self._connect()
            self._file_id = _file_id(self.path)
            if self._file_id != (opened.st_dev, opened.st_ino):
                raise UnsafeFile(f"{self.path} was replaced while it was opened")
            prepare(self._writing)
            self._reading = self._connect()
            # Again, since another user may have made one in the meantime.
            self._require_own_companions()

        await self._run(self._writer, work)

    def _require_own_companions(self) -> None:
        """Refuse files of another user beside the database: SQLite would write their content into it."""
        for suffix in _COMPANIONS:
            companion = self.path.with_name(f"{self.path.name}{suffix}")
            with contextlib.suppress(FileNotFoundError):
                require_own(companion.lstat(), companion)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )
        # A text that is not UTF-8 must not fail the read of all rows.
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        self._connections.append(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def require_file(self) -> None:
        """Refuse to go on with a removed or replaced file, since nobody would find what is written to it.

        Raises:
            RegistryUnavailable: the path has another file, or none.
        """
        if _file_id(self.path) != self._file_id:
            raise RegistryUnavailable(
                f"the registry {self.path} was removed or replaced while the gateway ran; restart the gateway"
            )

    async def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run work on the reading thread."""
        return await self._run(self._reader, lambda: work(self._reading))

    async def write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run work on the writing thread.

        Raises:
            RegistryUnavailable: another process held the lock for `BUSY_MS`, or the file cannot be used.
        """
        until_s = time.monotonic() + BUSY_MS / 1000

        def bounded() -> _Result:
            # Behind work that waited for the same lock, this waits only for what is left of its own time.
            left_ms = max(0, round((until_s - time.monotonic()) * 1000))
            self._writing.execute(f"PRAGMA busy_timeout = {left_ms}")
            return work(self._writing)

        return await self._run(self._writer, bounded)

    async def transact(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run work on the writing thread within a transaction.

        Raises:
            RegistryUnavailable: see `write`.
        """

        def transaction(connection: sqlite3.Connection) -> _Result:
            with begin(connection):
                return work(connection)

        return await self.write(transaction)

    async def _run(self, thread: ThreadPoolExecutor, work: Callable[[], _Result]) -> _Result:
        """Run work to its end, even when the caller is cancelled."""

        def translated() -> _Result:
            with unavailable(self.path):
                return work()

        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(thread, translated))

    def run_beside(self, work: Callable[[], _Result]) -> "asyncio.Future[_Result]":
        """Run work without the database on the reading thread."""
        return asyncio.get_running_loop().run_in_executor(self._reader, work)

    async def close(self) -> None:
        """Close the connections and end the threads."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._disconnect)
        self._writer.shutdown()
        self._reader.shutdown()

    def _disconnect(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()


@contextlib.contextmanager
def begin(connection: sqlite3.Connection) -> Iterator[None]:
    """Begin a transaction; commit it at the end, or roll it back after an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def unavailable(path: Path) -> Iterator[None]:
    """Translate errors of SQLite and of the file system.

    Raises:
        RegistryUnavailable: in place of such an error.
    """
    try:
        yield
    except UnsafeFile as error:
        raise RegistryUnavailable(f"the registry {path} cannot be used: {error}") from error
    except (sqlite3.Error, OSError) as error:
        raise RegistryUnavailable(
            f"the registry {path} cannot be used: {error}; check its disk and its permissions"
        ) from error


def _file_id(path: Path) -> tuple[int, int] | None:
    """Return the identity of the file at a path; None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
