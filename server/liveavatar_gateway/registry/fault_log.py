"""Log of lasting faults of stored sessions."""

from typing import Any, Final

import structlog

_log = structlog.get_logger(__name__)

_MAX_REMEMBERED: Final = 1000


class FaultLog:
    """Log that names each lasting fault of a session once, since rows are read again and again."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def error(self, session_id: str, event: str, **fields: Any) -> None:
        """Log an event about a session, unless it was logged before."""
        if (session_id, event) not in self._logged:
            if len(self._logged) >= _MAX_REMEMBERED:
                self._logged.clear()
            self._logged.add((session_id, event))
            _log.error(event, session=session_id, **fields)
