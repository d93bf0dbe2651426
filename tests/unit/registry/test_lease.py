"""Moment at which a process counts as dead."""

import pytest

from liveavatar_gateway.registry.lease import is_dead


def dead(*, left_s: float | None, seen: bool | None) -> bool:
    return is_dead(left_s, seen_alive=seen, grace_s=5.0)


@pytest.mark.parametrize("left_s", [100.0, 0.0, -5.0, -1e9])
def test_a_process_that_is_seen_alive_is_not_dead_and_one_that_is_seen_dead_is(left_s):
    assert not dead(left_s=left_s, seen=True)
    assert dead(left_s=left_s, seen=False)


@pytest.mark.parametrize(("left_s", "expected"), [(1.0, False), (0.0, False), (-5.0, False), (-5.001, True)])
def test_a_process_of_which_nothing_is_seen_is_dead_when_its_lease_and_the_grace_are_over(left_s, expected):
    assert dead(left_s=left_s, seen=None) is expected


@pytest.mark.parametrize("seen", [True, False, None])
def test_a_process_that_left_in_order_or_ran_before_this_boot_is_gone(seen):
    assert dead(left_s=None, seen=seen)
