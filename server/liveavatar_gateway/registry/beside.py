"""Files of single processes beside the database that they share."""

import errno
import os
import re
from pathlib import Path
from typing import Final

_OWNER: Final = re.compile(r"[0-9A-Za-z-]{1,64}")


def file_beside(database: Path, owner: str, kind: str) -> Path:
    """Return the path of a process's file of a kind.

    Raises:
        FileNotFoundError: no process can have that name, so it has no file. Names come from the database too,
            where a damaged one may be anything, a path among it.
    """
    if not _OWNER.fullmatch(owner):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), ascii(owner)[:100])
    return database.with_name(f"{database.name}.{owner}.{kind}")
