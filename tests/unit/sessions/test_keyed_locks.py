"""Calls about one name run one after the other, and no lock outlives its users."""

import asyncio

from liveavatar_gateway.sessions.keyed_locks import KeyedLocks


async def test_calls_about_one_name_run_one_after_the_other():
    locks, order = KeyedLocks(), []

    async def call(number):
        async with locks.locked("session 1"):
            order.append(f"{number} in")
            await asyncio.sleep(0)
            order.append(f"{number} out")

    await asyncio.gather(call(1), call(2))
    assert order == ["1 in", "1 out", "2 in", "2 out"]


async def test_calls_about_other_names_do_not_wait():
    locks = KeyedLocks()
    async with locks.locked("session 1"), asyncio.timeout(1), locks.locked("session 2"):
        pass


async def test_a_lock_is_kept_no_longer_than_it_is_used():
    locks = KeyedLocks()
    async with locks.locked("session 1"):
        waiting = asyncio.ensure_future(_hold(locks, "session 1"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert list(locks._locks) == ["session 1"], "a waiter that gave up must not remove the holder's lock"
    assert not locks._locks


async def _hold(locks, name):
    async with locks.locked(name):
        pass
