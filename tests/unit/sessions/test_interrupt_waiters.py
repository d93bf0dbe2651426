"""Callers that wait for the result of an interrupt."""

import asyncio

import pytest

from liveavatar_gateway.core.errors import OwnerMoved
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.states import Outcome
from liveavatar_gateway.sessions.interrupt_waiters import InterruptWaiters

ENDED = [UtteranceEnded("u", Outcome.INTERRUPTED, 0.5)]


async def test_each_caller_gets_the_result_of_its_own_interrupt():
    waiters = InterruptWaiters()
    first, second = waiters.expect(1), waiters.expect(2)
    waiters.resolve(2, ENDED)
    waiters.resolve(1, [])
    assert (await first, await second) == ([], ENDED)


async def test_a_result_whose_caller_is_gone_is_ignored():
    waiters = InterruptWaiters()
    waiting = waiters.expect(1)
    waiting.cancel()
    waiters.resolve(1, ENDED)
    await asyncio.sleep(0)
    waiters.resolve(1, ENDED)
    waiters.resolve(7, ENDED)


async def test_every_waiting_caller_learns_that_the_result_stays_unknown():
    waiters = InterruptWaiters()
    first, second = waiters.expect(1), waiters.expect(2)
    waiters.resolve(1, ENDED)
    waiters.fail_all(OwnerMoved("s"))
    assert await first == ENDED
    with pytest.raises(OwnerMoved):
        await second
