"""Keeps a fault of one session from reaching another."""

import contextlib
from collections.abc import Iterator

import structlog

_log = structlog.get_logger(__name__)


@contextlib.contextmanager
def bulkhead(event: str, session_id: str) -> Iterator[None]:
    """Log a fault of one session and go on with the next.

    Args:
        event: Name of the log line.
        session_id: Session that the work inside is for.
    """
    try:
        yield
    except Exception:  # noqa: BLE001 - every other session goes on, whatever this one's fault is
        _log.exception(event, session=session_id)
