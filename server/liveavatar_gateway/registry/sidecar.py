"""Paths of files that single processes keep next to the database they share."""

import errno
import os
import re
from pathlib import Path
from typing import Final

_OWNER: Final = re.compile(r"[0-9A-Za-z-]{1,64}")


def sidecar_path(database: Path, owner: str, kind: str) -> Path:
    """Return the path of a process's file of a kind.

    Raises:
        FileNotFoundError: no process has such an id, so the file cannot exist. Ids come from the database too,
            where a damaged id may be anything, a path included.
    """
    if not _OWNER.fullmatch(owner):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), ascii(owner)[:100])
    return database.with_name(f"{database.name}.{owner}.{kind}")
