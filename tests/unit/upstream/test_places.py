"""Places on the account: never more than it allows, first come first served, and none is ever lost."""

import asyncio
import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.core.errors import CapacityExhausted
from liveavatar_gateway.upstream.places import Places, PlacesConfig


def make(**changes) -> Places:
    return Places(PlacesConfig(**{"limit": 1, "settle_s": 0.0, "wait_s": 30.0, **changes}))


async def turns(count: int = 5) -> None:
    """Let the tasks that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_free_place_is_taken_at_once():
    places = make(limit=2)
    await places.take()
    await places.take()
    assert (places.used, places.limit, places.waiting) == (2, 2, 0)


async def test_a_caller_waits_until_a_place_is_given_back():
    places = make()
    held = await places.take()
    waiting = asyncio.create_task(places.take())
    await turns()
    assert (places.waiting, waiting.done()) == (1, False)
    held.release(settle=False)
    await waiting
    assert (places.used, places.waiting) == (1, 0)


async def test_callers_are_served_in_the_order_they_came():
    places, served = make(), []
    held = await places.take()

    async def caller(name: int) -> None:
        place = await places.take()
        served.append(name)
        place.release(settle=False)

    callers = []
    for name in range(5):
        callers.append(asyncio.create_task(caller(name)))
        await turns(1)
    held.release(settle=False)
    await asyncio.wait(callers)
    assert served == [0, 1, 2, 3, 4]


async def test_a_newcomer_does_not_overtake_the_line():
    places = make()
    held = await places.take()
    waiting = asyncio.create_task(places.take())
    await turns()
    held.release(settle=False)
    newcomer = asyncio.create_task(places.take())
    await turns()
    assert (waiting.done(), newcomer.done()) == (True, False)
    (await waiting).release(settle=False)
    await newcomer


async def test_a_full_line_refuses_the_next_at_once_and_says_whose_limit_it_is():
    places = make(max_waiting=1)
    held = await places.take()
    waiting = asyncio.create_task(places.take())
    await turns()
    with pytest.raises(CapacityExhausted, match="1 callers wait already") as refused:
        await places.take()
    assert refused.value.metadata == {"limit": "1", "waiting": "1", "scope": "upstream_account"}
    assert refused.value.retry_after_s == 1.0
    held.release(settle=False)
    await waiting


async def test_a_wait_in_vain_is_refused_and_leaves_the_line():
    places = make()
    await places.take()
    with pytest.raises(CapacityExhausted, match=r"none came free in 0\.0 s"):
        await places.take(wait_s=0.005)
    assert (places.used, places.waiting) == (1, 0)


@pytest.mark.parametrize("wait_s", [0.0, -5.0])
async def test_a_caller_without_time_is_refused_without_waiting(wait_s):
    places = make()
    await places.take()
    with pytest.raises(CapacityExhausted):
        await places.take(wait_s=wait_s)
    assert places.waiting == 0


async def test_a_caller_without_a_deadline_waits_as_long_as_is_configured():
    places = make(wait_s=0.005)
    await places.take()
    with pytest.raises(CapacityExhausted):
        await places.take()


async def test_a_place_is_given_back_once():
    places = make(limit=2)
    first, _ = await places.take(), await places.take()
    first.release(settle=False)
    first.release(settle=False)
    assert places.used == 1


async def test_a_place_stays_taken_while_liveavatar_forgets_its_session():
    places = make(settle_s=0.005)
    (await places.take()).release(settle=True)
    assert places.used == 1
    await places.take()
    assert places.used == 1


async def test_a_place_in_which_nothing_was_started_is_free_at_once():
    places = make(settle_s=30.0)
    (await places.take()).release(settle=False)
    assert places.used == 0


async def test_a_caller_that_is_cancelled_leaves_the_line():
    places = make()
    held = await places.take()
    waiting = asyncio.create_task(places.take())
    await turns()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert places.waiting == 0
    held.release(settle=False)
    assert places.used == 0


async def test_a_place_that_arrives_together_with_the_cancellation_is_not_lost():
    places = make()
    held = await places.take()
    waiting = asyncio.create_task(places.take())
    await turns()
    held.release(settle=False)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert places.used == 0


async def test_a_place_that_arrives_together_with_a_cancellation_goes_to_the_next_in_line():
    places = make()
    held = await places.take()
    first, second = asyncio.create_task(places.take()), asyncio.create_task(places.take())
    await turns()
    held.release(settle=False)
    first.cancel()
    await second
    assert (places.used, places.waiting) == (1, 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), limit=st.integers(1, 4), callers=st.integers(1, 25), settle=st.booleans())
def test_however_callers_come_and_go_the_limit_holds_and_every_place_comes_back(seed, limit, callers, settle):
    rng = random.Random(seed)

    async def scenario() -> None:
        places = make(limit=limit, settle_s=0.0005 if settle else 0.0, max_waiting=10)
        holding = 0

        async def caller() -> None:
            nonlocal holding
            await turns(rng.randrange(4))
            try:
                place = await places.take(wait_s=rng.choice([0.0, 0.001, 30.0]))
            except CapacityExhausted:
                return
            try:
                holding += 1
                assert holding <= places.used <= limit
                await turns(rng.randrange(6))
            finally:
                holding -= 1
                place.release(settle=settle)

        tasks = [asyncio.create_task(caller()) for _ in range(callers)]
        for task in rng.sample(tasks, k=len(tasks) // 3):
            await turns(rng.randrange(3))
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                task.result()
        if settle:
            await asyncio.sleep(0.002)
        assert (places.used, places.waiting) == (0, 0)

    asyncio.run(scenario())
