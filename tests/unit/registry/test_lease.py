"""Moment at which a process counts as dead."""

import itertools

import pytest

from liveavatar_gateway.registry.lease import Lease, is_dead, monotonic_s, this_boot


def dead(*, lease: Lease | None, seen: bool | None, now_s: float) -> bool:
    return is_dead(lease, seen_alive=seen, boot_id="now", now_mono_s=now_s, grace_s=5.0)


LEASE = Lease(boot_id="now", until_mono_s=100.0)


@pytest.mark.parametrize("now_s", [0.0, 100.0, 105.0, 1e9])
def test_a_process_that_is_seen_alive_is_not_dead_and_one_that_is_seen_dead_is(now_s):
    assert not dead(lease=LEASE, seen=True, now_s=now_s)
    assert dead(lease=LEASE, seen=False, now_s=now_s)


@pytest.mark.parametrize(("now_s", "expected"), [(99.0, False), (100.0, False), (105.0, False), (105.001, True)])
def test_one_of_which_nothing_is_seen_is_dead_when_its_lease_and_the_grace_are_over(now_s, expected):
    assert dead(lease=LEASE, seen=None, now_s=now_s) is expected


@pytest.mark.parametrize(("seen", "now_s"), list(itertools.product([True, False, None], [0.0, 1e9])))
def test_who_left_in_order_or_ran_before_this_boot_is_gone(seen, now_s):
    assert dead(lease=None, seen=seen, now_s=now_s)
    assert dead(lease=Lease(boot_id="before", until_mono_s=1e12), seen=seen, now_s=now_s)


def test_the_boot_has_one_name_for_all_who_ask():
    assert this_boot() == this_boot() != ""


def test_the_clock_does_not_go_back():
    assert monotonic_s() <= monotonic_s()
