"""Tells whether a process lives: each holds a lock that the operating system lets go of at its death.

Unlike a process id, a lock is not given to another process later, says the same in every container on the machine,
and is free as soon as a killed process has stopped running, even while nobody has collected its exit status.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from liveavatar_gateway.registry.beside import file_beside


class ProcessLock:
    """Lock files beside a database, one for each process."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._held: int | None = None

    def _path(self, owner: str) -> Path:
        return file_beside(self._database, owner, "lock")

    def hold(self, owner: str) -> None:
        """Show that `owner` lives, until `release` or the end of this process.

        Raises:
            OSError: the file cannot be made, or its file system has no locks.
        """
        descriptor = os.open(self._path(owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        self._held = descriptor

    def release(self, owner: str) -> None:
        """Leave in order. Idempotent."""
        if self._held is not None:
            self.forget(owner)
            os.close(self._held)
            self._held = None

    def sees_alive(self, owner: str) -> bool | None:
        """Whether `owner` lives; None when there is nothing to tell it by."""
        try:
            descriptor = os.open(self._path(owner), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # Shared, so that two who look at the same time do not take each other for the owner.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        else:
            return False
        finally:
            os.close(descriptor)

    def forget(self, owner: str) -> None:
        """Remove what a dead process left."""
        with contextlib.suppress(OSError):
            self._path(owner).unlink()
