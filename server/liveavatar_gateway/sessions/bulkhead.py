"""Bulkheads: a fault of one session must not reach another."""

import contextlib
from collections.abc import Iterator

import structlog

_log = structlog.get_logger(__name__)


@contextlib.contextmanager
def bulkhead(event: str, session_id: str) -> Iterator[None]:
    """Log a fault of one session and continue with the next.

    Args:
        event: Name of the log line.
        session_id: The session that the block works for.
    """
    try:
        yield
    except Exception:  # noqa: BLE001 - every other session continues, whatever the fault of this one
        _log.exception(event, session=session_id)
