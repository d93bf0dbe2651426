"""How late the emulator's clock was."""

import pytest

from liveavatar_emulator.lateness import STEP, Lateness


@pytest.mark.parametrize(("share", "value_ms"), [(0.5, 1.5), (0.9, 1.5), (0.99, 15), (1.0, 5000)])
def test_a_percentile_is_at_most_one_step_too_high(share, value_ms):
    lateness = Lateness()
    for late_s, count in ((0.0015, 90), (0.015, 9), (5.0, 1)):
        for _ in range(count):
            lateness.note(late_s)
    assert value_ms <= lateness.percentile_ms(share) <= value_ms * STEP


def test_no_percentile_is_above_the_maximum():
    lateness = Lateness()
    lateness.note(0.0077)
    assert lateness.percentile_ms(0.99) == lateness.row()["max_ms"] == 7.7


def test_a_moment_that_was_noticed_at_once_counts_too():
    lateness = Lateness()
    lateness.note(0.0)
    assert lateness.row() == {"count": 1, "p50_ms": 0.01, "p99_ms": 0.01, "max_ms": 0.0}


def test_no_lateness_is_zero():
    assert Lateness().row() == {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
