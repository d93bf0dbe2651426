"""Search for sessions that nobody uses, because an account is full."""

import asyncio
from types import SimpleNamespace

import pytest

from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.memory import Memory, MemoryRegistry
from liveavatar_gateway.sessions.sweeper import Sweeper, SweeperConfig
from liveavatar_gateway.upstream.account import AccountSpec
from testkit.answering import answering, envelope, http
from testkit.pools import accounts_at

LISTED = {"count": 1, "next": None, "previous": None, "results": [{"id": "up-1"}]}


class Adoption:
    """Claims of a process; notes what it stops."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.claiming: set[str] = set()

    def is_lost(self, _: object) -> bool:
        return False

    def is_claiming(self, session_id: str) -> bool:
        return session_id in self.claiming

    async def stop(self, upstream_session_id: str, *, account: str) -> bool:
        self.stopped.append(upstream_session_id)
        return True


@pytest.fixture
async def process():
    """Process with two keys of one LiveAvatar account, whose only session is `s-1`."""
    async with answering() as server, MemoryRegistry(LeaseConfig(), memory=Memory()) as registry:
        server.answers = {"/v1/sessions": http(200, envelope(LISTED))}
        accounts = accounts_at(server.url, AccountSpec(id="old", name="old"), AccountSpec(id="new", name="new"))
        await registry.add_upstream(await registry.create("s-1", {}), "up-1")
        pool = SimpleNamespace(accounts=accounts, run=lambda work, name: asyncio.create_task(work, name=name))
        adoption = Adoption()
        journals = SimpleNamespace(registry=registry)
        sweeper = Sweeper(SweeperConfig(), journals, pool, directory=None, adoption=adoption)
        yield SimpleNamespace(accounts=accounts, adoption=adoption, sweeper=sweeper)
        await accounts.aclose()


async def test_a_session_that_nobody_uses_is_stopped(process):
    assert await process.sweeper.find_orphans() > 0
    assert set(process.adoption.stopped) == {"up-1"}


async def test_a_session_in_use_is_not_stopped_because_another_key_lists_it_too(process):
    process.accounts.find("old").add_session("up-1")
    assert await process.sweeper.find_orphans() == 0
    assert process.adoption.stopped == []


async def test_a_session_that_is_being_claimed_is_not_stopped(process):
    process.adoption.claiming.add("s-1")
    assert await process.sweeper.find_orphans() == 0
