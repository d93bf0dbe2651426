"""Log lines of libraries such as gRPC, without the values in them.

Libraries format data of callers into messages and tracebacks: metadata with credentials, whole requests. Only the
fixed part of a message is printed, with the type of the exception and its location.
"""

import logging
import re
import time
import traceback
from collections.abc import Callable
from typing import Final

import structlog

_REPEAT_S: Final = 60.0
"""Time for which the same line is not printed again, because callers can cause a line with every call."""
_MAX_KINDS: Final = 256
"""Number of distinct lines remembered; above that the oldest is forgotten, and may be printed again."""
_MAX_TEXT_CHARS: Final = 200
_FRAMES: Final = 3
_VALUE_BEGINS: Final = re.compile(r"""[(<{'"=]|: """)

_log = structlog.get_logger(__name__)


class LibraryLogs(logging.Handler):
    """Handler that passes Python's log records to structlog, each distinct line once a minute."""

    def __init__(self, level: int = logging.WARNING, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare; `route` installs the handler.

        Args:
            level: Lowest level that is passed on.
            clock: Monotonic time, seconds.
        """
        super().__init__(level)
        self._clock = clock
        self.lost_count = 0
        """Number of lines that could not be written."""
        # Time at which each line was last printed, and the number of repetitions since.
        self._printed: dict[tuple[str, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, unless the same line was printed recently."""
        try:
            self._print(record)
        except Exception:  # noqa: BLE001 - a lost line must not fail its sender
            # `handleError` of logging would print the values.
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
    """Route warnings and errors of libraries to structlog. Lower levels include addresses of requests (httpx)."""
    root = logging.getLogger()
    root.handlers = [LibraryLogs(level)]
    root.setLevel(level)


def _fixed_part(record: logging.LogRecord) -> str:
    """Return the first line of a record's message, without its values."""
    if not isinstance(record.msg, str):
        return f"<{type(record.msg).__name__}>"
    text = record.msg.partition("\n")[0]
    if not record.args:
        # The message may already be formatted, as asyncio's are: cut where a value could begin.
        text = _VALUE_BEGINS.split(text, maxsplit=1)[0]
    return text[:_MAX_TEXT_CHARS].strip()


def _raised(record: logging.LogRecord) -> dict[str, object]:
    """Return the exception's type and innermost frames, outermost first; empty without an exception."""
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    frames = traceback.extract_tb(record.exc_info[2])[-_FRAMES:]
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return {"exception": record.exc_info[0].__name__, "where": where}
