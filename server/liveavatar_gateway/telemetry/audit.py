"""Audit log: one JSON line for each act of a caller that an operator has to account for. Never a secret.

A line never delays the act that it reports: a thread writes the lines, and lines that cannot be written are
dropped and counted, see `logs.LineWriter`.
"""

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from liveavatar_gateway.logs import LineWriter

_log = structlog.get_logger(__name__)

STDOUT: Final = "-"
OK: Final = "OK"
"""Outcome of an act that was not refused."""
_MAX_WAITING_BYTES: Final = 8 * 1024 * 1024
"""Limit of lines that wait for the disk, about thirty thousand."""
_MAX_TEXT_CHARS: Final = 300
_EXIT_WAIT_S: Final = 1.0
"""Longest wait for the disk at the exit."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def open_file(path: Path) -> int:
    """Return a descriptor that appends to a file, which is created if it is missing.

    Raises:
        ValueError: the file cannot be opened, or is not a regular file.
    """
    # The open of a pipe would wait for its reader.
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {error.strerror or error}") from None


class AuditLog:
    """Writer of audit lines. Its methods neither wait nor raise. The creator closes it."""

    def __init__(self, fd: int, *, now: Callable[[], datetime] = _utc_now) -> None:
        """Prepare.

        Args:
            fd: Descriptor to write to. It stays open until `use` replaces it: a late line must not get into
                another file that has taken its number.
            now: Time of lines, in UTC.
        """
        self._writer = LineWriter(fd, max_waiting_bytes=_MAX_WAITING_BYTES, on_recovery=_report_dropped)
        self._now = now
        self._unwritable_count = 0

    @classmethod
    def open(cls, target: str) -> "AuditLog":
        """Return a log that writes to a file, or to standard output for "-".

        Raises:
            ValueError: the file cannot be opened.
        """
        return cls(os.dup(1) if target == STDOUT else open_file(Path(target)))

    @property
    def dropped_count(self) -> int:
        """Number of lines that could not be written."""
        return self._writer.dropped_count + self._unwritable_count

    def write(self, event: str, outcome: str, fields: Mapping[str, object]) -> None:
        """Write a line.

        Args:
            event: Act, such as `session.open`.
            outcome: `OK`, or the reason of a refusal.
            fields: Values by name; empty ones are left out, and long texts are cut.
        """
        try:
            time = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line: dict[str, object] = {"time": time, "event": event, "outcome": outcome}
            line |= {name: _bounded(value) for name, value in fields.items() if value not in ("", None)}
            # In ASCII no text can end a line early, or change the direction in which a terminal shows it.
            self._writer.write(json.dumps(line, ensure_ascii=True).encode() + b"\n")
        except Exception:  # noqa: BLE001 - a line must never end the act that it reports
            self._unwritable_count += 1
            _log.exception("audit.line_failed", audit_event=event)

    def use(self, fd: int) -> bool:
        """Write to another descriptor from now on, after a rotation of the file; always True."""
        self._writer.use(fd)
        return True

    def close(self) -> None:
        """Wait, within bounds, until all lines are written. Blocks, so an event loop calls it in a thread."""
        if not self._writer.drain(_EXIT_WAIT_S):
            _log.error("audit.not_written")


def _bounded(value: object) -> object:
    if isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= _MAX_TEXT_CHARS else f"{text[:_MAX_TEXT_CHARS]}..."


def _report_dropped(count: int) -> None:
    _log.warning("audit.lines_dropped", count=count)
