"""Warm sessions of all profiles: an exact match or nothing, and none that nobody asked for."""

import asyncio

import pytest
import structlog

from liveavatar_gateway.core.errors import BudgetExhausted
from liveavatar_gateway.sessions.spec import LiveKitRoom
from liveavatar_gateway.sessions.warm_pool import WarmPool
from liveavatar_gateway.sessions.warm_session import WarmStage
from liveavatar_gateway.upstream.account import AccountSpec
from liveavatar_gateway.upstream.connectors import Connector, ConnectorKind
from liveavatar_gateway.upstream.permits import PermitWish
from liveavatar_gateway.upstream.profiles import Profile
from testkit.actors import AVATAR_ID
from testkit.warmth import queue, spec, until, warm_world

AGENT = Connector(kind=ConnectorKind.GEMINI_REALTIME, secret_id="7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22")
SPENT = BudgetExhausted("acme", period="hour", used=1, limit=1, until="", retry_after_s=1.0)


def profile(**values) -> Profile:
    return Profile.model_validate({"avatar_id": AVATAR_ID, "min": 1, "payer": "acme", **values})


@pytest.fixture
async def world():
    async with warm_world() as found:
        yield found


@pytest.fixture
async def warm(world):
    pool = WarmPool(world.services, world.metrics, may_pay=lambda tenant: tenant != "suspended")
    running = asyncio.create_task(pool.run())
    yield pool
    running.cancel()
    await asyncio.wait([running])
    pool.close()
    await world.pool.settle()


def ready(pool) -> int:
    return sum(stock.ready_count for stock in pool.stocks)


async def test_without_profiles_nothing_is_started(world, warm):
    assert warm.take(spec(), tenant="") is None
    await asyncio.sleep(0.02)
    assert world.pool.upstreams == []


@pytest.mark.parametrize(
    ("wishes", "matches"),
    [
        ({}, True),
        ({"max_duration_s": 300}, True),
        ({"max_duration_s": 601}, False),
        ({"quality": "low"}, False),
        ({"encoding": "VP8"}, False),
        ({"sandbox": True}, False),
        ({"livekit_room": LiveKitRoom(name="desk")}, False),
        ({"connector": AGENT}, False),
    ],
)
async def test_only_an_exact_match_is_taken(warm, wishes, matches):
    warm.use({"desk": profile()})
    await until(lambda: ready(warm) == 1)
    assert warm.has(spec(**wishes), tenant="beta") is matches
    assert (warm.take(spec(**wishes), tenant="beta") is not None) is matches


async def test_a_profile_is_for_its_tenants(warm):
    warm.use({"desk": profile(tenants=["beta"])})
    await until(lambda: ready(warm) == 1)
    assert warm.take(spec(), tenant="gamma") is None
    assert warm.take(spec(), tenant="beta") is not None


@pytest.mark.parametrize(("payer", "takes"), [("acme", False), ("full", True)])
async def test_a_tenant_at_its_ceiling_takes_only_sessions_that_count_for_it_already(world, warm, payer, takes):
    warm.use({"desk": profile(payer=payer)})
    await until(lambda: ready(warm) == 1)
    async with queue(world, PermitWish()):
        assert warm.has(spec(), tenant="full") is takes
        assert warm.has(spec(), tenant="beta")
        assert (warm.take(spec(), tenant="full") is not None) is takes


async def test_with_rotation_any_rest_of_life_will_do(world, warm):
    world.pool.max_duration_s = 70
    warm.use({"desk": profile(min_remaining_s=69)})
    await until(lambda: ready(warm) == 1)
    (stock,) = warm.stocks
    next(iter(stock._ready.values())).started_s -= 10
    assert not warm.has(spec(), tenant="")
    assert warm.has(spec(auto_rotate=True), tenant="")


async def test_a_taken_session_is_replaced_in_the_background(world, warm):
    warm.use({"desk": profile()})
    await until(lambda: ready(warm) == 1)
    assert warm.take(spec(), tenant="") is not None
    await until(lambda: len(world.pool.upstreams) == 2 and ready(warm) == 1)


async def test_a_removed_profile_ends_its_sessions(world, warm):
    warm.use({"desk": profile()})
    await until(lambda: ready(warm) == 1)
    assert warm.use({})
    await until(lambda: world.pool.upstreams[0].end == "closed")
    assert not warm.use({})


async def test_other_bounds_keep_its_sessions_and_another_avatar_does_not(world, warm):
    warm.use({"desk": profile()})
    await until(lambda: ready(warm) == 1)
    warm.use({"desk": profile(min=2)})
    await until(lambda: ready(warm) == 2)
    assert world.pool.upstreams[0].end == ""
    warm.use({"desk": profile(min=2, quality="low")})
    await until(lambda: {one.end for one in world.pool.upstreams[:2]} == {"closed"})


async def test_the_log_says_what_a_profile_costs(warm):
    with structlog.testing.capture_logs() as lines:
        warm.use({"desk": profile()})
    (line,) = [line for line in lines if line["event"] == "warm.profile"]
    assert line["profile"] == "desk"
    assert line["credits_per_hour"] >= 60


async def test_a_suspended_payer_pays_for_nothing(world, warm):
    warm.use({"desk": profile(payer="suspended")})
    await asyncio.sleep(0.02)
    assert world.pool.upstreams == []


async def test_a_spent_budget_ends_the_session_that_it_paid(world, warm):
    warm.use({"desk": profile()})
    await until(lambda: ready(warm) == 1)
    (stock,) = warm.stocks
    (warm_id,) = stock._ready
    assert warm.end_for_budget(warm_id, SPENT)
    assert not warm.end_for_budget("another", SPENT)
    await until(lambda: world.pool.upstreams[0].end == "closed")


async def test_a_drain_ends_all_and_its_cancellation_warms_again(world, warm):
    warm.use({"desk": profile()})
    await until(lambda: ready(warm) == 1)
    warm.close()
    assert warm.take(spec(), tenant="") is None
    await until(lambda: world.pool.upstreams[0].end == "closed")
    warm.reopen()
    await until(lambda: ready(warm) == 1)


async def test_a_warm_session_on_a_drained_account_ends(world, warm):
    warm.use({"desk": profile()})
    await until(lambda: ready(warm) == 1)
    taken = warm.take(spec(), tenant="beta")
    assert warm.end_drained(taken.id)
    # A caller has it by now: the drain of its account ends it like any other session.
    assert taken.stage is WarmStage.TAKEN
    await until(lambda: ready(warm) == 1)
    (stock,) = warm.stocks
    another = stock.peek(tenant="beta", least_s=None, now_s=0.0)
    assert warm.end_drained(another.id)
    assert not another.is_usable
    assert not warm.end_drained("unknown")


async def test_a_restricted_account_ends_the_sessions_of_unchanged_profiles_at_once(world, warm):
    profiles = {"desk": profile()}
    warm.use(profiles)
    await until(lambda: ready(warm) == 1)
    world.pool.accounts[0].spec = AccountSpec(tenants=frozenset({"acme"}))
    assert not warm.use(profiles)
    assert not warm.has(spec(), tenant="beta")
    await until(lambda: world.pool.upstreams[0].end == "closed")


async def test_one_waiting_caller_needs_only_one_session_of_all_profiles(world):
    pool = WarmPool(world.services, world.metrics)
    pool.use({"desk": profile(), "hall": profile(quality="low")})
    pool.decide()
    await until(lambda: ready(pool) == 2)
    async with queue(world, PermitWish()):
        pool.decide()
        pool.decide()
        assert ready(pool) == 1
    pool.close()
    await world.pool.settle()
