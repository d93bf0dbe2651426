"""Token bucket of things that others cause."""

from liveavatar_gateway.core.allowance import Allowance


def test_a_burst_can_be_taken_at_once_and_then_nothing():
    allowance = Allowance(burst=2, per_s=1)
    allowance.fill(100.0)
    for _ in range(2):
        assert allowance.has(1)
        allowance.take(1)
    assert not allowance.has(1)


def test_it_fills_by_its_rate_and_no_more_than_its_burst():
    allowance = Allowance(burst=2, per_s=0.5)
    allowance.fill(100.0)
    allowance.take(2)
    assert allowance.wait_s(1) == 2.0
    allowance.fill(102.0)
    assert allowance.has(1)
    assert allowance.wait_s(1) == 0.0
    allowance.fill(1_000.0)
    assert allowance.has(2)
    assert not allowance.has(2.5)


def test_skipped_time_adds_nothing():
    allowance = Allowance(burst=1, per_s=1)
    allowance.fill(100.0)
    allowance.take(1)
    allowance.skip(200.0)
    allowance.fill(200.5)
    assert not allowance.has(1)


def test_a_clock_that_steps_back_takes_nothing_away():
    allowance = Allowance(burst=1, per_s=1)
    allowance.fill(100.0)
    allowance.fill(99.0)
    assert allowance.has(1)
