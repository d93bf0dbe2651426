"""The tasks that keep paid sessions from being forgotten outlive a fault in one of their rounds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from liveavatar_gateway.core.errors import UpstreamUnreachable
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.memory import MemoryRegistry
from liveavatar_gateway.sessions.journal import JournalWriter, write_journals
from liveavatar_gateway.sessions.sweeper import Sweeper, SweeperConfig
from liveavatar_gateway.telemetry.metrics import Metrics


class Faulty(MemoryRegistry):
    """A registry with a bug: its first looks raise what nobody expects."""

    def __init__(self, faults: int) -> None:
        super().__init__(LeaseConfig())
        self._faults = faults
        self.looked = asyncio.Event()

    def clear(self) -> None:
        """Work from now on."""
        self._faults = 0

    def _look(self) -> None:
        if self._faults:
            self._faults -= 1
            raise ZeroDivisionError
        self.looked.set()

    async def renew(self, address: str) -> Any:
        if address:
            self._look()
        return await super().renew(address)

    async def orphans(self) -> Any:
        self._look()
        return await super().orphans()


@contextlib.asynccontextmanager
async def _running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def registry() -> AsyncIterator[Faulty]:
    async with Faulty(faults=3) as found:
        yield found


async def test_the_lease_is_renewed_after_a_fault(registry):
    journals = JournalWriter(registry, Metrics(), renew_s=0.01, lease_s=10.0, address=lambda: "127.0.0.1:1")
    async with _running(write_journals(journals)), asyncio.timeout(30):
        await registry.looked.wait()


async def test_the_search_for_what_is_paid_for_goes_on_after_a_fault(registry):
    journals = JournalWriter(registry, Metrics(), renew_s=60.0, lease_s=200.0)
    directory, pool = SimpleNamespace(draining=False), SimpleNamespace()
    sweeper = Sweeper(SweeperConfig(sweep_s=0.01), journals, pool, directory=directory, adoption=SimpleNamespace())
    async with _running(sweeper.run()), asyncio.timeout(30):
        await registry.looked.wait()


async def test_an_account_that_fails_keeps_the_search_from_no_other(registry):
    registry.clear()
    stopped = []

    async def stop(upstream_session_id: str, *, account: str) -> bool:
        stopped.append((upstream_session_id, account))
        return True

    fence = await registry.create("s-1", {})
    await registry.add_upstream(fence, "up")
    broken = _account("broken", UpstreamUnreachable("down"))
    pool = SimpleNamespace(
        accounts=SimpleNamespace(working=lambda: [broken, _account("fine", ["up"])], session_ids=frozenset()),
        run=lambda work, name: asyncio.create_task(work, name=name),
    )
    journals = JournalWriter(registry, Metrics(), renew_s=60.0, lease_s=200.0)
    sweeper = Sweeper(
        SweeperConfig(),
        journals,
        pool,
        directory=SimpleNamespace(),
        adoption=SimpleNamespace(stop=stop, is_claiming=lambda _: False),
    )
    assert await sweeper.find_orphans() == 1
    assert stopped == [("up", "fine")]


def _account(name: str, answer: Sequence[str] | Exception) -> SimpleNamespace:
    async def active() -> Sequence[str]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return SimpleNamespace(name=name, id=name, rest=SimpleNamespace(active=active))
