"""Sessions of a process by id, tenant and request; ended ones stay for a while."""

from types import SimpleNamespace

import pytest

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.sessions.local_sessions import LocalSessions, page


def session(session_id, *, tenant="acme", request_id=""):
    return SimpleNamespace(id=session_id, tenant=tenant, request_id=request_id, lost_to=None)


def test_a_session_is_found_by_its_id_until_another_process_has_it():
    sessions, one = LocalSessions(retention_s=60, max_ended=10), session("s-1")
    sessions.add(one)
    assert sessions.get("s-1") is one
    one.lost_to = object()
    assert sessions.get("s-1") is None


def test_a_request_belongs_to_its_tenant():
    sessions = LocalSessions(retention_s=60, max_ended=10)
    mine, theirs = session("s-1", request_id="r"), session("s-2", tenant="beta", request_id="r")
    sessions.add(mine)
    sessions.add(theirs)
    assert sessions.of_request("r", tenant="acme") is mine
    assert sessions.of_request("r", tenant="beta") is theirs
    sessions.release_request(mine)
    assert sessions.of_request("r", tenant="acme") is None
    assert sessions.of_request("r", tenant="beta") is theirs


def test_ended_sessions_of_one_tenant_push_out_none_of_another():
    sessions = LocalSessions(retention_s=60, max_ended=3)
    kept = session("kept")
    sessions.add(kept)
    sessions.retain(kept)
    for number in range(2600):
        refused = session(f"b-{number}", tenant="beta")
        sessions.add(refused)
        sessions.retain(refused)
    assert sessions.newest(tenant="acme") == [kept]
    assert [one.id for one in sessions.newest(tenant="beta")] == ["b-2599", "b-2598", "b-2597"]


def test_an_ended_session_leaves_after_its_retention():
    sessions, one = LocalSessions(retention_s=0, max_ended=10), session("s-1", request_id="r")
    sessions.add(one)
    sessions.retain(one)
    assert sessions.newest(tenant="acme") == []
    assert sessions.of_request("r", tenant="acme") is None


def test_a_list_comes_in_pages():
    every = [session(f"s-{number}") for number in range(5)]
    first, token = page(every, "", 3)
    rest, end = page(every, token, 3)
    assert ([one.id for one in first + rest], end) == ([one.id for one in every], "")
    with pytest.raises(InvalidField):
        page(every, "none", 3)
