"""A seed is a plan: the same each time, and five in a row leave no fault out."""

import pytest
from chaos.faults import WAYS
from chaos.schedule import KINDS, WINDOW, plan


@pytest.mark.parametrize("first", range(12))
def test_five_seeds_in_a_row_have_every_kind(first):
    planned = {fault.kind for seed in range(first, first + WINDOW) for fault in plan(seed, 15.0).faults}
    assert planned == set(KINDS)


def test_every_kind_can_be_done():
    assert set(WAYS) == set(KINDS)


def test_the_same_seed_is_the_same_plan():
    assert plan(7, 20.0) == plan(7, 20.0)
    assert plan(7, 20.0) != plan(12, 20.0)


def test_faults_come_in_order_while_people_talk():
    times = [fault.at_s for fault in plan(3, 20.0).faults]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 20.0
