"""Keeps telemetry from raising into the code that it observes."""

import functools
from collections.abc import Callable
from typing import Final, ParamSpec

import structlog

_Parameters = ParamSpec("_Parameters")

_log = structlog.get_logger(__name__)

GUARDED: Final = "__never_raises__"
"""Attribute of a guarded function, for the test that every recording method is one."""

_reported: set[str] = set()


def never_raises(record: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Guard a function that records something: a fault in it is logged once and the record is lost."""

    @functools.wraps(record)
    def guarded(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> None:
        try:
            record(*args, **kwargs)
        except Exception:  # noqa: BLE001 - a session must not end because it could not be counted
            name = record.__qualname__
            if name not in _reported:
                _reported.add(name)
                _log.exception("telemetry.failed", record=name)

    setattr(guarded, GUARDED, True)
    return guarded
