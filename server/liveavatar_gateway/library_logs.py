"""Log lines of libraries, gRPC's among them, without the values that they were about.

A library formats what callers sent into its messages and tracebacks: metadata with credentials, whole requests.
Here only the fixed part of a message is printed, with the kind of the exception and where it was raised.
"""

import logging
import re
import time
import traceback
from collections.abc import Callable
from typing import Final

import structlog

_REPEAT_S: Final = 60.0
"""How long the same line is not printed again. Callers can cause one with every call."""
_MAX_KINDS: Final = 256
"""Kinds of lines that are told apart; above that the oldest is forgotten, and may be printed again."""
_MAX_TEXT_CHARS: Final = 200
_FRAMES: Final = 3
_VALUE_BEGINS: Final = re.compile(r"""[(<{'"=]|: """)

_log = structlog.get_logger(__name__)


class LibraryLogs(logging.Handler):
    """Hands the records of Python's own logging to structlog, each kind once a minute."""

    def __init__(self, level: int = logging.WARNING, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare; `route` puts it in its place.

        Args:
            level: Least level that is taken.
            clock: Monotonic time, seconds.
        """
        super().__init__(level)
        self._clock = clock
        self.lost_count = 0
        """Lines that could not be written."""
        # When each kind was printed last, and how often it came since.
        self._printed: dict[tuple[str, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, unless one of its kind was printed a moment ago."""
        try:
            self._print(record)
        except Exception:  # noqa: BLE001 - a line that cannot be written is no failure of its sender
            # Not logging's `handleError`, which prints the values.
            self.lost_count += 1

    def _print(self, record: logging.LogRecord) -> None:
        text = _fixed_part(record)
        kind = (record.name, text)
        now_s = self._clock()
        printed_s, repeat_count = self._printed.pop(kind, (None, 0))
        if printed_s is not None and now_s - printed_s < _REPEAT_S:
            self._printed[kind] = (printed_s, repeat_count + 1)
            return
        self._printed[kind] = (now_s, 0)
        if len(self._printed) > _MAX_KINDS:
            del self._printed[next(iter(self._printed))]
        fields: dict[str, object] = {"library": record.name, "text": text}
        if repeat_count:
            fields["repeated"] = repeat_count
        _log.log(record.levelno, "library.log", **fields, **_raised(record))


def route(level: int = logging.WARNING) -> None:
    """Take over what libraries log: their complaints, not their chatter (httpx logs each request's address)."""
    root = logging.getLogger()
    root.handlers = [LibraryLogs(level)]
    root.setLevel(level)


def _fixed_part(record: logging.LogRecord) -> str:
    """Return a record's message without its values: the first line, before anything is filled in."""
    if not isinstance(record.msg, str):
        return f"<{type(record.msg).__name__}>"
    text = record.msg.partition("\n")[0]
    if not record.args:
        # It may have been filled in already, as asyncio does: cut where a value could begin.
        text = _VALUE_BEGINS.split(text, maxsplit=1)[0]
    return text[:_MAX_TEXT_CHARS].strip()


def _raised(record: logging.LogRecord) -> dict[str, object]:
    """Return the kind of the exception and its innermost frames, outermost first; nothing without one."""
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    frames = traceback.extract_tb(record.exc_info[2])[-_FRAMES:]
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return {"exception": record.exc_info[0].__name__, "where": where}
