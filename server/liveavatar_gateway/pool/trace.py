"""Arrival traces: callers with their times, as CSV, read within bounds."""

import csv
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

REQUIRED: Final = ("time", "tenant", "duration")
"""Columns that a trace has, in any order."""
OPTIONAL: Final = ("max_wait",)
MAX_ARRIVALS: Final = 100_000
MAX_LINE: Final = 1000
"""Longest line, characters."""
MAX_TIME_S: Final = 31 * 86400.0
"""Latest arrival."""
MAX_DURATION_S: Final = 86400.0
MAX_WAIT_S: Final = 86400.0
MAX_TENANTS: Final = 1000

_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_CLOCK: Final = re.compile(r"(\d{1,3}):([0-5]\d)(?::([0-5]\d(?:\.\d{1,6})?))?", re.ASCII)


class TraceError(ValueError):
    """Trace that cannot be read; the message names the line, the column and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Caller that asks for a session."""

    at_s: float
    """Time of the request, from the beginning of the trace."""
    tenant: str
    duration_s: float
    """Time for which the caller uses the session, from the moment it is ready."""
    max_wait_s: float | None = None
    """Longest wait for a permit; None for the default of the pool."""


def read_trace(lines: Iterable[str]) -> list[Arrival]:
    """Return the arrivals of a trace in order of time.

    The first line names the columns. Times and durations are seconds (12.5) or clock times (08:30, 08:30:12.5); an
    empty `max_wait` stands for the default. Empty lines, and lines that begin with `#`, are skipped.

    Raises:
        TraceError: the trace is empty, too long, or has a value that is not allowed.
    """
    numbered = _numbered(lines)
    number, head = next(numbered, (1, ""))
    columns = [name.strip().lower() for name in _cells(head, number)]
    _check_columns(columns, number)
    arrivals: list[Arrival] = []
    tenants: set[str] = set()
    for number, line in numbered:
        if len(arrivals) == MAX_ARRIVALS:
            raise TraceError(f"line {number}: a trace has at most {MAX_ARRIVALS} arrivals; split it")
        cells = _cells(line, number)
        if len(cells) != len(columns):
            raise TraceError(f"line {number}: {len(cells)} values for {len(columns)} columns")
        arrival = _arrival(dict(zip(columns, cells, strict=True)), number)
        tenants.add(arrival.tenant)
        if len(tenants) > MAX_TENANTS:
            raise TraceError(f"line {number}: a trace has at most {MAX_TENANTS} tenants")
        arrivals.append(arrival)
    if not arrivals:
        raise TraceError("the trace has no arrivals")
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def write_trace(arrivals: Iterable[Arrival]) -> Iterator[str]:
    """Yield the lines of a trace, each with its end."""
    yield ",".join((*REQUIRED, *OPTIONAL)) + "\n"
    for arrival in arrivals:
        wait = "" if arrival.max_wait_s is None else f"{arrival.max_wait_s:.3f}"
        yield f"{arrival.at_s:.3f},{arrival.tenant},{arrival.duration_s:.3f},{wait}\n"


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            raise TraceError(f"line {number}: longer than {MAX_LINE} characters")
        # Spreadsheets begin a file with a byte order mark.
        text = line.lstrip("\ufeff").strip() if number == 1 else line.strip()
        if text and not text.startswith("#"):
            yield number, text


def _cells(line: str, number: int) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        raise TraceError(f"line {number}: not CSV: {error}") from None


def _check_columns(columns: list[str], number: int) -> None:
    allowed = f"the columns are {','.join(REQUIRED)} and, if wanted, {','.join(OPTIONAL)}"
    if missing := [name for name in REQUIRED if name not in columns]:
        raise TraceError(f"line {number}: no column {missing[0]!r} in the first line; {allowed}")
    if unknown := [name for name in columns if name not in REQUIRED + OPTIONAL]:
        raise TraceError(f"line {number}: unknown column {unknown[0]!r}; {allowed}")
    if len(set(columns)) < len(columns):
        raise TraceError(f"line {number}: a column is named twice; {allowed}")


def _arrival(cells: dict[str, str], number: int) -> Arrival:
    tenant = cells["tenant"].strip()
    if not _TENANT.fullmatch(tenant):
        raise TraceError(
            f"line {number}, tenant: {tenant[:80]!r} is no name; letters, digits, '.', '_' and '-', at most 64"
        )
    wait = cells.get("max_wait", "").strip()
    return Arrival(
        at_s=_seconds(cells["time"], number, "time", 0.0, MAX_TIME_S),
        tenant=tenant,
        duration_s=_seconds(cells["duration"], number, "duration", 0.001, MAX_DURATION_S),
        max_wait_s=_seconds(wait, number, "max_wait", 0.0, MAX_WAIT_S) if wait else None,
    )


def _seconds(text: str, number: int, column: str, least: float, most: float) -> float:
    text = text.strip()
    if (clock := _CLOCK.fullmatch(text)) is not None:
        value = int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3] or 0)
    else:
        try:
            value = float(text)
        except ValueError:
            raise TraceError(
                f"line {number}, {column}: {text[:40]!r} is neither seconds, as in 12.5, nor a time, as in 08:30"
            ) from None
    if not math.isfinite(value) or not least <= value <= most:
        raise TraceError(f"line {number}, {column}: {text[:40]} is not between {least:g} and {most:g} seconds")
    return value
