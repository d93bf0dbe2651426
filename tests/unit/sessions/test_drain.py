"""Drain of a process that itself stood still."""

import asyncio
import time
from types import SimpleNamespace

from liveavatar_gateway.sessions.drain import Drain


def _ignore() -> None: ...


async def test_a_drain_is_not_over_before_an_operator_is_heard_who_took_it_back_while_the_process_stood_still():
    ended: list[object] = []
    directory = SimpleNamespace(refuse_new=_ignore, accept_new=_ignore, living=list, end_all=ended.append)

    async def publish_health(_: bool) -> None: ...  # noqa: FBT001 - as it is called

    drain = Drain(directory, publish_health)
    await drain.begin(0.05)
    time.sleep(0.7)  # noqa: ASYNC251 - a suspended process
    await asyncio.sleep(0.01)
    assert ended == []
    assert await drain.cancel()
    await asyncio.sleep(0.1)
    assert ended == []


async def test_a_drain_ends_what_is_warm_and_its_cancellation_warms_again():
    calls: list[str] = []
    warm = SimpleNamespace(close=lambda: calls.append("close"), reopen=lambda: calls.append("reopen"))
    directory = SimpleNamespace(refuse_new=_ignore, accept_new=_ignore, living=list, end_all=lambda _: None)

    async def publish_health(_: bool) -> None: ...  # noqa: FBT001 - as it is called

    drain = Drain(directory, publish_health, warm=(warm,))
    await drain.begin(60)
    assert await drain.cancel()
    await drain.finish(0.1, 0.05)
    assert calls == ["close", "reopen", "close"]
