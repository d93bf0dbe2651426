"""A timeout bounds clean-up also in a task that was cancelled."""

import asyncio

import pytest

from liveavatar.gateway.timeouts import _Timeout, timeout


@pytest.fixture(params=[timeout, _Timeout])
def bounded(request):
    return request.param


async def test_a_block_that_takes_longer_is_cut(bounded):
    with pytest.raises(TimeoutError):
        async with bounded(0.01):
            await asyncio.Event().wait()
    assert asyncio.current_task().cancelling() == 0


async def test_clean_up_of_a_cancelled_task_is_cut_too(bounded):
    seen = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                async with bounded(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                seen.append("timeout")
            raise

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert seen == ["timeout"]


async def test_a_cancellation_inside_is_no_timeout(bounded):
    async def work() -> None:
        async with bounded(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_and_results_pass(bounded):
    async with bounded(None):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="of the block"):
        async with bounded(60):
            raise ValueError("of the block")
