"""Permits of all accounts: never more than they allow, first come first served, and none is ever lost."""

import asyncio
import contextlib
import random
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.core.errors import CapacityExhausted, RegistryUnavailable
from liveavatar_gateway.pool.account_limits import FREED_WITHIN_S, AccountLimit
from liveavatar_gateway.pool.book import PermitKind, PermitRow, PermitState
from liveavatar_gateway.pool.fair_order import Shares, TenantShare
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.clock import MachineClock
from liveavatar_gateway.registry.database import BUSY_MS
from liveavatar_gateway.registry.memory import Memory, MemoryRegistry
from liveavatar_gateway.registry.pool import MemoryPool
from liveavatar_gateway.registry.sealing import Sealer
from liveavatar_gateway.registry.sqlite import SqliteRegistry
from liveavatar_gateway.upstream.permits import Permits, PermitsConfig, PermitWish


def make(**changes) -> Permits:
    return Permits(PermitsConfig(**{"limit": 1, "settle_s": 0.0, "wait_s": 30.0, **changes}))


async def turns(count: int = 5) -> None:
    """Let the tasks that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_free_permit_is_taken_at_once():
    permits = make(limit=2)
    await permits.acquire()
    await permits.acquire()
    assert (permits.used, permits.limit, permits.waiting) == (2, 2, 0)


async def test_a_caller_waits_until_a_permit_is_given_back():
    permits = make()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    assert (permits.waiting, waiting.done()) == (1, False)
    held.release(settle=False)
    await waiting
    assert (permits.used, permits.waiting) == (1, 0)


async def test_callers_are_served_in_the_order_they_came():
    permits, served = make(), []
    held = await permits.acquire()

    async def caller(name: int) -> None:
        permit = await permits.acquire()
        served.append(name)
        permit.release(settle=False)

    callers = []
    for name in range(5):
        callers.append(asyncio.create_task(caller(name)))
        await turns(1)
    held.release(settle=False)
    await asyncio.wait(callers)
    assert served == [0, 1, 2, 3, 4]


async def test_a_newcomer_does_not_overtake_the_queue():
    permits = make()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    held.release(settle=False)
    newcomer = asyncio.create_task(permits.acquire())
    await turns()
    assert (waiting.done(), newcomer.done()) == (True, False)
    (await waiting).release(settle=False)
    await newcomer


async def test_a_full_queue_refuses_the_next_at_once_and_says_whose_limit_it_is():
    permits = make(max_waiting=1)
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    with pytest.raises(CapacityExhausted, match="1 callers already wait") as refused:
        await permits.acquire()
    assert refused.value.metadata == {"limit": "1", "waiting": "1", "position": "2", "scope": "upstream_account"}
    assert refused.value.retry_after_s == 1.0
    held.release(settle=False)
    await waiting


async def test_a_wait_in_vain_is_refused_and_leaves_the_queue():
    permits = make()
    await permits.acquire()
    with pytest.raises(CapacityExhausted, match=r"none came free in 0\.0 s"):
        await permits.acquire(wait_s=0.005)
    assert (permits.used, permits.waiting) == (1, 0)


@pytest.mark.parametrize("wait_s", [0.0, -5.0])
async def test_a_caller_without_time_is_refused_without_waiting(wait_s):
    permits = make()
    await permits.acquire()
    with pytest.raises(CapacityExhausted):
        await permits.acquire(wait_s=wait_s)
    assert permits.waiting == 0


async def test_a_caller_without_a_deadline_waits_as_long_as_is_configured():
    permits = make(wait_s=0.005)
    await permits.acquire()
    with pytest.raises(CapacityExhausted):
        await permits.acquire()


async def test_a_permit_is_given_back_once():
    permits = make(limit=2)
    first, _ = await permits.acquire(), await permits.acquire()
    first.release(settle=False)
    first.release(settle=False)
    assert permits.used == 1


async def test_a_permit_stays_taken_while_liveavatar_forgets_its_session():
    permits = make(settle_s=0.3)
    (await permits.acquire()).release(settle=True)
    assert permits.used == 1
    await permits.acquire()
    assert permits.used == 1


async def test_a_permit_in_which_nothing_was_started_is_free_at_once():
    permits = make(settle_s=30.0)
    (await permits.acquire()).release(settle=False)
    assert permits.used == 0


async def test_a_caller_that_is_cancelled_leaves_the_queue():
    permits = make()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert permits.waiting == 0
    held.release(settle=False)
    assert permits.used == 0


async def test_a_permit_that_arrives_together_with_the_cancellation_is_not_lost():
    permits = make()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    held.release(settle=False)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert permits.used == 0


async def test_a_permit_that_arrives_together_with_a_cancellation_goes_to_the_next_in_queue():
    permits = make()
    held = await permits.acquire()
    first, second = asyncio.create_task(permits.acquire()), asyncio.create_task(permits.acquire())
    await turns()
    held.release(settle=False)
    first.cancel()
    await second
    assert (permits.used, permits.waiting) == (1, 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), limit=st.integers(1, 4), callers=st.integers(1, 25), settle=st.booleans())
def test_however_callers_come_and_go_the_limit_holds_and_every_permit_comes_back(seed, limit, callers, settle):
    rng = random.Random(seed)

    async def scenario() -> None:
        permits = make(limit=limit, settle_s=0.0005 if settle else 0.0, max_waiting=10)
        holding = 0

        async def caller() -> None:
            nonlocal holding
            await turns(rng.randrange(4))
            try:
                permit = await permits.acquire(wait_s=rng.choice([0.0, 0.001, 30.0]))
            except CapacityExhausted:
                return
            try:
                holding += 1
                assert holding <= permits.used <= limit
                await turns(rng.randrange(6))
            finally:
                holding -= 1
                permit.release(settle=settle)

        tasks = [asyncio.create_task(caller()) for _ in range(callers)]
        for task in rng.sample(tasks, k=len(tasks) // 3):
            await turns(rng.randrange(3))
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                task.result()
        if settle:
            await asyncio.sleep(0.002)
        assert (permits.used, permits.waiting) == (0, 0)

    asyncio.run(scenario())


# --- LiveAvatar says that the account is full, though a permit is free here


async def test_a_refused_caller_goes_back_to_where_it_stood_and_the_permit_settles():
    permits, served = make(), []
    held = await permits.acquire()

    async def caller(name: str, refusals: int) -> None:
        permit = await permits.acquire()
        for _ in range(refusals):
            permit.refuse()
            assert permit.may_retry
            assert permits.used == 1, "it settles"
            permit = await permits.acquire(refused=permit)
        served.append(name)
        permit.release(settle=False)

    callers = [asyncio.create_task(caller("first", 2)), asyncio.create_task(caller("second", 0))]
    await turns()
    held.release(settle=True)
    await asyncio.wait(callers, timeout=5)
    assert served == ["first", "second"]
    assert (permits.used, permits.waiting) == (0, 0)
    assert permits.settling.pause_s > 0, "learnt"


async def test_several_refused_callers_keep_their_order():
    permits, served = make(limit=3), []
    held = [await permits.acquire() for _ in range(3)]

    async def caller(name: int) -> None:
        permit = await permits.acquire()
        permit.refuse()
        permit = await permits.acquire(refused=permit)
        served.append(name)
        permit.release(settle=False)

    callers = []
    for name in range(5):
        callers.append(asyncio.create_task(caller(name)))
        await turns(1)
    for permit in held:
        permit.release(settle=True)
    await asyncio.wait(callers, timeout=5)
    assert served == [0, 1, 2, 3, 4]


async def test_a_refusal_without_a_queue_and_without_an_end_before_it_is_no_matter_of_time():
    permits = make(limit=3, settle_s=1.0)
    permit = await permits.acquire()
    permit.refuse()
    assert not permit.may_retry
    assert (permits.used, permits.settling.pause_s) == (0, 1.0)


async def test_a_refusal_soon_after_a_full_account_lost_a_session_is_a_matter_of_time():
    permits = make(settle_s=0.3)
    (await permits.acquire()).release(settle=True)
    await asyncio.sleep(0.01)
    permit = await permits.acquire()
    permit.refuse()
    assert permit.may_retry


async def test_an_end_of_another_session_explains_no_refusal_long_after_the_own_one():
    permits = make(limit=3)
    held = await permits.acquire()
    permit = await permits.acquire()
    long_ago = replace(permit.row, ended_at_s=time.monotonic() - FREED_WITHIN_S - 1)
    held.release(settle=True)
    permit.row = replace(permit.row, ended_at_s=time.monotonic() - 1)
    assert permits.explains_refusal(permit)
    permit.row = long_ago
    assert not permits.explains_refusal(permit)


async def test_a_refused_caller_waits_no_longer_than_it_is_willing_to():
    permits = make()
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    held.release(settle=True)
    permit = await waiting
    permit.refuse()
    with pytest.raises(CapacityExhausted):
        await permits.acquire(wait_s=0.005, refused=permit)
    assert permits.waiting == 0


async def test_a_full_queue_is_no_reason_to_lose_one_that_stood_in_it():
    permits = make(max_waiting=1)
    held = await permits.acquire()
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    held.release(settle=True)
    permit = await waiting
    another = asyncio.create_task(permits.acquire())
    await turns()
    permit.refuse()
    (await permits.acquire(wait_s=5, refused=permit)).release(settle=False)
    (await another).release(settle=False)


async def test_a_caller_is_kept_out_of_the_queue_by_what_its_wait_raises():
    def refuse(_place) -> None:
        raise CapacityExhausted("no place", scope="test", retry_after_s=1.0)

    permits = make()
    held = await permits.acquire(on_wait=refuse)
    with pytest.raises(CapacityExhausted, match="no place"):
        await permits.acquire(on_wait=refuse)
    assert (permits.used, permits.waiting) == (1, 0)
    held.release(settle=False)
    await permits.acquire(on_wait=refuse)


# --- several processes


def sqlite(folder: Path) -> SqliteRegistry:
    return SqliteRegistry(folder / "registry.db", Sealer(b"k" * 32), LeaseConfig(), account="default")


def processes_of(count: int = 2, **changes) -> list[Permits]:
    """Permits of several processes on one registry in memory."""
    memory = Memory()
    config = PermitsConfig(**{"limit": 1, "settle_s": 0.0, "wait_s": 30.0, **changes})
    registries = [MemoryRegistry(LeaseConfig(), memory=memory) for _ in range(count)]
    memory.present.update(registry.owner for registry in registries)
    memory.leases.update((registry.owner, time.monotonic() + 1000) for registry in registries)
    return [Permits(config, registry) for registry in registries]


async def test_processes_on_one_registry_share_limit_and_queue():
    here, there = processes_of(limit=1, max_waiting=1)
    held = await here.acquire()
    places = []
    waiting = asyncio.create_task(there.acquire(on_wait=places.append))
    await turns(20)
    with pytest.raises(CapacityExhausted, match="1 callers already wait"):
        await here.acquire()
    assert (here.used, here.waiting, [place.position for place in places]) == (1, 1, [1])
    held.release(settle=False)
    permit = await waiting
    assert permit.row.owner != held.row.owner
    permit.release(settle=False)


async def test_a_refusal_says_the_position_and_the_expected_wait():
    permits = make()
    (await permits.acquire()).release(settle=True)
    await permits.acquire()
    with pytest.raises(CapacityExhausted, match=r"position 1 in the queue, expected wait 0 s") as refused:
        await permits.acquire(wait_s=0)
    assert (refused.value.metadata["position"], refused.value.metadata["expected_wait_s"]) == ("1", "0.0")
    assert refused.value.retry_after_s == 1.0


async def test_a_waiter_hears_of_each_new_position():
    permits, places = make(), []
    held = [await permits.acquire()]
    first = asyncio.create_task(permits.acquire())
    await turns(20)
    second = asyncio.create_task(permits.acquire(on_wait=lambda place: places.append(place.position)))
    await turns(20)
    held[0].release(settle=False)
    (await first).release(settle=False)
    await second
    assert places == [2, 1]


async def test_an_account_that_is_paused_or_used_by_others_grants_nothing_to_any_process():
    here, there = processes_of(limit=2)
    await here.update_account("default", lambda state, _now_s: replace(state, paused=True))
    with pytest.raises(CapacityExhausted, match="the operator has paused"):
        await there.acquire(wait_s=0)
    await there.update_account(
        "default", lambda state, now_s: replace(state, paused=False).count_foreign(1, now_s)
    )
    await here.acquire()
    with pytest.raises(CapacityExhausted, match="all 1 sessions"):
        await there.acquire(wait_s=0)


async def test_a_limit_that_turns_out_to_be_lower_is_learned_by_all():
    here, there = processes_of(limit=3)
    await here.acquire()
    refused = await here.acquire()
    refused.refuse()
    assert not refused.may_retry
    assert here.limit == 1
    await here.refresh()
    await there.refresh()
    assert there.limit == 1


async def test_a_process_that_continues_a_session_takes_its_permit():
    here, there = processes_of(limit=1)
    former = await here.acquire()
    former.pays_for("up-1")
    here.change(former, lambda book, _shares, _now_s: book.link(former.id, "up-1"))
    await here.refresh()
    continued = there.adopt(PermitWish(session_id="s-1"), "up-1")
    former.abandon()
    await there.refresh()
    await here.refresh()
    assert (there.used, here.used, continued.row.session_id) == (1, 1, "s-1")
    continued.release(settle=False)
    await there.refresh()
    assert there.used == 0


async def test_an_abandoned_permit_stays_in_use_until_its_session_has_left_the_registry(tmp_path):
    async with sqlite(tmp_path) as registry:
        permits = Permits(PermitsConfig(limit=1), registry)
        permit = await permits.acquire()
        fence = await registry.create("s-1", {})
        await registry.add_upstream(fence, "up-1", permit_id=permit.id)
        permit.abandon()
        for _ in range(2):
            await permits.refresh()
            assert permits.book.permits[permit.id].state is PermitState.SUSPECT
        await registry.drop_upstream("up-1")
        await permits.refresh()
        assert permits.book.permits[permit.id].state is PermitState.SETTLING
        await permits.close()


async def test_a_process_that_stands_still_gets_no_permits_and_its_callers_keep_their_places(tmp_path):
    """It is alive by its lock: a suspended process, which uses nothing and gives nothing back."""
    async with sqlite(tmp_path) as running, sqlite(tmp_path) as stopped:
        here, there = (Permits(PermitsConfig(limit=1), registry) for registry in (running, stopped))
        held = await here.acquire()
        theirs = asyncio.create_task(there.acquire())
        while here.waiting < 1:
            await here.refresh()
        lease = "UPDATE processes SET until_mono_s = ? WHERE owner = ?"
        with contextlib.closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as other:
            other.execute("INSERT OR IGNORE INTO processes VALUES (?, ?, 0, '', 1)", (stopped.owner, boot_id()))
            other.execute(lease, (time.monotonic() - 1, stopped.owner))
            ours = asyncio.create_task(here.acquire())
            while here.waiting != 1 or theirs.done():
                await here.refresh()
            held.release(settle=False)
            permit = await ours
            other.execute(lease, (time.monotonic() + 100, stopped.owner))
        await there.refresh()
        permit.release(settle=False)
        (await theirs).release(settle=False)
        await here.close()
        await there.close()


def boot_id() -> str:
    return MachineClock().boot_id


async def test_a_permit_of_a_dead_process_counts_for_its_account_under_a_new_name():
    registry = MemoryRegistry(LeaseConfig(), memory=Memory())
    permits = Permits(
        PermitsConfig(),
        registry,
        accounts=lambda: {"main": AccountLimit(name="main", limit=1)},
        former_names=lambda: {"fingerprint": "main"},
    )
    await registry.add_upstream(await registry.create("s-1", {}), "up-1")
    row = PermitRow(
        id="p-1",
        account="fingerprint",
        owner="",
        upstream_session_id="up-1",
        state=PermitState.SUSPECT,
        since_s=0.0,
    )
    await registry.pool(lambda book, now_s: book.restore([row], now_s))
    with pytest.raises(CapacityExhausted):
        await permits.acquire(wait_s=0)
    assert permits.used == 1


async def test_a_permit_that_a_caller_takes_over_has_its_tenant_and_purpose():
    permits = make()
    warm = await permits.acquire(PermitWish(tenant="warmer", kind=PermitKind.WARM, profile="desk"))
    warm.transfer(tenant="acme", kind=PermitKind.CALLER, session_id="s-1")
    await permits.refresh()
    row = permits.book.permits[warm.id]
    assert (row.tenant, row.kind, row.session_id, row.profile) == ("acme", PermitKind.CALLER, "s-1", "desk")
    assert (warm.row.tenant, warm.account) == ("acme", "default")


async def test_a_caller_without_an_account_that_it_may_use_is_refused_in_time():
    permits = make()
    with pytest.raises(CapacityExhausted, match="all 0 sessions"):
        await permits.acquire(PermitWish(accounts=()), wait_s=0.01)
    assert permits.used == 0


async def test_changes_wait_while_the_registry_is_out_of_reach_and_callers_are_told():
    class Broken(MemoryPool):
        is_broken = False

        async def pool(self, change):
            if self.is_broken:
                raise RegistryUnavailable("locked")
            return await super().pool(change)

    store = Broken()
    permits = Permits(PermitsConfig(limit=1, settle_s=0.0), store)
    held = await permits.acquire()
    store.is_broken = True
    held.release(settle=False)
    with pytest.raises(RegistryUnavailable):
        await permits.acquire()
    store.is_broken = False
    await permits.acquire(wait_s=5)
    assert permits.used == 1
    await permits.close()


async def test_a_caller_for_whom_a_permit_is_about_to_come_free_is_not_in_need():
    permits = make(limit=2, settle_s=60.0)
    held = [await permits.acquire(), await permits.acquire()]
    waiting = asyncio.create_task(permits.acquire())
    await turns()
    assert len(permits.callers_in_need(payer="", freed=())) == 1
    assert not permits.callers_in_need(payer="", freed=["default"])
    held[0].release(settle=True)
    assert not permits.callers_in_need(payer="", freed=())
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_warm_permit_of_a_tenant_at_its_ceiling_would_help_that_tenant():
    shares = Shares(by_tenant={"acme": TenantShare(ceiling=1)})
    permits = Permits(PermitsConfig(limit=9), shares=lambda: shares)
    await permits.acquire(PermitWish(tenant="acme", kind=PermitKind.WARM))
    waiting = asyncio.create_task(permits.acquire(PermitWish(tenant="acme")))
    await turns()
    assert len(permits.callers_in_need(payer="acme", freed=())) == 1
    assert not permits.callers_in_need(payer="beta", freed=())
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_locked_registry_keeps_each_caller_no_longer_than_the_first(tmp_path):
    async with sqlite(tmp_path) as registry:
        permits = Permits(PermitsConfig(), registry)
        await permits.refresh()
        blocker = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        began_s = time.monotonic()
        callers = [asyncio.create_task(permits.acquire(wait_s=0)) for _ in range(5)]
        _, late = await asyncio.wait(callers, timeout=2 * BUSY_MS / 1000)
        assert not late, f"{len(late)} callers still wait after {time.monotonic() - began_s:.1f} s"
        assert {type(caller.exception()) for caller in callers} == {RegistryUnavailable}
        blocker.execute("ROLLBACK")
        blocker.close()
        (await permits.acquire()).release(settle=False)
        await permits.refresh()
        assert (permits.used, permits.waiting) == (0, 0)
        await permits.close()
