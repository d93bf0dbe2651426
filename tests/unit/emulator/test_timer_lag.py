"""Lag of the emulator's timers."""

import pytest

from liveavatar_emulator.timer_lag import STEP, TimerLag


@pytest.mark.parametrize(("share", "value_ms"), [(0.5, 1.5), (0.9, 1.5), (0.99, 15), (1.0, 5000)])
def test_a_percentile_is_at_most_one_step_too_high(share, value_ms):
    timer_lag = TimerLag()
    for late_s, count in ((0.0015, 90), (0.015, 9), (5.0, 1)):
        for _ in range(count):
            timer_lag.record(late_s)
    assert value_ms <= timer_lag.percentile_ms(share) <= value_ms * STEP


def test_no_percentile_is_above_the_maximum():
    timer_lag = TimerLag()
    timer_lag.record(0.0077)
    assert timer_lag.percentile_ms(0.99) == timer_lag.row()["max_ms"] == 7.7


def test_a_moment_that_was_noticed_at_once_counts_too():
    timer_lag = TimerLag()
    timer_lag.record(0.0)
    assert timer_lag.row() == {"count": 1, "p50_ms": 0.01, "p99_ms": 0.01, "max_ms": 0.0}


def test_no_lateness_is_zero():
    assert TimerLag().row() == {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
