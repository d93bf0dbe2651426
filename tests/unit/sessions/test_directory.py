"""Directory: a session is found wherever it is, also while it moves from a dead process to this one."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from liveavatar_gateway.auth.limiter import Limiter
from liveavatar_gateway.core.errors import Draining, OwnerMoved, RegistryUnavailable, SessionNotFound
from liveavatar_gateway.core.states import EndReason, SessionState
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.memory import Memory, MemoryRegistry
from liveavatar_gateway.sessions.adoption import Adoption, AdoptionConfig
from liveavatar_gateway.sessions.directory import Directory, DirectoryConfig
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.record import Record, access_payload
from liveavatar_gateway.sessions.services import utc_now
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.warm_record import warm_payload
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.account import AccountSpec
from liveavatar_gateway.upstream.model import AvatarRequest, Started
from liveavatar_gateway.upstream.permits import PermitWish
from liveavatar_gateway.upstream.stopper import Stopped
from testkit import actors
from testkit.unreliable_registry import SlowRegistry

STARTED = Started(session_id="up", ws_url="ws://up", room_url="", viewer_token="", max_duration_s=None)


class Upstream(actors.Upstream):
    """A session of another process, with its journal."""

    def __init__(self, started: Started, journal: Any) -> None:
        super().__init__(1)
        self.started = started
        self._journal = journal

    async def close(self) -> str:
        await self._journal.stopped(self.started.session_id)
        return await super().close()


class Pool(actors.Pool):
    """Continues sessions of other processes, and stops a session when a test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics = Metrics()
        self.may_stop = asyncio.Event()
        self.permits = SimpleNamespace(used=0, limit=9)
        self.wait_s = 30.0
        account = SimpleNamespace(stopper=self, spec=AccountSpec())
        self.accounts = SimpleNamespace(of_session=lambda _: account, find=lambda _: account)

    def adopt(self, started: Started, journal: Any, *, account: str, wish: PermitWish) -> actors.Upstream:
        self.upstreams.append(Upstream(started, journal))
        return self.upstreams[-1]

    async def stop(self, *_: object, **__: object) -> Stopped:
        await self.may_stop.wait()
        return Stopped.NOW


class Reservations:
    """Has one reservation, and notes what becomes of it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.reserved = SimpleNamespace(
            admission=Limiter(lambda _: None).count_session("acme"),
            warm=SimpleNamespace(give_up=self.log.append),
        )

    async def claim(self, reservation_id: str, spec: SessionSpec, *, tenant: str) -> SimpleNamespace:
        self.log.append(f"claim {reservation_id} {tenant}")
        return self.reserved

    def put_back(self, reservation: SimpleNamespace) -> None:
        assert reservation is self.reserved
        self.log.append("put back")

    def taken(self, reservation: SimpleNamespace, spec: SessionSpec) -> None:
        assert reservation is self.reserved
        self.log.append("taken")


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def pool():
    return Pool()


@pytest.fixture
async def registry(memory):
    # An answer that is late leaves time between a claim and what this process does with it.
    async with SlowRegistry(MemoryRegistry(LeaseConfig(), memory=memory), delay_s=0.02) as slow:
        yield slow


@pytest.fixture
def adoption(registry, pool):
    journals = JournalWriter(registry, pool.metrics, renew_s=1.0, lease_s=4.0)
    return Adoption(AdoptionConfig(), journals, pool, billing=actors.Billing())


@pytest.fixture
async def directory(adoption, pool):
    config = DirectoryConfig(exit_timeout_s=0.0)
    listener = SimpleNamespace(on_create_failed=lambda _: None)
    directory = Directory(
        config,
        pool,
        adoption._journals,
        pool.metrics,
        adoption=adoption,
        billing=actors.Billing(),
        create_listener=listener,
        limiter=Limiter(lambda _: None),
        warm=actors.NothingWarm(),
        reservations=Reservations(),
    )
    async with directory:
        yield directory
        pool.may_stop.set()


async def left_behind(memory: Memory, *, dies: bool = True) -> None:
    """Store a session of another process, which dies if wanted."""
    other = MemoryRegistry(LeaseConfig(), memory=memory)
    await other.__aenter__()
    spec = SessionSpec(avatar=AvatarRequest(avatar_id=actors.AVATAR_ID), detach_grace_s=30.0)
    record = Record(spec=spec, created_at=utc_now(), started_at=utc_now(), upstream_session_id="up")
    fence = await other.create("s-1", record.payload())
    await other.add_upstream(fence, "up")
    await other.save_access(fence, "up", access_payload(STARTED))
    if dies:
        memory.present.discard(other.owner)


async def test_a_session_that_this_process_has_just_claimed_is_waited_for(memory, registry, directory):
    await left_behind(memory)
    (stored,) = await registry.orphans()
    sweep = asyncio.create_task(directory.adopt(stored))
    # The lookup reads the registry behind the claim, and before its answer.
    await asyncio.sleep(0.01)
    found = await directory.get("s-1", tenant="")
    assert found is await sweep
    assert found.state is not SessionState.ENDED


async def test_a_session_that_this_process_is_ending_is_waited_for(memory, registry, directory, adoption, pool):
    await left_behind(memory)
    (stored,) = await registry.orphans()
    ending = await adoption.begin_to_end(stored)
    lookup = asyncio.create_task(directory.view("s-1", tenant=""))
    await asyncio.sleep(0.1)
    pool.may_stop.set()
    shown = await lookup
    assert (shown.state, shown.end_reason) == (SessionState.ENDED, EndReason.CALLER_LOST)
    assert await ending == 1


async def test_a_session_on_an_account_that_this_process_does_not_know_is_left_to_another(
    memory, registry, directory, adoption, pool
):
    await left_behind(memory)
    (stored,) = await registry.orphans()
    pool.accounts.find = lambda _: None
    upstreams = tuple(replace(one, account="elsewhere") for one in stored.upstreams)
    memory.sessions["s-1"] = stored = replace(stored, upstreams=upstreams)
    with pytest.raises(OwnerMoved):
        await directory.get("s-1", tenant="")
    assert await adoption.begin_to_end(stored) is None
    assert memory.sessions["s-1"].epoch == stored.epoch, "nobody claimed it"


async def test_an_end_is_answered_when_every_process_can_read_the_final_record(memory, registry, directory):
    await left_behind(memory)
    (stored,) = await registry.orphans()
    await directory.adopt(stored)
    ended = await directory.end("s-1", EndReason.CALLER_ENDED, tenant=None, wait_s=10.0)
    assert ended.state is SessionState.ENDED
    assert memory.sessions["s-1"].ended


async def test_an_end_does_not_wait_long_for_a_registry_that_is_locked(memory, registry, directory, monkeypatch):
    await left_behind(memory)
    (stored,) = await registry.orphans()
    await directory.adopt(stored)
    monkeypatch.setattr("liveavatar_gateway.sessions.directory._RECORD_WAIT_S", 0.1)
    monkeypatch.setattr(registry, "finish", lambda *_, **__: asyncio.sleep(60), raising=False)
    async with asyncio.timeout(5):
        ended = await directory.end("s-1", EndReason.CALLER_ENDED, tenant=None, wait_s=10.0)
    assert ended.state is SessionState.ENDED


async def test_a_session_of_another_process_that_lives_is_refused(memory, directory):
    await left_behind(memory, dies=False)
    with pytest.raises(OwnerMoved):
        await directory.get("s-1", tenant="")


async def test_another_tenant_finds_no_session_of_this_one_wherever_it_runs(directory, memory):
    spec = SessionSpec(avatar=AvatarRequest(avatar_id=actors.AVATAR_ID), detach_grace_s=30.0)
    await left_behind(memory, dies=False)
    here = await directory.open(spec, "wish", tenant="acme", wait_s=1.0)
    handle = here.issue_handle()
    for find in (directory.get, directory.view):
        for session_id in (here.id, "s-1", "none"):
            with pytest.raises(SessionNotFound):
                await find(session_id, tenant="other")
        assert (await find(here.id, tenant="acme")).id == here.id
        assert (await find(here.id, tenant=None)).id == here.id
    with pytest.raises(SessionNotFound):
        await directory.end(here.id, EndReason.CALLER_ENDED, tenant="other", wait_s=1.0)
    with pytest.raises(SessionNotFound):
        await directory.by_handle(handle, tenant="other", field="handle")
    assert await directory.by_handle(handle, tenant="acme", field="handle") is here
    assert directory.newest(tenant="other") == []
    assert directory.newest(tenant="acme") == [here]


async def test_each_tenant_has_request_ids_of_its_own(directory):
    spec = SessionSpec(avatar=AvatarRequest(avatar_id=actors.AVATAR_ID), detach_grace_s=30.0)
    mine = await directory.open(spec, "wish", tenant="acme", wait_s=1.0)
    theirs = await directory.open(spec, "wish", tenant="other", wait_s=1.0)
    assert mine.id != theirs.id
    assert await directory.open(spec, "wish", tenant="acme", wait_s=1.0) is mine


@pytest.mark.parametrize("request_id", ["", "wish"])
async def test_a_reservation_is_claimed_once_and_what_is_left_of_it_given_up(directory, request_id):
    log = directory._reservations.log
    spec = SessionSpec(avatar=AvatarRequest(avatar_id=actors.AVATAR_ID), detach_grace_s=30.0)
    opened = {"tenant": "acme", "wait_s": 1.0, "reservation_id": "r-1"}
    session = await directory.open(spec, request_id, **opened)
    if request_id:
        assert await directory.open(spec, request_id, **opened) is session
    async with asyncio.timeout(10):
        while "taken" not in log:
            await asyncio.sleep(0)
    session.end(EndReason.CALLER_ENDED)
    directory._pool.may_stop.set()
    async with asyncio.timeout(10):
        while "unused" not in log:
            await asyncio.sleep(0)
    assert log == ["claim r-1 acme", "taken", "unused"]


async def test_a_reservation_is_put_back_when_no_session_can_be_recorded(directory, registry, monkeypatch):
    async def refuse(*_: object, **__: object) -> None:
        raise RegistryUnavailable("locked")

    spec = SessionSpec(avatar=AvatarRequest(avatar_id=actors.AVATAR_ID), detach_grace_s=30.0)
    monkeypatch.setattr(registry.registry, "reserve", refuse)
    with pytest.raises(RegistryUnavailable):
        await directory.open(spec, "wish", tenant="acme", wait_s=1.0, reservation_id="r-1")
    assert directory._reservations.log == ["claim r-1 acme", "put back"]


@pytest.mark.parametrize("request_id", ["", "wish"])
async def test_a_reservation_is_put_back_when_a_drain_begins_meanwhile(directory, monkeypatch, request_id):
    claim = directory._reservations.claim

    async def claim_and_drain(*arguments: object, **named: object) -> SimpleNamespace:
        directory.refuse_new()
        return await claim(*arguments, **named)

    spec = SessionSpec(avatar=AvatarRequest(avatar_id=actors.AVATAR_ID), detach_grace_s=30.0)
    monkeypatch.setattr(directory._reservations, "claim", claim_and_drain)
    with pytest.raises(Draining):
        await directory.open(spec, request_id, tenant="acme", wait_s=1.0, reservation_id="r-1")
    assert directory._reservations.log == ["claim r-1 acme", "put back"]
    assert directory.newest(tenant="acme") == []


async def test_a_warm_session_of_any_process_is_no_session_of_a_caller(memory, directory):
    other = MemoryRegistry(LeaseConfig(), memory=memory)
    await other.__aenter__()
    await other.create("w-1", warm_payload(AvatarRequest(avatar_id=actors.AVATAR_ID), profile="desk"))
    for tenant in ("", None):
        with pytest.raises(SessionNotFound):
            await directory.get("w-1", tenant=tenant)
