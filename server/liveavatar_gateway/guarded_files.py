"""Files that other users of the machine must not have written, or must not read. Knows no other module."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CONTAINER_SECRETS: Final = Path("/run/secrets")
"""Folder in which Docker mounts secrets, with access for everybody in the container."""
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_READ: Final = stat.S_IRGRP | stat.S_IROTH


class UnsafeFile(ValueError):
    """File or folder that another user may have changed or may read; the message has the command that helps."""


def read_guarded(path: Path, max_bytes: int, *, private: bool, closes_to_group: bool = False) -> bytes:
    """Read a file, at most one byte more than `max_bytes`, if no other user can have written it.

    The check and the read use one descriptor. Links are followed: Kubernetes mounts secrets as links.

    Args:
        path: Path of the file.
        max_bytes: Largest content that the caller accepts.
        private: Refuse a file of this user that other users can read, too. A file of root's for a gateway of
            another user may be readable, since somebody must have given it to the gateway.
        closes_to_group: Take the group's access away first; for a file that the gateway itself may have made.

    Raises:
        UnsafeFile: the owner or the permissions are wrong.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        descriptor = file.fileno()
        if not _is_from_container(path, descriptor):
            if closes_to_group:
                _close_to_group(descriptor)
            _require_safe(os.fstat(descriptor), str(path), private=private)
        return file.read(max_bytes + 1)


def _is_from_container(path: Path, descriptor: int) -> bool:
    """Return True if the runtime of a container provides a file, whose permissions nobody inside can choose.

    Such files are on mounts that nobody can write to.
    """
    with contextlib.suppress(OSError):
        return bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY) or path.resolve().is_relative_to(
            _CONTAINER_SECRETS
        )
    return False


def _close_to_group(descriptor: int) -> None:
    """Take away the group's access, which Kubernetes gives (`fsGroup`) whenever it mounts a volume.

    Nothing changes for files of others, and for files that are open to everybody, which the caller refuses.
    """
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode)
    is_changeable = stat.S_ISREG(status.st_mode) and os.geteuid() in (0, status.st_uid)
    if is_changeable and mode & stat.S_IRWXG and not mode & stat.S_IRWXO:
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, mode & ~stat.S_IRWXG)


def _require_safe(status: os.stat_result, name: str, *, private: bool) -> None:
    # Root may read files of every user: an administrator checks what belongs to the gateway's user.
    if os.geteuid() != 0:
        _require_owner(status, name, "; or mount its folder read-only")
    if not stat.S_ISREG(status.st_mode):
        # The permissions of a pipe or a device say nothing about what comes out of it.
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS_WRITE:
        raise UnsafeFile(f"{name} can be changed by other users (mode {mode:04o}); run `chmod go-w {name}`")
    if private and mode & _OTHERS_READ and status.st_uid == os.geteuid():
        raise UnsafeFile(f"{name} can be read by other users (mode {mode:04o}); run `chmod 600 {name}`")


def _require_owner(status: os.stat_result, name: str, way_out: str = "") -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise UnsafeFile(
            f"{name} belongs to user {status.st_uid}, who can change it; it must belong to root, or to user "
            f"{os.geteuid()}, who runs the gateway{way_out}"
        )


def require_closed_folder(folder: Path) -> None:
    """Refuse a folder in which another user can replace files.

    Raises:
        UnsafeFile: the folder belongs to another user, or everybody can write to it without the sticky bit.
        OSError: there is no such folder.
    """
    status = folder.stat()
    _require_owner(status, str(folder))
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise UnsafeFile(
            f"in the folder {folder} every user can replace files (mode {mode:04o}); run `chmod o-w {folder}`"
        )


@contextlib.contextmanager
def open_own(path: Path, flags: int) -> Iterator[int]:
    """Open a file of this program's own, with access for this user alone; yield its descriptor.

    Args:
        path: Path of the file, which must not be a link.
        flags: Flags for `os.open`; with O_CREAT, a new file is for this user alone.

    Raises:
        UnsafeFile: the file is a link or no regular file, or another user made it or may change or read it.
        OSError: the file cannot be opened.
    """
    if path.is_symlink():
        raise UnsafeFile(f"{path} is a link, which may lead to a file of another user; name the file itself")
    # A pipe would block without O_NONBLOCK, which regular files ignore.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        require_own(os.fstat(descriptor), path)
        _close_to_group(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def require_own(status: os.stat_result, path: Path) -> None:
    """Refuse a file that another user made, or may change or read, and anything but a regular file.

    Raises:
        UnsafeFile: see above.
    """
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeFile(f"{path} is not a regular file")
    _require_owner(status, str(path))
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IRWXO:
        raise UnsafeFile(
            f"{path} is open to other users (mode {mode:04o}), who may have changed it; "
            "remove it if you did not make it, else run "
            f"`chmod 600 {path}`"
        )
