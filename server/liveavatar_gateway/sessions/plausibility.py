"""Checks of stored values: another program or a failing disk may have written them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

_MAX: Final = 1e11
"""Above any count, rate or time in seconds, and below the range of a `Duration` of the contract."""
_MAX_BYTES: Final = 1e15
_FIRST_YEAR: Final = 2000
_LAST_YEAR: Final = 9000
"""Dates near the borders of the calendar overflow when they are converted to UTC or added to."""
_MAX_DEPTH: Final = 16
_MAX_NAME_CHARS: Final = 200


def require_counts(counts: Mapping[str, object]) -> None:
    """Refuse negative numbers.

    Raises:
        ValueError: a value is negative; the message names it.
    """
    for name, value in counts.items():
        if isinstance(value, int | float) and value < 0:
            raise ValueError(f"{name} cannot be {value}")


def require_time(at: datetime | None, name: str) -> None:
    """Refuse a time without a time zone, or outside of the years that can be converted.

    Raises:
        ValueError: the time is refused; the message names it.
    """
    if at is not None and at.tzinfo is None:
        raise ValueError(f"{name} has no time zone")
    if at is not None and not _FIRST_YEAR <= at.year <= _LAST_YEAR:
        raise ValueError(f"{name} cannot be in the year {at.year}")


def require_plausible(value: object, name: str, depth: int = 0) -> None:
    """Refuse numbers that no session reaches: they would overflow when they are used or shown.

    Raises:
        ValueError: a number is refused; the message names it.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"{name} is nested too deep")
    match value:
        case bool():
            pass
        case int() | float():
            limit = _MAX_BYTES if name.endswith("_bytes") else _MAX
            if not -limit <= value <= limit:
                raise ValueError(f"{name} cannot be {value}")
        case Mapping():
            for key, member in value.items():
                require_plausible(member, f"{name}.{key}"[:_MAX_NAME_CHARS], depth + 1)
        case list() | tuple():
            for member in value:
                require_plausible(member, name, depth + 1)
        case _:
            pass
