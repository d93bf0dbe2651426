"""A warm session is ready before its caller, belongs to one owner at a time, and is never left running."""

import asyncio
import time

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    Draining,
    OwnerMoved,
    RegistryUnavailable,
    UpstreamUnreachable,
)
from liveavatar_gateway.core.states import EndReason, IllegalTransition, move
from liveavatar_gateway.sessions.warm_session import WARM_TRANSITIONS, WarmSession, WarmStage
from liveavatar_gateway.upstream.model import AvatarRequest, RemoteStatus
from testkit.actors import AVATAR_ID
from testkit.unreliable_registry import FlappingRegistry
from testkit.warmth import until, warm_world


class Owner:
    def __init__(self) -> None:
        self.ready: list[WarmSession] = []
        self.ending: list[str] = []
        self.ended: list[WarmSession] = []

    def on_ready(self, warm):
        self.ready.append(warm)

    def on_ending(self, _, reason):
        self.ending.append(reason)

    def on_ended(self, warm):
        self.ended.append(warm)


@pytest.fixture
def owner():
    return Owner()


@pytest.fixture
async def world():
    async with warm_world() as found:
        yield found


def make(world, owner, **options) -> WarmSession:
    return WarmSession(AvatarRequest(avatar_id=AVATAR_ID), world.services, owner, tenant="acme", **options)


async def ready(world, owner) -> WarmSession:
    warm = make(world, owner)
    warm.begin()
    await until(lambda: owner.ready)
    return warm


@pytest.mark.parametrize("stage", list(WarmStage))
@pytest.mark.parametrize("following", list(WarmStage))
def test_a_stage_follows_only_where_the_table_allows_it(stage, following):
    if following in WARM_TRANSITIONS[stage]:
        assert move(WARM_TRANSITIONS, stage, following) is following
    else:
        with pytest.raises(IllegalTransition):
            move(WARM_TRANSITIONS, stage, following)


async def test_it_is_started_connected_and_in_the_registry_with_its_payer(world, owner):
    warm = await ready(world, owner)
    assert warm.is_usable
    assert world.rows == {warm.id: ("up-1",)}
    assert await world.minutes() == {"acme": 1}
    assert warm.left_s(warm.started_s) == pytest.approx(600)


async def test_what_is_given_up_is_stopped_and_leaves_no_row(world, owner):
    warm = await ready(world, owner)
    warm.give_up("idle")
    warm.give_up("again")
    await world.pool.settle()
    assert (owner.ending, owner.ended) == (["idle"], [warm])
    assert (world.pool.upstreams[0].end, world.rows, warm.stage) == ("closed", {}, WarmStage.ENDED)


async def test_a_session_that_cannot_start_ends_with_its_error(world, owner):
    world.pool.refusal = CapacityExhausted("full", scope="upstream_account", retry_after_s=1.0)
    warm = make(world, owner)
    warm.begin()
    await until(lambda: owner.ended)
    assert (warm.error, warm.was_refunded, owner.ending) == (world.pool.refusal, True, ["CAPACITY_EXHAUSTED"])


async def test_a_session_that_is_given_up_while_it_starts_is_stopped_all_the_same(world, owner):
    world.pool.answer.clear()
    warm = make(world, owner)
    starting = asyncio.create_task(warm.start(wait_s=None))
    await until(lambda: world.pool.upstreams)
    warm.give_up("drained")
    with pytest.raises(Draining):
        await starting
    assert warm.stage is WarmStage.ENDING
    world.pool.answer.set()
    await world.pool.settle()
    assert (world.pool.upstreams[0].end, owner.ended, warm.was_refunded) == ("closed", [warm], False)


@pytest.mark.parametrize("has_begun_to_wait", [True, False])
async def test_a_session_that_is_given_up_in_the_queue_leaves_it_at_once(world, owner, has_begun_to_wait):
    world.pool.permit.clear()
    warm = make(world, owner)
    warm.begin()
    if has_begun_to_wait:
        await until(lambda: world.pool.wishes)
    warm.give_up("drained")
    await world.pool.settle()
    assert (world.pool.upstreams, owner.ended, warm.was_refunded) == ([], [warm], True)


async def test_a_start_that_may_have_been_carried_out_ends_when_that_is_known(world, owner):
    world.pool.failure = UpstreamUnreachable("no answer")
    world.pool.stop.clear()
    warm = make(world, owner)
    warm.begin()
    await until(lambda: owner.ending)
    await asyncio.sleep(0.01)
    assert warm.stage is WarmStage.ENDING
    world.pool.stop.set()
    await until(lambda: owner.ended)
    assert not warm.was_refunded


async def test_its_life_does_not_count_the_wait_for_a_permit(world, owner):
    world.pool.permit.clear()
    warm = make(world, owner)
    warm.begin()
    await until(lambda: world.pool.wishes)
    waited_until_s = time.monotonic()
    world.pool.permit.set()
    await until(lambda: owner.ready)
    assert warm.started_s >= waited_until_s


@pytest.mark.parametrize("event", [m.Stopped("IDLE_TIMEOUT"), m.StateUpdated("closed")])
async def test_what_liveavatar_ends_is_given_up(world, owner, event):
    await ready(world, owner)
    world.pool.upstreams[0].sockets[0].say(event)
    await until(lambda: owner.ended)
    assert owner.ending == ["UPSTREAM_UNREACHABLE"]


async def test_a_lost_socket_is_not_given_to_a_caller(world, owner):
    warm = await ready(world, owner)
    world.pool.upstreams[0].sockets[0].lost.set_result(None)
    await until(lambda: not warm.is_usable)
    await until(lambda: owner.ended)
    assert world.pool.upstreams[0].end == "closed"


async def test_a_socket_that_answers_no_check_counts_as_lost(world, owner):
    warm = await ready(world, owner)
    await warm.check()
    await until(lambda: m.Probe() in world.pool.upstreams[0].sockets[0].commands)
    assert warm.is_usable
    await warm.check()
    await until(lambda: owner.ended)


async def test_a_session_that_has_ended_without_a_word_is_found_out(world, owner):
    warm = await ready(world, owner)
    world.pool.upstreams[0].status = RemoteStatus(over=True, reason="ZOMBIE_SESSION_REAP")
    await warm.check()
    await until(lambda: owner.ended)
    assert not warm.is_usable


async def test_another_process_that_claims_it_stops_it(world, owner):
    warm = await ready(world, owner)
    warm.moved(OwnerMoved(warm.id))
    await until(lambda: owner.ended)
    assert world.pool.upstreams[0].end == "left"


async def test_an_operator_may_end_it(world, owner):
    warm = await ready(world, owner)
    warm.end_for(EndReason.OPERATOR)
    await until(lambda: owner.ended)
    assert owner.ending == ["OPERATOR"]


async def test_a_taken_session_has_one_row_the_takers(world, owner):
    warm, taker = await ready(world, owner), world.taker()
    warm.claim()
    upstream = await warm.hand_over(taker.billed, 300.0)
    await world.pool.settle()
    assert upstream is world.pool.upstreams[0]
    assert upstream.started.max_duration_s == 300
    assert upstream.caller == ("beta", taker.id)
    assert world.rows == {taker.id: ("up-1",)}
    assert not warm.is_usable
    warm.give_up("too late")
    assert (upstream.end, owner.ending, owner.ended) == ("", [], [warm])
    await upstream.close()
    assert world.rows == {taker.id: ()}


async def test_the_minute_that_runs_stays_with_the_payer(world, owner):
    warm, taker = await ready(world, owner), world.taker()
    warm.claim()
    await warm.hand_over(taker.billed, None)
    await world.pool.settle()
    await until(lambda: world.billing._meters["up-1"].payer.tenant == "beta")
    assert await world.minutes() == {"acme": 1}
    assert world.billing._meters["up-1"].next_s > warm.started_s + 59


async def test_a_session_that_another_process_has_claimed_is_not_taken(world, owner):
    warm, taker = await ready(world, owner), world.taker()
    stored = world.memory.sessions[warm.id]
    other = type(world.registry)(world.registry._config, memory=world.memory)
    await other.claim(stored)
    warm.claim()
    assert await warm.hand_over(taker.billed, None) is None
    await until(lambda: owner.ended)


async def test_without_a_registry_it_stays_warm_for_the_next_caller(owner):
    async with warm_world(FlappingRegistry) as world:
        warm, taker = await ready(world, owner), world.taker()
        warm.claim()
        # The second session that is created, after the warm one.
        with pytest.raises(RegistryUnavailable):
            await warm.hand_over(taker.billed, None)
        await until(lambda: warm.is_usable)
        warm.claim()
        assert await warm.hand_over(taker.billed, None) is not None


async def test_what_was_given_up_during_a_hand_over_that_fails_is_ended(owner):
    async with warm_world(FlappingRegistry) as world:
        warm, taker = await ready(world, owner), world.taker()
        warm.claim()
        warm.give_up("unused")
        with pytest.raises(RegistryUnavailable):
            await warm.hand_over(taker.billed, None)
        await until(lambda: owner.ended)
    assert (owner.ending, world.pool.upstreams[0].end) == (["unused"], "closed")
