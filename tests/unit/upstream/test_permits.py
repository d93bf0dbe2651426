"""Places on the account: never more than it allows, first come first served, and none is ever lost."""

import asyncio
import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.core.errors import CapacityExhausted
from liveavatar_gateway.upstream.permits import Permits, PermitsConfig, Settling


def make(**changes) -> Permits:
    return Permits(PermitsConfig(**{"limit": 1, "settle_s": 0.0, "wait_s": 30.0, **changes}))


async def turns(count: int = 5) -> None:
    """Let the tasks that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_free_permit_is_taken_at_once():
    permits = make(limit=2)
    await permits.acquire()
    await permits.acquire()
    assert (permits.used, permits.limit, permits.waiting) == (2, 2, 0)


async def test_a_caller_waits_until_a_permit_is_given_back():
    permits = make()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    assert (permits.waiting, waiting.done()) == (1, False)
    held.release(settle=False)
    await waiting
    assert (permits.used, permits.waiting) == (1, 0)


async def test_callers_are_served_in_the_order_they_came():
    permits, served = make(), []
    held = await permits.acquire()

    async def caller(name: int) -> None:
        permit = await permits.acquire()
        served.append(name)
        permit.release(settle=False)

    callers = []
    for name in range(5):
        callers.append(asyncio.create_task(caller(name)))
        await turns(1)
    held.release(settle=False)
    await asyncio.wait(callers)
    assert served == [0, 1, 2, 3, 4]


async def test_a_newcomer_does_not_overtake_the_queue():
    permits = make()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    held.release(settle=False)
    newcomer = asyncio.create_task(permits.acquire())
    await turns()
    assert (waiting.done(), newcomer.done()) == (True, False)
    (await waiting).release(settle=False)
    await newcomer


async def test_a_full_queue_refuses_the_next_at_once_and_says_whose_limit_it_is():
    permits = make(max_waiting=1)
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    with pytest.raises(CapacityExhausted, match="1 callers already wait") as refused:
        await permits.acquire()
    assert refused.value.metadata == {"limit": "1", "waiting": "1", "scope": "upstream_account"}
    assert refused.value.retry_after_s == 1.0
    held.release(settle=False)
    await waiting


async def test_a_wait_in_vain_is_refused_and_leaves_the_queue():
    permits = make()
    await permits.acquire()
    with pytest.raises(CapacityExhausted, match=r"none came free in 0\.0 s"):
        await permits.acquire(wait_s=0.005)
    assert (permits.used, permits.waiting) == (1, 0)


@pytest.mark.parametrize("wait_s", [0.0, -5.0])
async def test_a_caller_without_time_is_refused_without_waiting(wait_s):
    permits = make()
    await permits.acquire()
    with pytest.raises(CapacityExhausted):
        await permits.acquire(wait_s=wait_s)
    assert permits.waiting == 0


async def test_a_caller_without_a_deadline_waits_as_long_as_is_configured():
    permits = make(wait_s=0.005)
    await permits.acquire()
    with pytest.raises(CapacityExhausted):
        await permits.acquire()


async def test_a_permit_is_given_back_once():
    permits = make(limit=2)
    first, _ = await permits.acquire(), await permits.acquire()
    first.release(settle=False)
    first.release(settle=False)
    assert permits.used == 1


async def test_a_permit_stays_taken_while_liveavatar_forgets_its_session():
    permits = make(settle_s=0.005)
    (await permits.acquire()).release(settle=True)
    assert permits.used == 1
    await permits.acquire()
    assert permits.used == 1


async def test_a_permit_in_which_nothing_was_started_is_free_at_once():
    permits = make(settle_s=30.0)
    (await permits.acquire()).release(settle=False)
    assert permits.used == 0


async def test_a_caller_that_is_cancelled_leaves_the_queue():
    permits = make()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert permits.waiting == 0
    held.release(settle=False)
    assert permits.used == 0


async def test_a_permit_that_arrives_together_with_the_cancellation_is_not_lost():
    permits = make()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    held.release(settle=False)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert permits.used == 0


async def test_a_permit_that_arrives_together_with_a_cancellation_goes_to_the_next_in_queue():
    permits = make()
    held = await permits.acquire()
    first, second = asyncio.create_task(permits.acquire()), asyncio.create_task(permits.acquire())
    await turns()
    held.release(settle=False)
    first.cancel()
    await second
    assert (permits.used, permits.waiting) == (1, 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), limit=st.integers(1, 4), callers=st.integers(1, 25), settle=st.booleans())
def test_however_callers_come_and_go_the_limit_holds_and_every_permit_comes_back(seed, limit, callers, settle):
    rng = random.Random(seed)

    async def scenario() -> None:
        permits = make(limit=limit, settle_s=0.0005 if settle else 0.0, max_waiting=10)
        holding = 0

        async def caller() -> None:
            nonlocal holding
            await turns(rng.randrange(4))
            try:
                permit = await permits.acquire(wait_s=rng.choice([0.0, 0.001, 30.0]))
            except CapacityExhausted:
                return
            try:
                holding += 1
                assert holding <= permits.used <= limit
                await turns(rng.randrange(6))
            finally:
                holding -= 1
                permit.release(settle=settle)

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
        assert (permits.used, permits.waiting) == (0, 0)

    asyncio.run(scenario())


# --- LiveAvatar says that the account is full, though a permit is free here


async def test_a_refused_caller_goes_back_to_where_it_stood_and_the_permit_settles():
    permits, served = make(), []
    held = await permits.acquire()

    async def caller(name: str, refusals: int) -> None:
        permit = await permits.acquire()
        for _ in range(refusals):
            permit.refuse()
            assert permit.may_retry
            assert permits.used == 1, "it settles"
            permit = await permits.acquire(refused=permit)
        served.append(name)
        permit.release(settle=False)

    callers = [asyncio.create_task(caller("first", 2)), asyncio.create_task(caller("second", 0))]
    await turns()
    held.release(settle=True)
    await asyncio.wait(callers, timeout=5)
    assert served == ["first", "second"]
    assert (permits.used, permits.waiting) == (0, 0)
    assert permits.settling.pause_s > 0, "learnt"


async def test_several_refused_callers_keep_their_order():
    permits, served = make(limit=3), []
    held = [await permits.acquire() for _ in range(3)]

    async def caller(name: int) -> None:
        permit = await permits.acquire()
        permit.refuse()
        permit = await permits.acquire(refused=permit)
        served.append(name)
        permit.release(settle=False)

    callers = []
    for name in range(5):
        callers.append(asyncio.create_task(caller(name)))
        await turns(1)
    for permit in held:
        permit.release(settle=True)
    await asyncio.wait(callers, timeout=5)
    assert served == [0, 1, 2, 3, 4]


async def test_a_refusal_without_a_queue_and_without_an_end_before_it_is_no_matter_of_time():
    permits = make(limit=3, settle_s=1.0)
    permit = await permits.acquire()
    permit.refuse()
    assert not permit.may_retry
    assert (permits.used, permits.settling.pause_s) == (0, 1.0)


async def test_a_refusal_soon_after_a_full_account_lost_a_session_is_a_matter_of_time():
    permits = make(settle_s=0.005)
    (await permits.acquire()).release(settle=True)
    await asyncio.sleep(0.01)
    permit = await permits.acquire()
    permit.refuse()
    assert permit.may_retry


async def test_a_refused_caller_waits_no_longer_than_it_is_willing_to():
    permits = make()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    held.release(settle=True)
    permit = await waiting
    permit.refuse()
    with pytest.raises(CapacityExhausted):
        await permits.acquire(wait_s=0.005, refused=permit)
    assert permits.waiting == 0


async def test_a_full_queue_is_no_reason_to_lose_one_that_stood_in_it():
    permits = make(max_waiting=1)
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    held.release(settle=True)
    permit = await waiting
    another = asyncio.create_task(permits.acquire())
    await turns()
    permit.refuse()
    (await permits.acquire(wait_s=5, refused=permit)).release(settle=False)
    (await another).release(settle=False)


def test_the_pause_after_a_refusal_grows_up_to_some_seconds():
    settling, waited_s, steps = Settling(0.2), 0.2, []
    for _ in range(9):
        steps.append(settling.refused(waited_s))
        waited_s += steps[-1]
    assert steps == pytest.approx([0.25, 0.25, 0.35, 0.525, 0.79, 1.18, 1.77, 2.66, 3.99], abs=0.01)
    assert settling.pause_s == 8.0


@pytest.mark.parametrize("frees_after_s", [0.3, 1.7, 3.0, 5.5])
def test_the_pause_is_learnt_and_then_costs_hardly_a_refusal(frees_after_s):
    settling, now_s = Settling(0.2), 0.0
    refusals, waits = [], []
    for _ in range(60):
        count, waited_s = 0, settling.pause_s
        while waited_s < frees_after_s:
            count += 1
            waited_s += settling.refused(waited_s)
        now_s += waited_s + 10
        settling.accepted(waited_s, had_refusals=count > 0, now_s=now_s)
        refusals.append(count)
        waits.append(waited_s)
    assert sum(refusals[10:]) <= 10, "once learnt, a refusal is rare"
    assert max(waits[10:]) <= 1.6 * frees_after_s + 0.25
    assert sum(waits[10:]) / 50 <= 1.3 * frees_after_s + 0.1


def test_a_pause_that_is_not_needed_any_more_is_forgotten():
    settling, now_s = Settling(0.5), 0.0
    settling.refused(4.0)
    settling.accepted(6.0, had_refusals=True, now_s=now_s)
    assert settling.pause_s == 6.0
    for _ in range(300):
        now_s += 10
        settling.accepted(settling.pause_s, had_refusals=False, now_s=now_s)
    assert settling.pause_s == 0.5


def test_many_starts_at_once_shrink_the_pause_once():
    settling = Settling(0.5)
    settling.accepted(4.0, had_refusals=True, now_s=0.0)
    for _ in range(50):
        settling.accepted(4.0, had_refusals=False, now_s=1.0)
    assert settling.pause_s == pytest.approx(3.6)


def test_a_pause_that_is_set_longer_than_any_that_is_learnt_stays():
    settling = Settling(30.0)
    settling.refused(30.0)
    settling.accepted(34.0, had_refusals=True, now_s=0.0)
    assert settling.pause_s == 30.0


async def test_a_caller_is_kept_out_of_the_queue_by_what_its_wait_raises():
    def refuse() -> None:
        raise CapacityExhausted("no place", scope="test", retry_after_s=1.0)

    permits = make()
    held = await permits.acquire(on_wait=refuse)
    with pytest.raises(CapacityExhausted, match="no place"):
        await permits.acquire(on_wait=refuse)
    assert (permits.used, permits.waiting) == (1, 0)
    held.release(settle=False)
    await permits.acquire(on_wait=refuse)
