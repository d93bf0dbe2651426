"""Locks by which processes of one machine see whether another lives.

The operating system releases a lock at the death of its process. Unlike a process id, a lock is never given to
another process, is visible in every container on the machine, and is free as soon as a killed process has stopped,
even before its exit status is collected.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from liveavatar_gateway.registry.sidecar import sidecar_path


class ProcessLock:
    """Lock files next to a database, a file for each process."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._descriptor: int | None = None

    def _path(self, owner: str) -> Path:
        return sidecar_path(self._database, owner, "lock")

    def acquire(self, owner: str) -> None:
        """Show that `owner` lives, until `release` or the end of this process.

        Raises:
            OSError: the file cannot be made, or its file system has no locks.
        """
        descriptor = os.open(self._path(owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self, owner: str) -> None:
        """Remove the lock of this process. Idempotent."""
        if self._descriptor is not None:
            self.remove(owner)
            self.drop()

    def drop(self) -> None:
        """Close the lock and leave its file, as the death of the process does. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_alive(self, owner: str) -> bool | None:
        """Return whether `owner` lives; None without a lock file to tell by."""
        try:
            descriptor = os.open(self._path(owner), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            # Shared, so that two processes that ask at the same time do not take each other for the owner.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        else:
            return False
        finally:
            os.close(descriptor)

    def remove(self, owner: str) -> None:
        """Remove the lock file of a process."""
        with contextlib.suppress(OSError):
            self._path(owner).unlink()
