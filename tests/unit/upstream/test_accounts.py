"""Accounts of a process: choice, troubles, reload, and sessions of other programs."""

import time

import pytest

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    UpstreamCreditsExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnauthenticated,
    UpstreamUnreachable,
)
from liveavatar_gateway.pool.account_health import PASSING, AccountState, Trouble
from liveavatar_gateway.upstream.account import AccountSpec
from liveavatar_gateway.upstream.accounts import ForeignSessions
from liveavatar_gateway.upstream.model import AvatarRequest
from testkit.answering import answering, envelope, http
from testkit.pools import accounts_at

REQUEST = AvatarRequest(avatar_id="avatar")


def spec(name: str, **changes: object) -> AccountSpec:
    return AccountSpec(**{"name": name, "id": name, "api_key": f"{name}-key", "max_sessions": 5, **changes})


@pytest.fixture
def accounts():
    return accounts_at(
        "http://127.0.0.1:9", spec("a"), spec("b", cost=2.0), spec("c", tenants=frozenset({"acme"}))
    )


def usable(accounts, tenant: str = "", **options: object) -> list[str]:
    return list(accounts.usable(REQUEST, tenant, now_s=time.monotonic(), **options))


def test_cheaper_accounts_come_first_and_only_those_for_the_tenant(accounts):
    assert usable(accounts) == ["a", "b"]
    assert usable(accounts, "acme") == ["a", "c", "b"]
    assert usable(accounts, without=["a"]) == ["b"]


@pytest.mark.parametrize(
    ("act", "error"),
    [("refuse_key", UpstreamUnauthenticated("no")), ("fail", UpstreamCreditsExhausted("no"))],
    ids=["key", "credits"],
)
def test_an_account_that_cannot_help_itself_is_not_waited_for(accounts, act, error):
    getattr(accounts.find("a"), act)(error)
    assert usable(accounts) == ["b"]
    assert accounts.are_hopeless(["a"], sandbox=False)
    getattr(accounts.find("b"), act)(error)
    assert usable(accounts) == []
    assert isinstance(accounts.refusal(REQUEST, "", time.monotonic()), type(error))


def test_an_account_without_credits_still_starts_sessions_in_the_sandbox(accounts):
    accounts.find("a").fail(UpstreamCreditsExhausted("no"))
    assert not accounts.are_hopeless(["a"], sandbox=True)
    assert isinstance(accounts.refusal_of(["a"], sandbox=False), UpstreamCreditsExhausted)


def test_an_account_whose_trouble_passes_comes_last(accounts):
    accounts.find("a").fail(UpstreamRateLimited("slowly", retry_after_s=5))
    assert usable(accounts) == ["b", "a"]
    now_s = time.monotonic()
    left_s = accounts.retry_in_s(REQUEST, "", PASSING, now_s=now_s)
    assert 4 < left_s <= 5
    assert accounts.retry_in_s(REQUEST, "", [Trouble.BREAKER_OPEN], now_s=now_s) is None
    assert not accounts.limits()["a"].usable


def test_accounts_that_a_caller_does_not_know_yet_are_more(accounts):
    now_s = time.monotonic()
    assert accounts.are_more(REQUEST, "", ["a"], now_s=now_s)
    assert not accounts.are_more(REQUEST, "", ["a", "b"], now_s=now_s)
    assert not accounts.are_more(REQUEST, "", ["a"], without=["b"], now_s=now_s)
    accounts.find("b").fail(UpstreamRateLimited("slowly", retry_after_s=5))
    assert accounts.are_more(REQUEST, "", ["a"], now_s=now_s), "its trouble passes"
    accounts.find("a").refuse_key(UpstreamUnauthenticated("no"))
    assert not accounts.are_more(REQUEST, "", ["a"], now_s=now_s), "nothing works"


def test_free_shares_are_counted_once_for_a_choice():
    counted = []
    accounts = accounts_at("http://127.0.0.1:9", spec("a"), spec("b"))
    accounts._free_shares = lambda: counted.append(1) or {"a": 0.2, "b": 0.8}
    assert (usable(accounts), len(counted)) == (["b", "a"], 1)


def test_the_mildest_trouble_is_told(accounts):
    accounts.find("a").refuse_key(UpstreamUnauthenticated("no"))
    for _ in range(3):
        accounts.find("b").fail(UpstreamUnreachable("down"))
    refused = accounts.refusal(REQUEST, "", time.monotonic())
    assert isinstance(refused, UpstreamUnreachable)
    assert "down" in refused.message
    assert 0 < refused.retry_after_s <= 5


def test_a_request_that_no_account_is_for_is_refused():
    accounts = accounts_at("http://127.0.0.1:9", spec("a", avatars=frozenset({"other"})))
    assert usable(accounts) == []
    assert isinstance(accounts.refusal(REQUEST, "", time.monotonic()), CapacityExhausted)


def test_accounts_are_added_changed_and_retired(accounts):
    assert not accounts.use([spec("a"), spec("b", cost=2.0), spec("c", tenants=frozenset({"acme"}))])
    accounts.find("a").refuse_key(UpstreamUnauthenticated("no"))
    assert accounts.use([spec("a", api_key="new", former_ids=frozenset({"new-id"})), spec("d")])
    assert usable(accounts) == ["a", "d"]
    assert accounts.find("new-id") is accounts.find("a")
    assert accounts.find("b").spec.state is AccountState.RETIRED
    assert (accounts.max_sessions, set(accounts.limits())) == (10, {"a", "d"})
    assert not accounts.use([spec("a", api_key="new"), spec("d")])


def test_a_session_of_an_account_without_a_name_is_that_of_the_first(accounts):
    assert accounts.of_session("").id == "a"
    assert accounts.find("x") is None
    with pytest.raises(KeyError):
        accounts.of_session("x")


def test_a_session_is_foreign_once_two_lists_in_a_row_have_it():
    foreign = ForeignSessions()
    assert (foreign.note(["x"]), foreign.is_certain) == (0, False)
    assert (foreign.note(["x", "y"]), foreign.is_certain) == (1, False)
    assert (foreign.note(["x", "y"]), foreign.is_certain) == (2, True)
    assert (foreign.note([]), foreign.is_certain) == (0, True)


# --- calls


async def test_a_probe_returns_the_largest_balance_and_sets_a_refused_key_aside():
    async with answering() as server:
        accounts = accounts_at(server.url, spec("a"), spec("b", state=AccountState.PAUSED))
        server.answers = {"/v1/users/credits": http(200, envelope({"credits_left": "7.00"}))}
        assert await accounts.probe() == "7.00"
        assert accounts.find("a").health.credits == 7.0
        server.answers = {"/v1/users/credits": http(401, envelope(None, code=401, message="Invalid API key"))}
        for _ in range(2):
            with pytest.raises(UpstreamUnauthenticated):
                await accounts.probe()
        assert server.asked.count("/v1/users/credits") == 2, "a refused key is not tried again"
        assert accounts.trouble() == "UPSTREAM_UNAUTHENTICATED"
        assert accounts.renew_keys()
        assert accounts.trouble() == ""
        await accounts.aclose()


async def test_avatars_of_an_account_for_some_tenants_are_marked():
    row = {"id": "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11", "name": "x", "status": "ACTIVE"}
    other = {**row, "id": "1b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"}
    page = {"count": 1, "next": None, "previous": None}
    async with answering() as server:
        server.answers = {
            "/v1/avatars": [http(200, envelope({**page, "results": rows})) for rows in ([row], [other])],
            "/v1/avatars/public": http(200, envelope({**page, "results": []})),
        }
        accounts = accounts_at(server.url, spec("a", tenants=frozenset({"acme"})))
        found = {avatar.id: avatar.tenants for avatar in await accounts.avatars() if not avatar.sandbox}
        assert found == {row["id"]: frozenset({"acme"})}
        await accounts.aclose()
        accounts = accounts_at(server.url, spec("a", avatars=frozenset({row["id"]})))
        assert [avatar.id for avatar in await accounts.avatars() if not avatar.sandbox] == []
        await accounts.aclose()


async def test_an_avatar_list_that_no_account_sends_is_an_error():
    async with answering() as server:
        accounts = accounts_at(server.url, spec("a"))
        with pytest.raises(UpstreamRejected):
            await accounts.avatars()
        await accounts.aclose()
