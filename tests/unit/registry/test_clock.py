"""The clock that all processes of one machine share."""

import math
import time

import pytest

from liveavatar_gateway.registry.clock import MachineClock, this_boot


def test_the_boot_has_one_name_for_all_who_ask():
    assert this_boot() == this_boot() != ""
    assert MachineClock().boot_id == this_boot()


def test_the_clock_is_the_monotonic_clock_of_the_machine():
    before_s = time.monotonic()
    assert before_s <= MachineClock().now_s() <= time.monotonic()


def test_times_of_another_boot_cannot_be_compared():
    clock = MachineClock(boot_id="now")
    assert clock.reads("now")
    assert not clock.reads("before")
    assert not clock.reads(None)


@pytest.mark.parametrize(
    ("mono_s", "expected"),
    [(-1e300, True), (0.0, True), (4600.0, True), (4601.0, False), (math.inf, False), (math.nan, False)],
)
def test_a_time_that_no_gateway_would_write_is_not_plausible(mono_s, expected):
    assert MachineClock(boot_id="now", now=lambda: 1000.0).is_plausible(mono_s) is expected
