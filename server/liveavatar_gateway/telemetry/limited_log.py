"""Log lines that callers can cause, at a bounded rate: a flood of calls must not fill a disk."""

import time
from collections.abc import Callable
from typing import Any, Final

_PER_EVENT: Final = 10
"""Lines of one event in one period."""
_PERIOD_S: Final = 10.0
_MAX_EVENTS: Final = 256


class LimitedLog:
    """Logger that writes a few lines of each event in a period, and then one with the number of those left out."""

    def __init__(
        self,
        log: Any,
        *,
        per_event: int = _PER_EVENT,
        period_s: float = _PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            log: Logger of structlog.
            per_event: Lines of one event in one period.
            period_s: Length of a period.
            clock: Monotonic time, seconds.
        """
        self._log = log
        self._per_event = per_event
        self._period_s = period_s
        self._clock = clock
        # Begin of the period, lines written in it, and lines left out, by event.
        self._events: dict[str, tuple[float, int, int]] = {}

    def info(self, event: str, **fields: Any) -> None:
        """Write a line of level info."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write a line of level warning."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write a line of level error."""
        self._write("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Write a line of level error with the current exception."""
        self._write("exception", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        now_s = self._clock()
        began_s, written, left_out = self._events.pop(event, (now_s, 0, 0))
        if now_s - began_s >= self._period_s:
            began_s, written = now_s, 0
        if written < self._per_event:
            if left_out:
                fields["left_out"] = left_out
            getattr(self._log, level)(event, **fields)
            written, left_out = written + 1, 0
        else:
            left_out += 1
        self._events[event] = began_s, written, left_out
        if len(self._events) > _MAX_EVENTS:
            del self._events[next(iter(self._events))]
