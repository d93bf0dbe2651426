"""Fields of faults, and the queue of REST faults."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from liveavatar_emulator.faults import Fault, RestFault, RestQueue, shuffled

fault_of = TypeAdapter(Fault).validate_python


def queue() -> RestQueue:
    return RestQueue(random.Random(1))


def test_a_fault_hits_as_many_calls_as_it_was_armed_for():
    faults = queue()
    faults.arm(1, RestFault(endpoint="start", times=2, status=503))
    assert [faults.take("start") is not None for _ in range(3)] == [True, True, False]


def test_a_fault_hits_only_its_endpoint():
    faults = queue()
    faults.arm(1, RestFault(endpoint="start", status=503))
    assert faults.take("token") is None


def test_faults_of_an_endpoint_come_in_the_order_they_were_armed():
    faults = queue()
    faults.arm(1, RestFault(endpoint="stop", status=500))
    faults.arm(2, RestFault(endpoint="stop", status=503))
    assert [fault.status for _, fault, _ in faults.armed()] == [500, 503]
    assert [taken[1].status for _ in range(2) if (taken := faults.take("stop"))] == [500, 503]


def test_a_fault_with_a_chance_spares_some_calls_and_is_not_used_up_by_them():
    faults = queue()
    faults.arm(1, RestFault(endpoint="stop", status=500, times=1000, chance=0.3))
    hit = sum(faults.take("stop") is not None for _ in range(1000))
    assert 200 < hit < 400
    assert faults.armed()[0][2] == 1000 - hit


def test_a_call_is_held_back_for_the_delay_and_some_of_the_jitter():
    faults = queue()
    fault = RestFault(endpoint="stop", delay_s=1, jitter_s=0.5)
    waits = [faults.delay_s(fault) for _ in range(50)]
    assert 1 <= min(waits) < max(waits) <= 1.5
    assert faults.delay_s(RestFault(endpoint="stop", delay_s=2)) == 2


def test_one_fault_can_be_disarmed():
    faults = queue()
    faults.arm(1, RestFault(endpoint="stop", status=500))
    faults.arm(2, RestFault(endpoint="stop", status=503))
    assert faults.disarm(1)
    assert not faults.disarm(1)
    taken = faults.take("stop")
    assert taken is not None
    assert taken[0] == 2


def test_disarming_all_leaves_nothing():
    faults = queue()
    faults.arm(1, RestFault(endpoint="stop", status=500))
    faults.clear()
    assert faults.take("stop") is None
    assert faults.armed() == []


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ({"endpoint": "start"}, "needs one of"),
        ({"endpoint": "start", "body": "x", "truncate": True}, "cannot go with body"),
        ({"endpoint": "starting", "status": 500}, "Input should be 'token', 'start'"),
        ({"endpoint": "start", "statsu": 500}, "unknown key 'statsu'; did you mean 'status'"),
        ({"kind": "dropp"}, "does not match any of the expected tags"),
        ({"kind": "drop", "session": 1, "after_byte": 3}, "did you mean 'after_bytes'"),
        ({"kind": "drop", "session": 1, "after_bytes": 3, "after_s": 1}, "only one of after_bytes"),
        ({"kind": "drop", "session": 0}, "greater than or equal to 1"),
        ({"kind": "drop", "session": "nxt"}, "Input should be 'next'"),
        ({"kind": "delay_acks", "session": 1}, "needs delay_ms or jitter_ms"),
        ({"kind": "stop_reading", "session": 1}, "Field required"),
        ({"kind": "slow_reading", "session": 1, "bytes_per_s": 1}, "greater than or equal to 20"),
        ({"kind": "stop_reading", "session": 1, "for_s": 1, "times": 2}, "times needs after_bytes"),
        ({"kind": "swallow_acks", "session": 1, "acks": ["appende"]}, "Input should be 'appended'"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_with_its_reason(fault, problem):
    with pytest.raises(ValidationError, match=problem):
        fault_of(fault)


def test_a_fault_without_a_kind_is_one_on_rest():
    assert fault_of({"endpoint": "start", "status": 503}) == RestFault(endpoint="start", status=503)


@given(items=st.lists(st.integers() | st.text()), seed=st.integers())
def test_shuffling_moves_only_one_type_and_loses_nothing(items, seed):
    mixed = shuffled(items, int, random.Random(seed))
    assert [item if isinstance(item, str) else None for item in mixed] == [
        item if isinstance(item, str) else None for item in items
    ]
    assert sorted(i for i in mixed if isinstance(i, int)) == sorted(i for i in items if isinstance(i, int))


def test_a_fault_of_one_account_spares_the_others():
    faults = queue()
    faults.arm(1, RestFault(endpoint="start", status=503, account="a"))
    faults.arm(2, RestFault(endpoint="start", status=500))
    assert faults.take("start", "b") == (2, RestFault(endpoint="start", status=500))
    assert faults.take("start", "b") is None
    assert faults.take("start", "a") is not None
