"""Armed faults."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from liveavatar_emulator.faults import Fault, Faults, shuffled


def test_a_fault_hits_as_many_calls_as_it_was_armed_for():
    faults = Faults()
    faults.arm(Fault(endpoint="start", times=2, status=503))
    assert [faults.take("start") is not None for _ in range(3)] == [True, True, False]
    assert faults.fired == 2


def test_a_fault_hits_only_its_endpoint():
    faults = Faults()
    faults.arm(Fault(endpoint="start", status=503))
    assert faults.take("token") is None


def test_faults_of_an_endpoint_come_in_the_order_they_were_armed():
    faults = Faults()
    faults.arm(Fault(endpoint="stop", status=500))
    faults.arm(Fault(endpoint="stop", status=503))
    assert [row["status"] for row in faults.armed()] == [500, 503]
    assert [fault.status for _ in range(2) if (fault := faults.take("stop"))] == [500, 503]


def test_a_fault_must_do_something():
    with pytest.raises(ValidationError, match="needs one of"):
        Fault(endpoint="start")


def test_disarming_leaves_nothing():
    faults = Faults()
    faults.arm(Fault(endpoint="stop", status=500))
    faults.clear()
    assert faults.take("stop") is None
    assert faults.armed() == []


@given(items=st.lists(st.integers() | st.text()), seed=st.integers())
def test_shuffling_moves_only_one_type_and_loses_nothing(items, seed):
    mixed = shuffled(items, int, random.Random(seed))
    assert [item if isinstance(item, str) else None for item in mixed] == [
        item if isinstance(item, str) else None for item in items
    ]
    assert sorted(i for i in mixed if isinstance(i, int)) == sorted(i for i in items if isinstance(i, int))
