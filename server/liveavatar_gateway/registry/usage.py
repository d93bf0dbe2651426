"""Usage in the registry: billed minutes, sessions and played time of each tenant, by hour and label.

A charge states totals of a LiveAvatar session, or of a session, since its start. The registry adds what it has not
counted yet, so a charge that is repeated, by this or another process, adds nothing.

Usage follows the calendar and therefore the wall clock, in UTC. Hours and days are numbered from 1970-01-01.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

HOUR_S: Final = 3600
MAX_LABELS: Final = 1000
"""Labels of a tenant in one day that are counted apart; callers choose labels."""
OTHER_LABEL: Final = "other"
"""Label under which all further labels of a day are counted."""
MAX_LABEL_CHARS: Final = 256
KEPT_DAYS: Final = 400
"""Days for which usage is kept."""
HOURLY_DAYS: Final = 35
"""Days for which usage is kept by hour; older usage is merged into days."""
CHARGE_DAYS: Final = 3
"""Days after its last change for which a charge is recognised when it is repeated."""

_EPOCH: Final = date(1970, 1, 1)


class Period(StrEnum):
    """Period of a budget, in UTC."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Largest numbers of minutes that may be counted in the present hour, day and month; None is no limit."""

    hour: int | None = None
    day: int | None = None
    month: int | None = None

    def of(self, period: Period) -> int | None:
        """Return the limit of a period."""
        limit: int | None = getattr(self, period.value)
        return limit


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Totals of a LiveAvatar session or a session since its start."""

    id: str
    """Id of the LiveAvatar session, or of the session."""
    tenant: str
    label: str
    """Label under which the usage is listed. Tenant and label of the first charge of an id count for all."""
    hour: int
    """Hour to which the difference to the last charge belongs."""
    minutes: int = 0
    """Billed minutes that have begun."""
    session_count: int = 0
    played_s: float = 0.0
    began_mono_s: float | None = None
    """Begin of the first minute, on the caller's monotonic clock; None for a charge without minutes."""
    final: bool = False
    """True for the last charge of its id; later ones count nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """Charge as the registry has it."""

    tenant: str
    label: str
    minutes: int
    began_mono_s: float | None
    """Begin of the first minute, on the caller's monotonic clock; None when nobody can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Minutes of a tenant in an hour, and in the day and month of that hour."""

    hour: int = 0
    day: int = 0
    month: int = 0
    added: int = 0
    """Minutes that the call counted, and that are in the totals."""
    refused: bool = False
    """True if a limit kept the call from counting anything."""

    def of(self, period: Period) -> int:
        """Return the minutes of a period."""
        minutes: int = getattr(self, period.value)
        return minutes

    def exceeds(self, limits: Limits, more: int) -> bool:
        """Return whether `more` minutes would be above a limit."""
        return any(
            (limit := limits.of(period)) is not None and self.of(period) + more > limit for period in Period
        )


UsageKey = tuple[int, str, str]
"""Day, tenant and label, by which rows are sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Usage of a tenant in a day under a label."""

    day: int
    tenant: str
    label: str
    minutes: int
    session_count: int
    played_s: float

    @property
    def key(self) -> UsageKey:
        """Place of the row in the order of rows."""
        return self.day, self.tenant, self.label


def hour_of(moment: datetime) -> int:
    """Return the hour of a moment."""
    return int(moment.timestamp() // HOUR_S)


def day_of(day: date) -> int:
    """Return the number of a day."""
    return (day - _EPOCH).days


def date_of(day: int) -> date:
    """Return the date of a numbered day."""
    return _EPOCH + timedelta(days=day)


def period_names(hour: int) -> Mapping[Period, str]:
    """Return the names of an hour and of its day and month, as in ISO 8601; earlier names sort first."""
    begin = _begin(hour)
    return {
        Period.HOUR: begin.strftime("%Y-%m-%dT%H"),
        Period.DAY: begin.strftime("%Y-%m-%d"),
        Period.MONTH: begin.strftime("%Y-%m"),
    }


def period_end(period: Period, hour: int) -> datetime:
    """Return the end of the period in which an hour is."""
    begin = _begin(hour)
    match period:
        case Period.HOUR:
            return begin + timedelta(hours=1)
        case Period.DAY:
            return begin.replace(hour=0) + timedelta(days=1)
        case Period.MONTH:
            return (begin.replace(day=1, hour=0) + timedelta(days=32)).replace(day=1)


def _begin(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * HOUR_S, UTC)


def oldest_period(hour: int) -> str:
    """Return the name before which totals of periods are no longer of use: the month before that of an hour."""
    return (_begin(hour).replace(day=1, hour=0) - timedelta(days=1)).strftime("%Y-%m")
