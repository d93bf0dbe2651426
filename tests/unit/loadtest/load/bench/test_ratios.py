"""Ratios to the floor pair neighbouring windows, and a late generator makes a window void."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.bench.ratios import FLOOR, LoadResult, Quantiles, Ratio, Window, percentile

WINDOW = Window(
    audio_s=100.0,
    seconds=10.0,
    cpu_s=0.2,
    core_busy=0.03,
    load_share=0.3,
    load_core_busy=0.4,
    stolen=0.01,
    lateness=Quantiles(0.5, 2.0, 5000),
    first_packets=Quantiles(1.0, 3.0, 240),
    packets=260,
    underruns=0,
)


def test_cpu_is_counted_per_second_of_audio():
    assert WINDOW.cpu_ms_per_audio_s == pytest.approx(2.0)


def test_a_ratio_pairs_windows_of_one_round_and_names_its_spread():
    floor = [replace(WINDOW, cpu_s=cpu_s) for cpu_s in (0.1, 0.2, 0.1)]
    gateway = [replace(WINDOW, cpu_s=cpu_s) for cpu_s in (0.2, 0.5, 0.3)]
    result = LoadResult("load", {FLOOR: floor, "gateway": gateway})
    found = result.ratio("gateway")
    assert (found.median, found.low, found.high) == pytest.approx((2.5, 2.0, 3.0))
    assert result.ratio(FLOOR) == Ratio(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("late_ms", "busy", "problem"),
    [
        (0.0, 0.5, ""),
        (14.0, 0.9, ""),
        (16.0, 0.5, "chunks were 16.0 ms late at p99, limit 15 ms"),
        (0.0, 0.91, "the generator's core was 91% busy, limit 90%"),
    ],
)
def test_a_late_generator_or_a_full_core_makes_the_load_void(late_ms, busy, problem):
    window = replace(WINDOW, lateness=Quantiles(0.0, late_ms, 10), load_core_busy=busy)
    result = LoadResult("load", {FLOOR: [WINDOW, window]})
    assert result.problems() == ([f"floor, round 2: {problem}"] if problem else [])


def test_percentiles_are_values_that_occurred():
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50.0, 99.0, 100.0)
    assert percentile([7.0], 1) == percentile([7.0], 99) == 7.0
    assert math.isnan(percentile([], 50))


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_at_most_a_share_of_the_values_is_above_its_percentile(values, rank):
    scenario_of = sorted(values)
    found = percentile(scenario_of, rank)
    assert found in values
    assert sum(value > found for value in values) <= len(values) * (1 - rank / 100) + 1e-6


def test_quantiles_are_in_milliseconds():
    assert Quantiles.of([0.003, 0.001, 0.002]) == Quantiles(2.0, 3.0, 3)
