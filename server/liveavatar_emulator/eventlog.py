"""Event log, one JSON line each: REST calls, sessions, sockets, commands, events, faults, moves of the clock.

Under a manual clock, equal seeds, options and callers give equal bytes. Lines hold no audio, no credentials and no
time other than `at_s`, emulator seconds since the start.
"""

from collections import deque
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from liveavatar_emulator.clock import Clock
from liveavatar_emulator.config import InvalidSetting
from liveavatar_emulator.escaping import json_line

_log = structlog.get_logger(__name__)

KEPT_LINES = 20_000
"""Lines kept for `GET /_emulator/log`; the file keeps all."""


class EventLog:
    """Numbered lines, newest last.

    Each line is written to the file at once, so that a killed emulator leaves the file complete.
    """

    def __init__(self, clock: Clock, path: Path | None = None) -> None:
        """Truncate the file.

        Raises:
            InvalidSetting: the file cannot be written.
        """
        self._clock = clock
        self._kept: deque[bytes] = deque(maxlen=KEPT_LINES)
        self._count = 0
        self._file: BinaryIO | None = None
        if path is not None:
            try:
                self._file = path.open("wb", buffering=0)
            except OSError as error:
                raise InvalidSetting("event_log", f"{path} cannot be written: {error.strerror}") from error

    def append(self, what: str, **fields: Any) -> None:
        """Append a line; fields with the value None are left out."""
        self._count += 1
        at_s = round(self._clock.now_s() - self._clock.origin_s, 6)
        given = {name: value for name, value in fields.items() if value is not None}
        line = json_line({"n": self._count, "at_s": at_s, "what": what, **given})
        self._kept.append(line)
        if self._file is not None:
            try:
                self._file.write(line)
            except OSError as error:
                # A full disk costs the file, not the session that was to be logged.
                self.close()
                _log.error("event_log.write_failed", last_line=self._count - 1, error=str(error))

    def lines(self, after: int = 0) -> bytes:
        """Return the kept lines whose number is above `after`."""
        first_kept = self._count - len(self._kept)
        skipped = max(0, after - first_kept)
        return b"".join(line for index, line in enumerate(self._kept) if index >= skipped)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
