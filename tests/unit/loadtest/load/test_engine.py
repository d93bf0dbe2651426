"""Greenlets wait for the native loop, and nobody else stands still meanwhile."""

import asyncio
import threading
import time
from collections.abc import Iterator

import gevent
import pytest

from load.engine import Engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.stop()


def test_work_is_done_on_another_thread_and_its_result_comes_back(engine: Engine):
    async def work() -> tuple[int, str]:
        await asyncio.sleep(0.01)
        return threading.get_ident(), "done"

    ident, result = engine.run(work)
    assert result == "done"
    assert ident != threading.get_ident()


def test_what_work_raises_is_raised_where_it_was_asked_for(engine: Engine):
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        engine.run(work)


def test_other_greenlets_go_on_while_one_waits(engine: Engine):
    async def work() -> None:
        await asyncio.sleep(0.2)

    began_s = time.monotonic()
    waiting = [gevent.spawn(engine.run, work) for _ in range(50)]
    gevent.joinall(waiting, raise_error=True)
    assert time.monotonic() - began_s < 50 * 0.2 / 2, "they waited together, not one after the other"


def test_a_greenlet_that_is_killed_cancels_its_work(engine: Engine):
    cancelled = threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    waiting = gevent.spawn(engine.run, work)
    gevent.sleep(0.05)
    waiting.kill()
    assert cancelled.wait(5)


def test_a_stopped_engine_has_ended_what_ran(engine: Engine):
    ended = threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def start() -> None:
        engine_tasks.append(asyncio.create_task(work()))
        await asyncio.sleep(0)

    engine_tasks: list[asyncio.Task[None]] = []
    engine.run(start)
    engine.stop()
    assert ended.wait(5)
