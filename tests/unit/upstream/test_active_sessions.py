"""List of active sessions: one call for all who ask, and nothing concluded from a call that fails."""

import asyncio

import pytest

from liveavatar_gateway.core.errors import UpstreamUnreachable
from liveavatar_gateway.upstream import active_sessions as module
from liveavatar_gateway.upstream.active_sessions import ActiveSessions


class Call:
    """LiveAvatar, which answers as a test says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.count = 0

    async def active(self) -> list[str]:
        self.count += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return ["s-1", "s-2"]


@pytest.fixture
def call():
    return Call()


@pytest.fixture
def active(call):
    return ActiveSessions(call)


async def test_readers_share_a_call_and_then_its_answer(active, call):
    call.may_answer.clear()
    readers = [asyncio.create_task(active.ids(asyncio.create_task, max_age_s=60.0)) for _ in range(5)]
    await asyncio.sleep(0)
    call.may_answer.set()
    assert await asyncio.gather(*readers) == [frozenset({"s-1", "s-2"})] * 5
    assert await active.ids(asyncio.create_task, max_age_s=60.0) == {"s-1", "s-2"}
    assert call.count == 1
    await active.ids(asyncio.create_task, max_age_s=0.0)
    assert call.count == 2


async def test_a_reader_that_gives_up_does_not_stop_the_call(active, call):
    call.may_answer.clear()
    first = asyncio.create_task(active.ids(asyncio.create_task, max_age_s=60.0))
    await asyncio.sleep(0)
    second = asyncio.create_task(active.ids(asyncio.create_task, max_age_s=60.0))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    call.may_answer.set()
    assert await second == {"s-1", "s-2"}


async def test_a_failure_says_nothing_and_is_not_repeated_at_once(active, call):
    assert await active.ids(asyncio.create_task, max_age_s=0.0)
    call.error = UpstreamUnreachable("gone", retry_after_s=1.0)
    assert await active.ids(asyncio.create_task, max_age_s=0.0) is None
    assert await active.ids(asyncio.create_task, max_age_s=60.0) is None
    assert call.count == 2


async def test_a_call_without_an_answer_ends(active, call, monkeypatch):
    monkeypatch.setattr(module, "_DEADLINE_S", 0.01)
    call.may_answer.clear()
    assert await asyncio.wait_for(active.ids(asyncio.create_task, max_age_s=0.0), 10) is None
