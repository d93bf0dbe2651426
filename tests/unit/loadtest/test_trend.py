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


def test_a_straight_line_has_no_noise():
    found = trend([float(step) for step in range(20)], [3.0 * step for step in range(20)])
    assert found.per_s == pytest.approx(3)
    assert found.high_per_s - found.low_per_s == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("times", [[], [1.0] * 7, [1.0] * 20])
def test_a_few_samples_or_one_moment_make_no_trend(times):
    assert trend(times, [1.0] * len(times)) is None
