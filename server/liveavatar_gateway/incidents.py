"""Incidents: callers see an id alone, operators a line of the log with that id.

Texts of other programs, such as the page of a proxy, an error of SQLite or a traceback, name files, hosts and
versions that are no concern of callers.
"""

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import structlog

from liveavatar_gateway.telemetry.limited_log import LimitedLog

_REPEAT_S: Final = 60.0
"""Time for which the same fault keeps its id and is not logged again: callers may cause it with every call."""
_MAX_REMEMBERED: Final = 256
_MAX_CHARS: Final = 500
"""Limit of a text in the log."""

_log = structlog.get_logger(__name__)
_faults = LimitedLog(_log)


class Incidents:
    """Log of incidents. Safe to use from several threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._remembered: dict[tuple[str, str], tuple[float, str]] = {}

    def report(self, event: str, **fields: Any) -> str:
        """Log a fault as a warning, unless the same one was logged within a minute, and return its id.

        Args:
            event: Name of the line.
            fields: Values for the log alone; texts are cut.
        """
        shown = {name: value[:_MAX_CHARS] if isinstance(value, str) else value for name, value in fields.items()}
        kind = (event, repr(shown))
        now_s = self._clock()
        with self._lock:
            logged_s, incident = self._remembered.get(kind, (None, ""))
            if logged_s is not None and now_s - logged_s < _REPEAT_S:
                return incident
            incident = str(uuid.uuid4())
            self._remembered.pop(kind, None)
            self._remembered[kind] = now_s, incident
            if len(self._remembered) > _MAX_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
        _log.warning(event, incident=incident, **shown)
        return incident


_incidents: Final = Incidents()


def report(event: str, **fields: Any) -> str:
    """Log a fault and return its id, see `Incidents.report`."""
    return _incidents.report(event, **fields)


def report_fault(event: str, fault: BaseException) -> str:
    """Log a fault of the gateway's own with its traceback, within the limit of such lines, and return its id."""
    incident = str(uuid.uuid4())
    _faults.error(event, incident=incident, exc_info=fault)
    return incident
