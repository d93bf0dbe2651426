"""API keys of the callers: users are spread over the keys, and so over tenants."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from load.run_config import InvalidRunConfig

Metadata = tuple[tuple[str, str], ...]

_ID: Final = re.compile(r"lag_([a-z0-9]{12})_", re.ASCII)
"""Begin of an API key, with its public id."""


class CallerKeys:
    """Keys of a run; without one, callers send no credential."""

    def __init__(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        self._metadata: list[Metadata] = [(("authorization", f"Bearer {key}"),) for key in keys] or [()]
        self._labels = [_label(key, number) for number, key in enumerate(keys, 1)]

    @classmethod
    def read(cls, files: str) -> "CallerKeys":
        """Read the key in each of several files.

        Args:
            files: Paths, separated as in PATH.

        Raises:
            InvalidRunConfig: a file cannot be read, or holds no key.
        """
        return cls(_key(Path(name)) for name in files.split(os.pathsep) if name)

    def of(self, number: int) -> Metadata:
        """Return the metadata of a user's calls, by the number of the user."""
        return self._metadata[number % len(self._metadata)]

    def label_of(self, number: int) -> str | None:
        """Return a label of a user's key that is no secret; None unless there are several keys."""
        return self._labels[number % len(self._labels)] if len(self._labels) > 1 else None


def _label(key: str, number: int) -> str:
    """Return the public id of a key, or its number where the credential is of another kind."""
    found = _ID.match(key)
    return found[1] if found is not None else f"credential {number}"


def _key(path: Path) -> str:
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise InvalidRunConfig(f"LOAD_KEY_FILES: {path} cannot be read: {error.strerror}") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidRunConfig(f"LOAD_KEY_FILES: {path} holds no API key")
    return key
