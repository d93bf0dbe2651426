"""Operators' view of the pool and their verbs, over the real accounts and permits."""

import asyncio
import time

import pytest

from liveavatar_gateway.core.errors import AccountNotFound, CapacityExhausted, UpstreamUnauthenticated
from liveavatar_gateway.pool.account_health import AccountState
from liveavatar_gateway.registry.pool import MemoryPool
from liveavatar_gateway.upstream.account import AccountSpec
from liveavatar_gateway.upstream.model import AvatarRequest
from liveavatar_gateway.upstream.operations import PoolOperations, PoolReload
from liveavatar_gateway.upstream.permits import Permits, PermitsConfig, PermitWish
from testkit.pools import accounts_at

NOWHERE = "http://127.0.0.1:9"


def spec(name: str, **changes: object) -> AccountSpec:
    return AccountSpec(
        **{"name": name, "id": f"id-{name}", "api_key": f"{name}-key", "max_sessions": 2, **changes}
    )


class Process:
    """Accounts, permits and operations of a process on a registry."""

    def __init__(self, store: MemoryPool, *specs: AccountSpec) -> None:
        self.accounts = accounts_at(NOWHERE, *(specs or (spec("a"), spec("b"))))
        self.permits = Permits(PermitsConfig(settle_s=0), store, accounts=self.accounts.limits)
        self.operations = PoolOperations(self.accounts, self.permits, read_files=self.read)

    async def read(self) -> PoolReload:
        return PoolReload(changed=["file of accounts"])

    async def account(self, name: str):
        status = await self.operations.fresh()
        return next(one for one in status.accounts if one.name == name)

    async def acquire(self, wait_s: float = 0.0):
        return await self.permits.acquire(PermitWish(tenant="t"), wait_s=wait_s)


@pytest.fixture
async def store():
    return MemoryPool()


@pytest.fixture
async def process(store):
    made = Process(store)
    yield made
    await made.permits.close()
    await made.accounts.aclose()


async def test_accounts_are_shown_by_name_with_what_is_used(process):
    permit = await process.acquire()
    status = await process.operations.fresh()
    assert [one.name for one in status.accounts] == ["a", "b"]
    used = {one.name: one.use.held for one in status.accounts}
    assert sorted(used.values()) == [0, 1]
    assert status.overview.tenants[0].used == 1
    permit.release(settle=False)


async def test_a_paused_account_grants_nothing_and_callers_wait_until_it_is_resumed(store):
    process = Process(store, spec("a"))
    assert (await process.operations.pause("a")).state == "paused"
    shown = await process.account("a")
    assert (shown.use.limit, shown.trouble) == (0, "paused")
    with pytest.raises(CapacityExhausted, match="the operator has paused"):
        await process.acquire()
    waiting = asyncio.create_task(process.acquire(wait_s=10))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    status, was_stopped = await process.operations.resume("a")
    assert (status.state, status.trouble, was_stopped) == ("active", "", True)
    (await waiting).release(settle=False)
    assert not (await process.operations.resume("a"))[1]
    await process.permits.close()


async def test_a_pause_holds_for_every_process_on_the_registry(store, process):
    other = Process(store)
    await process.operations.pause("a")
    assert (await other.account("a")).state == "paused"
    assert other.permits.limit == 2
    await other.operations.resume("a")
    assert (await process.account("a")).state == "active"
    await other.permits.close()


async def test_callers_are_refused_while_the_only_account_is_drained(store):
    process = Process(store, spec("a"))
    drained = await process.operations.drain("a", None)
    assert (drained.state, drained.trouble, drained.use.drain_left_s) == ("draining", "draining", None)
    request = AvatarRequest(avatar_id="avatar")
    assert process.accounts.usable(request, "t", now_s=time.monotonic()) == []
    assert process.accounts.are_hopeless(["id-a"], sandbox=False)
    refusal = process.accounts.refusal(request, "t", time.monotonic())
    assert isinstance(refusal, CapacityExhausted)
    assert "drain" in refusal.message
    await process.operations.resume("a")
    assert process.accounts.usable(request, "t", now_s=time.monotonic()) == ["id-a"]
    await process.permits.close()


async def test_a_drain_has_a_deadline_if_a_grace_is_given(process):
    assert 0 < (await process.operations.drain("a", 60.0)).use.drain_left_s <= 60
    # The other account serves on.
    assert (await process.acquire()).account == "id-b"


async def test_a_limit_is_changed_for_all_processes_and_taken_back(store, process):
    other = Process(store)
    assert (await process.operations.set_limit("a", 7)).use.limit == 7
    assert (await other.account("a")).use.set_limit == 7
    assert (await other.operations.set_limit("a", None)).use.limit == 2
    assert (await process.account("a")).use.set_limit is None
    await other.permits.close()


async def test_sessions_above_a_lower_limit_continue(process):
    held = [await process.acquire() for _ in range(4)]
    lower = await process.operations.set_limit("a", 1)
    assert (lower.use.held, lower.use.limit) == (2, 1)
    with pytest.raises(CapacityExhausted):
        await process.acquire()
    for permit in held:
        permit.release(settle=False)


async def test_an_unknown_account_is_refused(process):
    for verb in (process.operations.pause, process.operations.resume):
        with pytest.raises(AccountNotFound):
            await verb("nobody")
    assert not process.operations.knows("nobody")
    assert process.operations.knows("a")


async def test_a_reload_reads_the_files_and_tries_refused_keys_again(process):
    process.accounts.find("id-a").refuse_key(UpstreamUnauthenticated("no"))
    refused = await process.account("a")
    assert (refused.trouble, refused.retry_in_s, refused.last_error) == ("key_refused", None, "no")
    done = await process.operations.reload()
    assert (list(done.changed), list(done.retried)) == (["file of accounts"], ["a"])
    assert (await process.account("a")).trouble == ""
    assert not (await process.operations.reload()).retried


async def test_a_retired_account_is_shown_and_a_former_key_only_while_it_has_sessions(store):
    process = Process(
        store,
        spec("a"),
        spec("old", state=AccountState.RETIRED),
        spec("former", state=AccountState.RETIRED, is_former=True),
    )
    status = await process.operations.fresh()
    assert [(one.name, one.state) for one in status.accounts] == [("a", "active"), ("old", "retired")]
    process.permits.adopt(PermitWish(accounts=("id-former",)), "upstream-1")
    assert [one.name for one in process.operations.status().accounts] == ["a", "former", "old"]
    await process.permits.close()
