"""The lease of a process that stood still for longer than it lasts."""

import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.memory import Memory, MemoryRegistry
from liveavatar_gateway.sessions.journal import JournalWriter, SessionJournal
from liveavatar_gateway.telemetry.metrics import Metrics

_LEASE_S = 0.1


class Kept:
    """A session of this process."""

    id = "s-1"

    def __init__(self) -> None:
        self.moved_to: list[Any] = []

    def facts(self) -> dict[str, Any]:
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
            raise RegistryUnavailable(OSError("locked"))
        return await super().renew(address)


@pytest.fixture
async def shared() -> AsyncIterator[SimpleNamespace]:
    memory, lease = Memory(), LeaseConfig(ttl_s=_LEASE_S)
    async with Counting(lease, memory=memory) as mine, MemoryRegistry(lease, memory=memory) as other:
        books = JournalWriter(mine, Metrics(), renew_s=_LEASE_S / 3, lease_s=_LEASE_S)
        session = Kept()
        ledger = books.ledger(session)
        ledger.reserved(await mine.create(session.id, {}))
        await books._renew()
        mine.renewals = 0
        yield SimpleNamespace(mine=mine, other=other, session=session, ledger=ledger)


def stand_still() -> None:
    time.sleep(2 * _LEASE_S)


async def claimed(shared: SimpleNamespace) -> bool:
    row = await shared.other.find("s-1")
    return await shared.other.claim(row) is not None


async def test_a_process_that_stood_still_gives_up_what_another_took_before_it_sends_anything(shared):
    ledger: SessionJournal = shared.ledger
    stand_still()
    assert await claimed(shared)
    await ledger.confirm_lease()
    assert len(shared.session.moved_to) == 1
    assert ledger.closed


async def test_a_process_that_stood_still_keeps_what_nobody_took(shared):
    stand_still()
    await shared.ledger.confirm_lease()
    await shared.ledger.confirm_lease()
    assert shared.mine.renewals == 1
    assert shared.session.moved_to == []


async def test_a_lease_that_lasts_is_not_asked_for(shared):
    await shared.ledger.confirm_lease()
    assert shared.mine.renewals == 0


async def test_an_outage_of_the_registry_behind_a_standstill_ends_no_session(shared):
    shared.mine.works = False
    stand_still()
    await shared.ledger.confirm_lease()
    await shared.ledger.confirm_lease()
    assert shared.mine.renewals == 1, "the next try is the books' own"
    assert shared.session.moved_to == []
