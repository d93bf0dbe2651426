"""Hours, days and months of usage follow the calendar in UTC."""

from datetime import UTC, date, datetime

import pytest

from liveavatar_gateway.registry.usage import (
    NO_LIMITS,
    Limits,
    Period,
    Spent,
    date_of,
    day_of,
    hour_of,
    oldest_period,
    period_end,
    period_names,
)

LAST_OF_YEAR = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_names_of_periods_are_those_of_iso_8601_and_sort_by_time():
    names = period_names(hour_of(LAST_OF_YEAR))
    assert names == {Period.HOUR: "2026-12-31T23", Period.DAY: "2026-12-31", Period.MONTH: "2026-12"}
    assert sorted(names.values()) == ["2026-12", "2026-12-31", "2026-12-31T23"]


@pytest.mark.parametrize(
    ("moment", "hour", "day", "month"),
    [
        (LAST_OF_YEAR, (2027, 1, 1, 0), (2027, 1, 1, 0), (2027, 1, 1, 0)),
        (datetime(2028, 2, 28, 12, tzinfo=UTC), (2028, 2, 28, 13), (2028, 2, 29, 0), (2028, 3, 1, 0)),
        (datetime(2026, 1, 31, 0, tzinfo=UTC), (2026, 1, 31, 1), (2026, 2, 1, 0), (2026, 2, 1, 0)),
    ],
)
def test_periods_end_with_the_calendar(moment, hour, day, month):
    expected = [datetime(*parts, tzinfo=UTC) for parts in (hour, day, month)]
    assert [period_end(period, hour_of(moment)) for period in Period] == expected


@pytest.mark.parametrize("day", [date(1970, 1, 1), date(2026, 11, 30), date(2028, 2, 29)])
def test_days_are_numbered(day):
    assert date_of(day_of(day)) == day
    assert day_of(day) * 24 == hour_of(datetime(day.year, day.month, day.day, tzinfo=UTC))


def test_totals_of_this_and_the_previous_month_are_kept():
    assert oldest_period(hour_of(datetime(2026, 1, 31, 5, tzinfo=UTC))) == "2025-12"
    assert oldest_period(hour_of(datetime(2026, 3, 1, 0, tzinfo=UTC))) == "2026-02"


def test_each_limit_is_compared_with_its_own_period():
    spent = Spent(hour=1, day=5, month=9)
    assert not spent.exceeds(NO_LIMITS, 1_000_000)
    for period, minutes in ((Period.HOUR, 1), (Period.DAY, 5), (Period.MONTH, 9)):
        assert spent.exceeds(Limits(**{period.value: minutes}), 1)
        assert not spent.exceeds(Limits(**{period.value: minutes + 1}), 1)
