"""Stock of a profile: as many warm sessions as the policy says, and the right one for each caller."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
import structlog

from liveavatar_gateway.auth.budgets import Budget
from liveavatar_gateway.core.errors import UpstreamUnreachable
from liveavatar_gateway.pool.book import PermitKind
from liveavatar_gateway.sessions.warm_session import WarmStage
from liveavatar_gateway.sessions.warm_stock import WarmStock
from liveavatar_gateway.upstream.account import AccountSpec
from liveavatar_gateway.upstream.permits import PermitWish
from liveavatar_gateway.upstream.profiles import Profile
from testkit.actors import AVATAR_ID
from testkit.warmth import queue, until, warm_world

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
async def world():
    async with warm_world() as found:
        yield found


def stock_of(world, **values) -> WarmStock:
    profile = Profile.model_validate({"avatar_id": AVATAR_ID, "min": 2, "payer": "acme", **values})
    return WarmStock("desk", profile, world.services, world.metrics, wake=lambda: None)


def decide(stock, **values) -> None:
    stock.decide(**{"now": NOON, "spare_permits": 9, **values})


async def filled(world, **values) -> WarmStock:
    stock = stock_of(world, **values)
    decide(stock)
    await until(lambda: stock.ready_count == 2)
    return stock


async def test_it_is_filled_to_the_minimum_and_not_further(world):
    stock = await filled(world)
    decide(stock)
    assert (stock.ready_count, stock.starting_count) == (2, 0)
    counts = stock.counts()
    assert (counts.ready, counts.starting, counts.credits_used) == (2, 0, 2)


async def test_a_taken_session_is_replaced(world):
    stock = await filled(world)
    taken = stock.take(tenant="beta", least_s=None, now_s=0.0)
    assert taken.stage is WarmStage.TAKEN
    decide(stock)
    await until(lambda: stock.ready_count == 2)
    assert taken.id not in {warm.id for warm in stock._ready.values()}


async def test_the_oldest_is_taken_first_and_never_twice(world):
    stock = await filled(world)
    order = list(stock._ready.values())
    assert [stock.take(tenant="beta", least_s=None, now_s=0.0) for _ in range(3)] == [*order, None]


async def test_one_with_too_little_life_is_passed_over_for_the_newest(world):
    stock = await filled(world)
    old, new = stock._ready.values()
    old.started_s -= 500
    assert stock.take(tenant="beta", least_s=300.0, now_s=new.started_s) is new
    assert stock.take(tenant="beta", least_s=300.0, now_s=new.started_s) is None
    assert stock.take(tenant="beta", least_s=0.0, now_s=new.started_s) is old


async def test_without_a_wish_the_profiles_least_rest_counts(world):
    stock = await filled(world, min_remaining_s=200)
    for warm in stock._ready.values():
        warm.started_s -= 401
    assert stock.take(tenant="beta", least_s=None, now_s=warm.started_s + 401) is None
    assert stock.take(tenant="beta", least_s=0.0, now_s=warm.started_s + 401) is not None


async def test_a_lost_session_is_replaced(world):
    stock = await filled(world)
    world.pool.upstreams[0].sockets[0].lost.set_result(None)
    await until(lambda: stock.ready_count == 1)
    decide(stock)
    await until(lambda: stock.ready_count == 2)
    assert world.pool.upstreams[0].end == "closed"


async def test_failed_starts_are_followed_by_a_pause(world):
    world.pool.refusal = UpstreamUnreachable("down")
    stock = stock_of(world)
    decide(stock)
    await until(lambda: stock.is_empty)
    decide(stock)
    assert stock.is_empty


async def test_a_spent_budget_of_the_payer_pauses_it(world):
    world.budgets["acme"] = Budget(minutes_per_hour=1)
    stock = stock_of(world)
    decide(stock)
    await until(lambda: stock.ready_count == 1 and stock.starting_count == 0)
    await world.pool.settle()
    decide(stock)
    assert (stock.ready_count, stock.starting_count) == (1, 0)
    assert await world.spent("acme") == 1


@pytest.mark.parametrize("why", [{"halted": "suspended"}, {"now": NOON.replace(hour=3)}])
async def test_outside_its_hours_and_without_a_payer_nothing_is_started(world, why):
    stock = stock_of(world, hours=["07:00-19:00"])
    decide(stock, **why)
    assert stock.is_empty


async def test_the_log_says_once_that_its_payer_is_suspended(world):
    stock = stock_of(world)
    with structlog.testing.capture_logs() as lines:
        decide(stock, halted="suspended")
        decide(stock, halted="suspended")
    assert [(line["event"], line["by"]) for line in lines] == [("warm.bounded", "suspended")]


async def test_a_drain_ends_all(world):
    stock = await filled(world)
    decide(stock, halted="drained")
    await until(lambda: stock.is_empty)
    assert {upstream.end for upstream in world.pool.upstreams} == {"closed"}


async def test_idle_sessions_are_retired(world):
    stock = await filled(world)
    for warm in stock._ready.values():
        warm.ready_s -= 240
        warm.started_s -= 240
    decide(stock)
    assert stock.ready_count == 0
    await until(lambda: {one.end for one in world.pool.upstreams[:2]} == {"closed"})


async def test_callers_that_wait_get_the_permits_of_warm_sessions(world):
    stock = await filled(world)
    async with queue(world, PermitWish()):
        decide(stock, spare_permits=0)
        assert stock.ready_count == 1


@pytest.mark.parametrize("wish", [PermitWish(accounts=["other"]), PermitWish(tenant="full")])
async def test_callers_whom_its_permits_would_not_help_leave_it_as_it_is(world, wish):
    stock = await filled(world)
    async with queue(world, wish):
        decide(stock)
        assert stock.ready_count == 2


async def test_callers_that_wait_for_a_paused_account_leave_it_as_it_is(world):
    stock = await filled(world)
    async with queue(world, PermitWish(accounts=["default"])):
        await world.pool.permits.update_account("default", lambda state, _: state.pause())
        decide(stock)
        assert stock.ready_count == 2


async def test_callers_of_its_accounts_go_before_its_starts(world):
    stock = stock_of(world)
    async with queue(world, PermitWish(accounts=["other"])):
        decide(stock)
        await until(lambda: stock.ready_count == 2)
    await world.pool.settle()
    another = stock_of(world)
    async with queue(world, PermitWish(accounts=["default"])):
        decide(another)
        assert another.is_empty


async def test_only_recent_requests_are_remembered(world):
    stock = stock_of(world, min=0, max=4, mode="learnt")
    now_s = time.monotonic()
    for age_s in (700, 601, 599, 1):
        stock.note_arrival(now_s - age_s)
    assert stock._arrival_ages_s(now_s) == pytest.approx([599, 1])
    assert len(stock._arrivals) == 2
    stock.change(stock.profile.model_copy(update={"mode": "fixed"}))
    assert stock._arrival_ages_s(now_s) == ()


async def test_a_session_on_an_account_that_its_caller_may_use_no_longer_is_not_given(world):
    stock = await filled(world)
    world.pool.accounts[0].spec = AccountSpec(tenants=frozenset({"acme"}))
    assert stock.take(tenant="beta", least_s=None, now_s=0.0) is None
    decide(stock)
    await until(lambda: {one.end for one in world.pool.upstreams[:2]} == {"closed"})


async def test_sessions_on_an_account_that_new_tenants_of_the_profile_may_not_use_end(world):
    world.pool.accounts[0].spec = AccountSpec(tenants=frozenset({"acme", "beta"}))
    stock = await filled(world, tenants=["acme", "beta"])
    stock.change(stock.profile.model_copy(update={"tenants": ("acme", "beta", "gamma")}))
    assert stock.take(tenant="gamma", least_s=None, now_s=0.0) is None
    decide(stock)
    await until(lambda: {one.end for one in world.pool.upstreams[:2]} == {"closed"})


async def test_sessions_of_other_processes_count_against_the_maximum(world):
    await world.pool.permits.acquire(PermitWish(kind=PermitKind.WARM, profile="desk"))
    stock = stock_of(world, max=2)
    decide(stock)
    await until(lambda: stock.ready_count == 1)
    assert (stock.starting_count, world.pool.wishes[0].at_most) == (0, 2)


async def test_starts_that_may_have_been_carried_out_are_charged(world):
    world.pool.failure = UpstreamUnreachable("no answer")
    world.pool.stop.clear()
    stock = stock_of(world)
    decide(stock)
    await until(lambda: len(world.pool.upstreams) == 2)
    await asyncio.sleep(0.01)
    assert not stock.is_empty
    world.pool.stop.set()
    await until(lambda: stock.is_empty)
    assert stock.counts().credits_used == 2
