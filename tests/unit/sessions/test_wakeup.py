"""A signal wakes one task, loses no news, and keeps none twice."""

import asyncio

import pytest

from liveavatar_gateway.sessions.wakeup import Wakeup


async def waiting(signal: Wakeup, timeout_s: float | None = None) -> asyncio.Task[None]:
    """A task that waits for news."""
    task = asyncio.create_task(signal.wait(timeout_s))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_news_wake_the_task_that_waits():
    signal = Wakeup()
    task = await waiting(signal)
    signal.set()
    await task


async def test_news_while_nobody_waits_are_not_lost():
    signal = Wakeup()
    signal.set()
    await asyncio.wait_for(signal.wait(), 5)


async def test_news_are_merged_and_taken_once():
    signal = Wakeup()
    signal.set()
    signal.set()
    await signal.wait()
    task = await waiting(signal)
    signal.set()
    await task


async def test_news_that_came_with_a_wake_up_are_taken_by_it():
    signal = Wakeup()
    task = await waiting(signal)
    signal.set()
    signal.set()
    await task
    task = await waiting(signal)
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("timeout_s", [0.001, 0.0, -1.0])
async def test_without_news_a_wait_returns_after_its_time(timeout_s):
    await asyncio.wait_for(Wakeup().wait(timeout_s), 5)


async def test_a_wait_that_timed_out_leaves_nothing_behind():
    signal = Wakeup()
    await signal.wait(0.0)
    task = await waiting(signal)
    signal.set()
    await task


async def test_a_cancelled_wait_leaves_the_news_for_the_next():
    signal = Wakeup()
    task = await waiting(signal, 30.0)
    task.cancel()
    signal.set()
    await asyncio.wait([task])
    assert task.cancelled()
    await asyncio.wait_for(signal.wait(), 5)


async def test_news_together_with_the_end_of_the_time_wake_once():
    signal = Wakeup()
    task = await waiting(signal, 30.0)
    signal.set()
    Wakeup._expire(signal._waiter)
    await task


async def test_a_timeout_is_called_off_by_news():
    signal = Wakeup()
    task = await waiting(signal, 0.001)
    signal.set()
    await task
    task = await waiting(signal)
    await asyncio.sleep(0.003)
    assert not task.done(), "the earlier wait's timer must not end this one"
    signal.set()
    await task
