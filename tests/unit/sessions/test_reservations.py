"""Reservations: an avatar for a caller who is about to come, for one caller, for a short time."""

import asyncio
from datetime import UTC, datetime

import pytest

from liveavatar_gateway.auth.budgets import Budget
from liveavatar_gateway.auth.limiter import Limiter
from liveavatar_gateway.auth.quotas import Quotas
from liveavatar_gateway.core.errors import (
    BudgetExhausted,
    CapacityExhausted,
    Draining,
    InvalidField,
    OwnerMoved,
    QuotaExceeded,
    RequestIdReused,
    ReservationMismatch,
    ReservationNotFound,
)
from liveavatar_gateway.registry.memory import MemoryRegistry
from liveavatar_gateway.sessions.reservations import Reservations
from liveavatar_gateway.sessions.spec import LiveKitRoom
from liveavatar_gateway.upstream.account import AccountSpec
from liveavatar_gateway.upstream.connectors import Connector, ConnectorKind
from testkit.unreliable_registry import SlowRegistry
from testkit.warmth import spec, until, warm_world

AGENT = Connector(kind=ConnectorKind.GEMINI_REALTIME, secret_id="7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22")

HOLD_S = 60.0


@pytest.fixture
async def world():
    async with warm_world() as found:
        yield found


@pytest.fixture
def quotas():
    return {}


@pytest.fixture
async def reservations(world, quotas):
    found = Reservations(world.services, Limiter(quotas.get), world.metrics)
    yield found
    found.close()
    await world.pool.settle()


async def prepare(reservations, request_id="", *, wishes=None, tenant="acme", hold_s=HOLD_S):
    return await reservations.prepare(wishes or spec(), request_id, tenant=tenant, hold_s=hold_s, wait_s=None)


async def test_a_reservation_is_billed_to_the_tenant_that_asked_and_expires(world, reservations):
    made = await prepare(reservations)
    assert (made.expires_at - datetime.now(UTC)).total_seconds() == pytest.approx(HOLD_S, abs=30)
    assert (reservations.count, await world.minutes()) == (1, {"acme": 1})
    assert world.rows == {made.id: ("up-1",)}


async def test_the_caller_takes_it_once(reservations):
    made = await prepare(reservations)
    claimed = await reservations.claim(made.id, spec(max_duration_s=100), tenant="acme")
    assert reservations.taken(claimed, spec()) is made.warm
    with pytest.raises(ReservationNotFound):
        await reservations.claim(made.id, spec(), tenant="acme")


async def test_it_may_be_taken_before_its_avatar_is_ready(world, reservations):
    world.pool.is_silent = True
    made = await prepare(reservations)
    claimed = await reservations.claim(made.id, spec(), tenant="acme")
    assert reservations.taken(claimed, spec()) is made.warm


async def test_nobody_else_takes_it(reservations):
    made = await prepare(reservations)
    for name, tenant in ((made.id, "beta"), ("another", "acme")):
        with pytest.raises(ReservationNotFound):
            await reservations.claim(name, spec(), tenant=tenant)


@pytest.mark.parametrize(
    ("wishes", "difference"),
    [
        ({"quality": "low"}, "quality"),
        ({"livekit_room": LiveKitRoom(name="desk")}, "room"),
        ({"connector": AGENT}, "connector"),
    ],
)
async def test_another_avatar_is_refused_and_leaves_it_as_it_is(reservations, wishes, difference):
    made = await prepare(reservations)
    with pytest.raises(ReservationMismatch) as refusal:
        await reservations.claim(made.id, spec(**wishes), tenant="acme")
    assert refusal.value.metadata["difference"] == difference
    assert await reservations.claim(made.id, spec(), tenant="acme") is made


async def test_what_nobody_takes_is_ended_and_its_place_is_free(world, reservations, quotas):
    quotas["acme"] = Quotas(max_sessions=1)
    made = await prepare(reservations, hold_s=0.02)
    with pytest.raises(QuotaExceeded):
        await prepare(reservations)
    await until(lambda: world.pool.upstreams[0].end == "closed")
    with pytest.raises(ReservationNotFound):
        await reservations.claim(made.id, spec(), tenant="acme")
    await prepare(reservations)


async def test_a_lost_avatar_leaves_the_caller_a_session_without_it(world, reservations):
    made = await prepare(reservations)
    world.pool.upstreams[0].sockets or await until(lambda: world.pool.upstreams[0].sockets)
    world.pool.upstreams[0].sockets[0].lost.set_result(None)
    await until(lambda: world.pool.upstreams[0].end == "closed")
    claimed = await reservations.claim(made.id, spec(), tenant="acme")
    assert reservations.taken(claimed, spec()) is None


async def test_an_avatar_that_does_not_live_long_enough_is_not_taken(world, reservations):
    world.pool.max_duration_s = 60
    made = await prepare(reservations)
    made.warm.started_s -= 5
    claimed = await reservations.claim(made.id, spec(max_duration_s=60), tenant="acme")
    assert reservations.taken(claimed, spec(max_duration_s=60)) is None
    await until(lambda: world.pool.upstreams[0].end == "closed")


async def test_the_same_request_gets_the_same_reservation(world, reservations):
    first, second = await asyncio.gather(prepare(reservations, "r-1"), prepare(reservations, "r-1"))
    assert first is second
    assert len(world.pool.upstreams) == 1
    with pytest.raises(RequestIdReused):
        await prepare(reservations, "r-1", wishes=spec(quality="low"))
    assert await prepare(reservations, "r-1", tenant="beta") is not first


async def test_the_same_request_later_gets_a_fresh_one(world, reservations):
    made = await prepare(reservations, "r-1", hold_s=0.02)
    await until(lambda: world.pool.upstreams[0].end == "closed")
    await world.pool.settle()
    assert (await prepare(reservations, "r-1")).id != made.id


async def test_another_process_names_the_one_that_has_it(world, reservations):
    made = await prepare(reservations, "r-1")
    await world.registry.renew("10.0.0.1:50051")
    async with warm_world() as elsewhere:
        elsewhere.journals.registry = MemoryRegistry(world.registry._config, memory=world.memory)
        others = Reservations(elsewhere.services, Limiter(lambda _: None), elsewhere.metrics)
        for call in (
            prepare(others, "r-1"),
            others.claim(made.id, spec(), tenant="acme"),
        ):
            with pytest.raises(OwnerMoved) as moved:
                await call
            assert moved.value.metadata["address"] == "10.0.0.1:50051"
        with pytest.raises(ReservationNotFound):
            await others.claim(made.id, spec(), tenant="beta")
        with pytest.raises(RequestIdReused):
            await prepare(others, "r-1", wishes=spec(quality="low"))


async def test_a_room_of_the_callers_own_cannot_be_prepared(reservations):
    with pytest.raises(InvalidField, match="livekit_room"):
        await prepare(reservations, wishes=spec(livekit_room=LiveKitRoom(name="desk")))


async def test_a_hosted_agent_cannot_be_prepared(reservations):
    with pytest.raises(InvalidField) as refused:
        await prepare(reservations, wishes=spec(connector=AGENT))
    assert refused.value.field == "spec.gemini_realtime"


async def test_a_refusal_leaves_no_place_taken(world, reservations, quotas):
    quotas["acme"] = Quotas(max_sessions=1)
    world.pool.refusal = CapacityExhausted("full", scope="upstream_account", retry_after_s=1.0)
    for _ in range(2):
        with pytest.raises(CapacityExhausted):
            await prepare(reservations)
    world.budgets["acme"] = Budget(minutes_per_day=0)
    world.pool.refusal = None
    with pytest.raises(BudgetExhausted):
        await prepare(reservations)
    assert reservations.count == 0


async def test_a_caller_that_gives_up_keeps_it_only_if_it_can_ask_again(world, reservations):
    for number, request_id in enumerate(("", "r-1")):
        world.pool.answer.clear()
        asking = asyncio.create_task(prepare(reservations, request_id))
        await until(lambda number=number: len(world.pool.upstreams) == number + 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        world.pool.answer.set()
        await world.pool.settle()
    assert [upstream.end for upstream in world.pool.upstreams] == ["closed", ""]
    assert (await prepare(reservations, "r-1")).warm.started.session_id == "up-2"


@pytest.mark.parametrize("request_id", ["", "r-1"])
async def test_a_caller_that_gives_up_in_the_queue_leaves_it(world, reservations, quotas, request_id):
    quotas["acme"] = Quotas(max_sessions=1)
    world.pool.permit.clear()
    asking = asyncio.create_task(prepare(reservations, request_id))
    await until(lambda: world.pool.wishes)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await world.pool.settle()
    assert (world.pool.upstreams, world.rows) == ([], {})
    world.pool.permit.set()
    await prepare(reservations, request_id)


async def test_a_caller_that_stays_is_served_although_another_of_the_same_request_leaves(world, reservations):
    world.pool.permit.clear()
    first = asyncio.create_task(prepare(reservations, "r-1"))
    await until(lambda: world.pool.wishes)
    second, third = (asyncio.create_task(prepare(reservations, "r-1")) for _ in range(2))
    await asyncio.sleep(0.01)
    for leaving in (first, second):
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    await until(lambda: len(world.pool.wishes) == 2)
    world.pool.permit.set()
    made = await third
    assert (reservations.count, made.warm.started.session_id) == (1, "up-1")


async def test_what_was_claimed_in_vain_can_be_put_back(reservations):
    made = await prepare(reservations)
    claimed = await reservations.claim(made.id, spec(), tenant="acme")
    reservations.put_back(claimed)
    assert await reservations.claim(made.id, spec(), tenant="acme") is made


async def test_a_spent_budget_ends_it(world, reservations):
    made = await prepare(reservations)
    error = BudgetExhausted("acme", period="hour", used=1, limit=1, until="", retry_after_s=1.0)
    assert reservations.end_for_budget(made.id, error)
    assert not reservations.end_for_budget(made.id, error)
    await until(lambda: world.pool.upstreams[0].end == "closed")


async def test_the_drain_of_its_account_ends_it(world, reservations):
    made = await prepare(reservations)
    assert reservations.end_drained(made.id)
    assert not reservations.end_drained(made.id)
    await until(lambda: world.pool.upstreams[0].end == "closed")


async def test_a_drain_ends_all_and_makes_no_more(world, reservations):
    await prepare(reservations)
    reservations.close()
    await until(lambda: world.pool.upstreams[0].end == "closed")
    with pytest.raises(Draining):
        await prepare(reservations)
    reservations.reopen()
    await prepare(reservations)


@pytest.mark.parametrize("request_id", ["", "r-1"])
async def test_a_drain_ends_what_waits_for_a_permit(world, reservations, request_id):
    world.pool.permit.clear()
    asking = asyncio.create_task(prepare(reservations, request_id))
    await until(lambda: world.pool.wishes)
    reservations.close()
    with pytest.raises(Draining):
        await asking
    await world.pool.settle()
    assert (world.pool.upstreams, reservations.count, world.rows) == ([], 0, {})


@pytest.mark.parametrize("request_id", ["", "r-1"])
async def test_a_drain_ends_what_is_on_its_way(world, reservations, request_id):
    world.pool.answer.clear()
    asking = asyncio.create_task(prepare(reservations, request_id))
    await until(lambda: world.pool.upstreams)
    reservations.close()
    with pytest.raises(Draining):
        await asking
    world.pool.answer.set()
    await world.pool.settle()
    assert (world.pool.upstreams[0].end, reservations.count, world.rows) == ("closed", 0, {})


async def test_a_drain_while_its_request_is_recorded_keeps_it_from_starting():
    async with warm_world(SlowRegistry) as world:
        reservations = Reservations(world.services, Limiter(lambda _: None), world.metrics)
        asking = asyncio.create_task(prepare(reservations, "r-1"))
        await until(lambda: world.rows)
        reservations.close()
        with pytest.raises(Draining):
            await asking
        await world.pool.settle()
        assert (world.pool.wishes, world.rows) == ([], {})


async def test_what_is_put_back_during_a_drain_is_ended(world, reservations):
    made = await prepare(reservations)
    claimed = await reservations.claim(made.id, spec(), tenant="acme")
    reservations.close()
    reservations.put_back(claimed)
    await until(lambda: world.pool.upstreams[0].end == "closed")
    assert reservations.count == 0


async def test_the_reservations_of_a_suspended_tenant_are_ended(world, reservations):
    await prepare(reservations)
    kept = await prepare(reservations, tenant="beta")
    reservations.end_suspended(lambda tenant: tenant != "acme")
    await until(lambda: world.pool.upstreams[0].end == "closed")
    assert (reservations.count, world.pool.upstreams[1].end) == (1, "")
    assert await reservations.claim(kept.id, spec(), tenant="beta") is kept


async def test_an_avatar_on_an_account_that_its_tenant_may_use_no_longer_is_not_taken(world, reservations):
    made = await prepare(reservations)
    claimed = await reservations.claim(made.id, spec(), tenant="acme")
    world.pool.accounts[0].spec = AccountSpec(avatars=frozenset())
    assert reservations.taken(claimed, spec()) is None
    await until(lambda: world.pool.upstreams[0].end == "closed")
