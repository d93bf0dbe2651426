"""Handles: the newest works forever, those before it for a while, and only hashes are kept."""

import pytest

from liveavatar_gateway.sessions.handles import Handles, session_id_of

NOW_S = 1_000.0


@pytest.fixture
def handles() -> Handles:
    return Handles("session-1", keep_s=30)


def test_a_handle_resumes_its_session_and_no_other(handles):
    handle = handles.issue(NOW_S)
    assert session_id_of(handle) == "session-1"
    assert handles.accepts(handle, NOW_S + 1e6)
    assert not Handles("session-1", keep_s=30).accepts(handle, NOW_S)
    assert not handles.accepts(handle + "x", NOW_S)
    assert not handles.accepts("session-1.", NOW_S)


def test_the_one_before_works_a_minute_longer(handles):
    first = handles.issue(NOW_S)
    second = handles.issue(NOW_S + 10)
    assert handles.accepts(first, NOW_S + 69.9)
    assert not handles.accepts(first, NOW_S + 70)
    assert handles.accepts(second, NOW_S + 70)


def test_giving_out_a_third_does_not_prolong_the_first(handles):
    first = handles.issue(NOW_S)
    handles.issue(NOW_S + 10)
    handles.issue(NOW_S + 50)
    assert not handles.accepts(first, NOW_S + 70)


def test_where_the_session_waits_longer_for_its_caller_the_one_before_does_too():
    handles = Handles("session-1", keep_s=300)
    first = handles.issue(NOW_S)
    handles.issue(NOW_S)
    assert handles.accepts(first, NOW_S + 299)
    assert not handles.accepts(first, NOW_S + 300)


def test_one_given_out_beside_another_leaves_it_alone(handles):
    first = handles.issue(NOW_S)
    beside = handles.issue(NOW_S, beside=True)
    assert handles.accepts(first, NOW_S + 1e6)
    assert handles.accepts(beside, NOW_S + 1e6)
    handles.issue(NOW_S)
    assert not handles.accepts(first, NOW_S + 60)
    assert not handles.accepts(beside, NOW_S + 60)


def test_another_tenant_cannot_use_a_handle():
    handles = Handles("session-1", keep_s=30, tenant="acme")
    handle = handles.issue(NOW_S)
    assert handles.accepts(handle, NOW_S, tenant="acme")
    assert not handles.accepts(handle, NOW_S, tenant="other")
    assert not handles.accepts(handle, NOW_S)


def test_hashes_are_enough_for_another_process_and_hold_no_secret(handles):
    first, second = handles.issue(NOW_S), handles.issue(NOW_S + 10)
    taken_over = Handles("session-1", keep_s=30, hashes=handles.hashes)
    assert taken_over.accepts(first, NOW_S + 69)
    assert not taken_over.accepts(first, NOW_S + 70)
    assert taken_over.accepts(second, NOW_S + 70)
    secret = first.partition(".")[2]
    assert secret not in repr(handles.hashes)


def test_a_caller_in_a_loop_does_not_fill_the_memory(handles):
    for _ in range(1_000):
        newest = handles.issue(NOW_S)
    assert len(handles.hashes) == 64
    assert handles.accepts(newest, NOW_S)
