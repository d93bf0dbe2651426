"""Journals of sessions and the lease of their process, on registries that are slow or unavailable too."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.memory import Memory, MemoryRegistry
from liveavatar_gateway.sessions.journal import JournalWriter, SessionJournal, write_journals
from liveavatar_gateway.telemetry.metrics import Metrics
from testkit.unreliable_registry import FlappingRegistry, SlowRegistry

_LEASE_S = 0.1


class Kept:
    """A session of this process."""

    id = "s-1"

    def __init__(self) -> None:
        self.moved_to: list[Any] = []

    def payload(self) -> dict[str, Any]:
        return {}

    def handle_hashes(self) -> tuple[()]:
        return ()

    def moved(self, error: Any) -> None:
        self.moved_to.append(error)

    def end_for(self, reason: Any) -> None: ...


class Counting(MemoryRegistry):
    """A registry that counts renewals, and may be out of order."""

    renewals = 0
    works = True

    async def renew(self, address: str) -> Any:
        self.renewals += 1
        if not self.works:
            raise RegistryUnavailable("locked")
        return await super().renew(address)


@pytest.fixture
async def shared() -> AsyncIterator[SimpleNamespace]:
    memory, lease = Memory(), LeaseConfig(ttl_s=_LEASE_S)
    async with Counting(lease, memory=memory) as mine, MemoryRegistry(lease, memory=memory) as other:
        journals = JournalWriter(mine, Metrics(), renew_s=_LEASE_S / 3, lease_s=_LEASE_S)
        session = Kept()
        journal = journals.open(session)
        journal.reserved(await mine.create(session.id, {}))
        await journals._renew()
        mine.renewals = 0
        yield SimpleNamespace(mine=mine, other=other, session=session, journal=journal)


def stand_still() -> None:
    time.sleep(2 * _LEASE_S)


async def claimed(shared: SimpleNamespace) -> bool:
    row = await shared.other.find("s-1")
    return await shared.other.claim(row) is not None


async def test_a_process_that_stood_still_gives_up_what_another_took_before_it_sends_anything(shared):
    journal: SessionJournal = shared.journal
    stand_still()
    assert await claimed(shared)
    await journal.confirm_lease()
    assert len(shared.session.moved_to) == 1
    assert journal.closed


async def test_a_process_that_stood_still_keeps_what_nobody_took(shared):
    stand_still()
    await shared.journal.confirm_lease()
    await shared.journal.confirm_lease()
    assert shared.mine.renewals == 1
    assert shared.session.moved_to == []


async def test_a_lease_that_lasts_is_not_asked_for(shared):
    await shared.journal.confirm_lease()
    assert shared.mine.renewals == 0


async def test_an_outage_of_the_registry_behind_a_standstill_ends_no_session(shared):
    shared.mine.works = False
    stand_still()
    await shared.journal.confirm_lease()
    await shared.journal.confirm_lease()
    assert shared.mine.renewals == 1, "the next try is the writer's own"
    assert shared.session.moved_to == []


class Changing(Kept):
    """A session of this process whose record changes."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.id = f"s-{number}"
        self.tenant = ""
        self.version = 0

    def payload(self) -> dict[str, Any]:
        return {"version": self.version}


async def _minted(journal: SessionJournal, upstream_session_id: str) -> None:
    """Repeat a create that is refused in an outage, as its caller does."""
    while True:
        with contextlib.suppress(RegistryUnavailable):
            return await journal.minted(upstream_session_id)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda registry: FlappingRegistry(registry, every=2),
        lambda registry: FlappingRegistry(registry, every=3),
        lambda registry: SlowRegistry(registry, delay_s=0.02),
        lambda registry: SlowRegistry(FlappingRegistry(registry, every=3), delay_s=0.01),
    ],
    ids=[
        "every second call is refused",
        "every third call is refused",
        "slow",
        "slow and every third call is refused",
    ],
)
async def test_sessions_outlive_a_registry_that_is_slow_or_unavailable_at_times(wrapped):
    memory, lease = Memory(), LeaseConfig(ttl_s=10.0)
    async with MemoryRegistry(lease, memory=memory) as stored, MemoryRegistry(lease, memory=memory) as other:
        registry = wrapped(stored)
        journals = JournalWriter(registry, Metrics(), renew_s=0.02, lease_s=10.0)
        sessions = [Changing(number) for number in range(4)]
        opened = [journals.open(session) for session in sessions]
        for journal in opened:
            await _minted(journal, f"up-{journal.session_id}")
            await _minted(journal, f"standby-{journal.session_id}")

        async def rows() -> list[Any]:
            return [await other.find(session.id) for session in sessions]

        writing = asyncio.create_task(write_journals(journals))
        for version in range(1, 30):
            for session, journal in zip(sessions, opened, strict=True):
                session.version = version
                journal.change()
            await asyncio.sleep(0.005)
        for journal in opened:
            await journal.stopped(f"standby-{journal.session_id}")
        async with asyncio.timeout(10):
            while [row.payload for row in await rows()] != [{"version": 29}] * 4:
                await asyncio.sleep(0.01)
            for session, journal in zip(sessions, opened, strict=True):
                session.version = 30
                await journal.stopped(f"up-{journal.session_id}")
                await journal.finish(60.0)
            while not all(row.ended for row in await rows()):
                await asyncio.sleep(0.01)
        writing.cancel()
        await asyncio.wait([writing])
        assert [session.moved_to for session in sessions] == [[], [], [], []]
        assert [row.payload for row in await rows()] == [{"version": 30}] * 4
        assert [row.upstreams for row in await rows()] == [()] * 4
