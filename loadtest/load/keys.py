"""API keys of the callers: users are spread over the keys, and so over tenants."""

import os
from collections.abc import Iterable
from pathlib import Path

from load.run_config import InvalidRunConfig

Metadata = tuple[tuple[str, str], ...]


class CallerKeys:
    """Keys of a run; without one, callers send no credential."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._metadata: list[Metadata] = [(("authorization", f"Bearer {key}"),) for key in keys] or [()]

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


def _key(path: Path) -> str:
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise InvalidRunConfig(f"LOAD_KEY_FILES: {path} cannot be read: {error.strerror}") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidRunConfig(f"LOAD_KEY_FILES: {path} holds no API key")
    return key
