import asyncio

import pytest
from unit.client.fakes import FakeRuntime

from liveavatar.gateway import ConnectionLost, DeadlineExceeded, SessionClosed
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.root import RootTask


class Opening:
    """Object that opens, fails or does neither."""

    def __init__(self, *, opens=False, error=None):
        self.opened, self.error, self.abandoned, self.ended = False, None, 0, False
        self._opens, self._error = opens, error
        self.condition, self.runtime = Condition(), FakeRuntime()
        self.root = RootTask("session", self.runtime, self.condition, self.leave)

    async def leave(self):
        await self.root.close()

    async def run(self):
        try:
            self.opened, self.error = self._opens, self._error
            self.condition.notify()
            await asyncio.Event().wait()
        finally:
            self.ended = True

    async def abandon(self):
        self.abandoned += 1

    async def open(self, timeout_s=5.0):
        await self.root.open(
            self.run,
            opened=lambda: self.opened,
            failure=lambda: self.error,
            abandon=self.abandon,
            timeout_s=timeout_s,
        )


async def test_it_is_opened_once_and_registered_until_it_is_closed():
    opening = Opening(opens=True)
    assert not opening.root.started
    await opening.open()
    assert opening.root.started
    assert opening.runtime.registered == [opening.leave]
    with pytest.raises(SessionClosed, match="opened once"):
        await opening.open()
    await opening.root.close()
    await opening.root.close()
    assert opening.ended
    assert not opening.runtime.registered


async def test_a_failure_is_raised_and_ends_the_task():
    opening = Opening(error=ConnectionLost("lost"))
    with pytest.raises(ConnectionLost):
        await opening.open()
    assert opening.ended


async def test_what_does_not_open_in_time_is_abandoned():
    opening = Opening()
    with pytest.raises(DeadlineExceeded, match="session within"):
        await opening.open(0.0)
    await asyncio.wait(opening.runtime.spawned)
    assert opening.abandoned == 1
    await opening.root.close()


async def test_what_is_cancelled_while_it_opens_is_abandoned():
    opening = Opening()
    task = asyncio.create_task(opening.open())
    while not opening.root.started:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait(opening.runtime.spawned)
    assert opening.abandoned == 1
    await opening.root.close()
