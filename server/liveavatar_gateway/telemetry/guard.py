"""Guard that keeps telemetry from raising into the observed code."""

import functools
from collections.abc import Callable
from typing import Final, ParamSpec

import structlog

_Parameters = ParamSpec("_Parameters")

_log = structlog.get_logger(__name__)

GUARDED: Final = "__never_raises__"
"""Attribute of guarded functions, by which a test finds unguarded recording methods."""

_reported: set[str] = set()


def never_raises(record: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Guard a recording function: a fault is logged once, and the record is lost."""

    @functools.wraps(record)
    def guarded(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> None:
        try:
            record(*args, **kwargs)
        except Exception:  # noqa: BLE001 - a fault in telemetry must not end a session
            name = record.__qualname__
            if name not in _reported:
                _reported.add(name)
                _log.exception("telemetry.failed", record=name)

    setattr(guarded, GUARDED, True)
    return guarded
