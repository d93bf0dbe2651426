"""Spreads: the same percentiles as the histograms they are made of."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.figures import WINDOW_S, Series
from load.spread import percentiles_over_time, spread_of

_VALUES = st.lists(st.tuples(st.floats(0, 100), st.integers(0, 5)), min_size=1, max_size=60)


def _series(values: list[tuple[float, int]]) -> Series:
    series = Series()
    for value_s, window in values:
        series.add(value_s, window)
    return series


@settings(deadline=None, max_examples=25)
@given(_VALUES, st.floats(0.1, 100))
def test_percentiles_are_those_of_the_histogram(values, rank):
    series = _series(values)
    assert spread_of(series).percentile_ms(rank) == pytest.approx(series.percentile_ms(rank))


@settings(deadline=None, max_examples=25)
@given(_VALUES)
def test_chosen_windows_have_the_values_of_those_windows(values):
    series = _series(values)
    late = spread_of(series, lambda start_s: start_s >= 3 * WINDOW_S)
    assert late.count == sum(window >= 3 for _, window in values)
    assert set(percentiles_over_time(series, (50,))) == {window for _, window in values}


def test_no_values_have_no_percentile():
    assert math.isnan(spread_of(None).percentile_ms(99))
    assert percentiles_over_time(None, (50,)) == {}


def test_a_curve_ends_where_too_few_values_decide():
    shares, values_ms = spread_of(_series([(number / 1000, 0) for number in range(1, 101)])).curve(tail_values=3)
    assert shares[-1] == pytest.approx(0.97)
    assert len(shares) == len(values_ms) == 97
