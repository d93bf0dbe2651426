"""Every wait ends: with its answer, with the session's failure, or at its deadline, and says which."""

import asyncio
import time

import pytest

from load.session import Failure, Waits, until


async def test_an_answer_that_does_not_come_is_named():
    waits = Waits()
    with pytest.raises(Failure, match=r"no answer within 0\.01 s: session ready") as told:
        await waits.answer("session ready", asyncio.get_running_loop().create_future(), 0.01)
    assert told.value.reason == "NO_ANSWER: session ready"


async def test_a_failure_wakes_all_who_wait_and_the_first_one_counts():
    waits = Waits()
    loop = asyncio.get_running_loop()
    waiting = [asyncio.create_task(waits.answer("it", loop.create_future(), 60)) for _ in range(3)]
    await asyncio.sleep(0)
    waits.fail(Failure("FIRST", "the first"))
    waits.fail(Failure("SECOND", "the second"))
    for task in waiting:
        with pytest.raises(Failure, match="the first"):
            await task
    with pytest.raises(Failure, match="the first"):
        await waits.answer("later", loop.create_future(), 60)


async def test_an_answer_that_came_before_the_failure_is_still_an_answer():
    waits = Waits()
    future = asyncio.get_running_loop().create_future()
    future.set_result("yes")
    waits.fail(Failure("LATE", "too late"))
    assert await waits.answer("it", future, 60) == "yes"


async def test_a_reader_that_breaks_fails_the_session_instead_of_vanishing():
    async def read() -> None:
        raise KeyError("field")

    waits = Waits()
    task = asyncio.create_task(read())
    task.add_done_callback(waits.done)
    await asyncio.wait({task})
    await asyncio.sleep(0)
    assert waits.failure is not None
    assert waits.failure.reason == "GENERATOR: KeyError"


async def test_sleep_is_never_cut_short():
    for _ in range(30):
        due_s = time.monotonic() + 0.0031
        await until(due_s)
        assert time.monotonic() >= due_s


async def test_a_sleep_that_is_cancelled_leaves_no_timer_behind():
    task = asyncio.create_task(until(time.monotonic() + 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_texts_of_the_target_are_escaped_and_bounded():
    failure = Failure("\x1b[2J\u202e" + "R" * 500, "no\nforged" + "x" * 5000)
    assert failure.reason.startswith(r"\x1b[2J\u202eRRR")
    assert str(failure).startswith(r"no\nforged")
    assert len(failure.reason) < 200
    assert len(str(failure)) < 2000
