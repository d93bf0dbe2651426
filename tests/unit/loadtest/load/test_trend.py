"""Growth: found when it is there, and not found where only noise is."""

import random

import pytest

from load.trend import trend


def _stairs(seed: int, *, slope: float = 0.0, samples: int = 300, correlation: float = 0.9) -> list[float]:
    """Noise whose neighbours resemble each other, as a process's memory does."""
    chance, wander, values = random.Random(seed), 0.0, []
    for step in range(samples):
        wander = correlation * wander + chance.gauss(0, 1)
        values.append(100 + slope * step + wander)
    return values


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_noise_alone_is_seldom_taken_for_growth(correlation):
    times = [float(step) for step in range(300)]
    alarms = sum(trend(times, _stairs(seed, correlation=correlation)).low_per_s > 0 for seed in range(200))
    # 2.5 % are expected of a one-sided 97.5 % bound.
    assert alarms <= 14


def test_growth_is_found_and_measured():
    times = [float(step) for step in range(300)]
    found = [trend(times, _stairs(seed, slope=0.1)) for seed in range(50)]
    assert all(one.low_per_s > 0 for one in found)
    assert sum(one.low_per_s <= 0.1 <= one.high_per_s for one in found) >= 43


def _busy(seed: int, *, first: float, last: float, samples: int = 600) -> list[float]:
    """Load whose mean moves from one value to another while sessions of a minute come and go."""
    chance, wander, loads = random.Random(f"load/{seed}"), 0.0, []
    for step in range(samples):
        wander = 0.97 * wander + chance.gauss(0, 1)
        loads.append(first + (last - first) * step / samples + wander)
    return loads


def test_what_the_load_explains_is_no_growth():
    times = [float(step) for step in range(600)]
    alarms, mistaken = 0, 0
    for seed in range(100):
        loads = _busy(seed, first=15.0, last=26.0)
        values = [130 + 0.1 * load + noise for load, noise in zip(loads, _stairs(seed, samples=600), strict=True)]
        alarms += trend(times, values, loads=loads).low_per_s > 0
        mistaken += trend(times, [0.1 * load for load in loads]).low_per_s > 0
    assert alarms <= 8
    assert mistaken >= 25, "without the load it looks like growth far more often than chance allows"


def test_growth_is_found_under_a_load_that_comes_and_goes():
    times = [float(step) for step in range(600)]
    for seed in range(20):
        loads = _busy(seed, first=20.0, last=20.0)
        noise = _stairs(seed, samples=600, slope=0.05, correlation=0.5)
        found = trend(times, [value + load for value, load in zip(noise, loads, strict=True)], loads=loads)
        assert found.low_per_s > 0
        assert found.per_s == pytest.approx(0.05, rel=0.2)


def test_noise_that_flickers_over_noise_that_lasts_is_seldom_taken_for_growth():
    times = [float(step) for step in range(600)]
    alarms = 0
    for seed in range(200):
        chance, lasting = random.Random(f"flicker/{seed}"), _stairs(seed, samples=600, correlation=0.97)
        alarms += trend(times, [value + chance.gauss(0, 3) for value in lasting]).low_per_s > 0
    assert alarms <= 14


def test_a_straight_line_has_no_noise():
    found = trend([float(step) for step in range(20)], [3.0 * step for step in range(20)])
    assert found.per_s == pytest.approx(3)
    assert found.high_per_s - found.low_per_s == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("times", [[], [1.0] * 7, [1.0] * 20])
def test_a_few_samples_or_one_moment_make_no_trend(times):
    assert trend(times, [1.0] * len(times)) is None
