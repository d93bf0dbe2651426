"""Permits and queue of several processes on one registry: limits, fair shares, and deaths of processes."""

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from liveavatar.gateway.v1 import session_service_pb2
from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.fair_order import Shares, TenantShare
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.sealing import Sealer
from liveavatar_gateway.registry.sqlite import SqliteRegistry
from liveavatar_gateway.upstream.permits import Permits, PermitsConfig, PermitWish
from testkit import processes
from testkit.caller import caller as connect
from testkit.caller import make_spec, refused

LIMIT = 6
ACCOUNTS = {name: AccountLimit(name=name, limit=LIMIT) for name in ("one", "two")}
SHARES = Shares(by_tenant={"light": TenantShare(weight=1.0), "heavy": TenantShare(weight=3.0)})


def registry_of(path: Path) -> SqliteRegistry:
    return SqliteRegistry(path, Sealer(b"k" * 32), LeaseConfig(), account="pool")


def permits_of(registry: SqliteRegistry, **changes) -> Permits:
    config = PermitsConfig(**{"settle_s": 0.02, "wait_s": 60.0, "max_waiting": 1000, **changes})
    return Permits(config, registry, accounts=lambda: ACCOUNTS, shares=lambda: SHARES)


# --- shares


async def churn(path: Path, seconds: float) -> dict[str, float]:
    """Let 20 callers of each tenant come again and again; return the slot-seconds of each tenant."""
    used = dict.fromkeys(SHARES.by_tenant, 0.0)
    rng = random.Random(1)
    async with registry_of(path) as registry:
        permits = permits_of(registry)
        end_s = time.monotonic() + seconds

        async def caller(tenant: str) -> None:
            while True:
                permit = await permits.acquire(PermitWish(tenant=tenant))
                began_s = time.monotonic()
                try:
                    await asyncio.sleep(rng.uniform(0.15, 0.5))
                finally:
                    used[tenant] += max(0.0, min(time.monotonic(), end_s) - began_s)
                    permit.release(settle=True)

        callers = [asyncio.create_task(caller(tenant)) for tenant in used for _ in range(20)]
        await asyncio.sleep(end_s - time.monotonic())
        for task in callers:
            task.cancel()
        await asyncio.wait(callers)
        await permits.close()
    return used


async def most_used(path: Path, until: asyncio.Event) -> int:
    """Watch the book; return the largest number of permits that were in use on an account."""
    most = 0
    async with registry_of(path) as registry:
        while not until.is_set():
            used, _ = await registry.pool(lambda book, now_s: [book.used(name, now_s) for name in ACCOUNTS])
            most = max(most, *used)
            await asyncio.sleep(0.01)
    return most


@pytest.mark.timeout(90)
async def test_two_processes_share_the_slots_by_the_weights_of_the_tenants(tmp_path, record_property):
    path = tmp_path / "registry.db"
    command = [sys.executable, "-m", "tests.integration.test_shared_permits", str(path), "20"]
    over = asyncio.Event()
    watching = asyncio.create_task(most_used(path, over))
    await asyncio.sleep(0.2)
    workers = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        for _ in range(2)
    ]
    outputs = await asyncio.gather(*(worker.communicate() for worker in workers))
    over.set()
    used = [json.loads(output) for output, _ in outputs]
    total_s = {tenant: sum(one[tenant] for one in used) for tenant in SHARES.by_tenant}
    share = total_s["light"] / sum(total_s.values())
    record_property("figure", f"weight 1 of 4 got {share:.1%} of {sum(total_s.values()):.0f} slot-seconds")
    assert share == pytest.approx(0.25, abs=0.03)
    assert await watching == LIMIT


async def test_a_freed_permit_reaches_the_head_of_the_queue_in_another_process(tmp_path, record_property):
    path = tmp_path / "registry.db"
    async with registry_of(path) as here, registry_of(path) as there:
        mine, theirs = permits_of(here), permits_of(there)
        held = [await mine.acquire() for _ in range(2 * LIMIT)]
        places: list[int] = []
        first = asyncio.create_task(theirs.acquire(on_wait=lambda place: places.append(place.position)))
        while not places:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(mine.acquire())
        while mine.waiting < 2:
            await asyncio.sleep(0.01)
        held[0].release(settle=False)
        freed_s = time.monotonic()
        granted = await first
        record_property("figure", f"granted after {(time.monotonic() - freed_s) * 1000:.0f} ms")
        assert not second.done(), "who came first is served first, wherever"
        assert places == [1]
        granted.release(settle=False)
        (await second).release(settle=False)
        for permit in held[1:]:
            permit.release(settle=False)
        await mine.close()
        await theirs.close()


async def test_a_release_while_the_registry_is_locked_is_written_later(tmp_path):
    import sqlite3

    path = tmp_path / "registry.db"
    async with registry_of(path) as here, registry_of(path) as there:
        mine, theirs = permits_of(here), permits_of(there)
        held = await mine.acquire()
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        held.release(settle=False)
        assert mine.used == 0
        await asyncio.sleep(0.3)
        blocker.execute("ROLLBACK")
        blocker.close()
        async with asyncio.timeout(10):
            while True:
                await theirs.refresh()
                if not theirs.used:
                    break
                await asyncio.sleep(0.05)
        await mine.close()


async def test_permits_that_the_registry_lost_are_restored_before_others_are_granted(tmp_path):
    import sqlite3

    path = tmp_path / "registry.db"
    async with registry_of(path) as here, registry_of(path) as there:
        mine, theirs = permits_of(here), permits_of(there)
        held = [await mine.acquire() for _ in range(LIMIT)]
        await theirs.refresh()
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM permits")
            connection.execute("DELETE FROM pool")
        waiting = asyncio.create_task(theirs.acquire(wait_s=0.5))
        await mine.refresh()
        assert mine.used == LIMIT
        await asyncio.wait([waiting])
        assert waiting.exception() is not None, "nothing is granted for the length of a lease"
        for permit in held:
            permit.release(settle=False)
        await mine.close()
        await theirs.close()


# --- gateways


async def test_gateways_on_one_registry_share_the_limit_and_a_waiter_hears_of_its_place(tmp_path):
    path = tmp_path / "registry.db"
    with (
        processes.emulator(concurrency=2) as emulator,
        processes.gateway(emulator.url, registry_file=path, max_sessions=2) as first,
        processes.gateway(emulator.url, registry_file=path, max_sessions=2) as second,
    ):
        async with connect(first.address) as here, connect(second.address) as there:
            sessions = [await here.attach(), await there.attach()]
            waiting = [asyncio.create_task(there.attach())]
            while (await info(here)).waiting_count < 1:
                await asyncio.sleep(0.02)
            waiting.append(asyncio.create_task(here.attach()))
            while (await info(there)).waiting_count < 2:
                await asyncio.sleep(0.02)
            why = await refused(there.create(deadline_s=1.5))
            assert (why.reason, why.metadata["position"]) == ("CAPACITY_EXHAUSTED", "3")
            await here.end(sessions[0].session_id)
            one = await waiting[0]
            assert [place.position for place in one.queue_positions] == [1]
            await there.end(sessions[1].session_id)
            other = await waiting[1]
            assert [place.position for place in other.queue_positions] == [2, 1]
            assert other.queue_positions[-1].HasField("expected_wait"), "a session has ended by then"
            assert (await info(here)).used_permit_count == 2
            assert emulator.state()["refusals"]["403/4032"] == 0
            for attachment, caller in ((one, there), (other, here)):
                await caller.end(attachment.session_id)


async def info(caller):
    return await caller.sessions.GetServerInfo(session_service_pb2.GetServerInfoRequest(), timeout=10)


async def test_an_unchanged_place_is_repeated_so_that_no_proxy_takes_the_stream_for_dead():
    with (
        processes.emulator(concurrency=1) as emulator,
        processes.gateway(emulator.url, max_sessions=1, heartbeat_s=1) as gateway,
    ):
        async with connect(gateway.address) as calling:
            present = await calling.attach()
            call = calling.sessions.Attach()
            opening = session_service_pb2.OpenSession(spec=make_spec())
            await call.write(session_service_pb2.AttachRequest(open=opening))
            places = [(await call.read()).queue_position.position for _ in range(3)]
            assert places == [1, 1, 1]
            call.cancel()
            await calling.end(present.session_id)


@pytest.mark.timeout(60)
async def test_a_killed_gateway_leaks_no_permit_and_frees_none_whose_session_runs(tmp_path):
    path = tmp_path / "registry.db"
    settings = {"registry_file": path, "max_sessions": 2, "settle_s": 0.3, "detach_grace_s": 4}
    with (
        processes.emulator(concurrency=2) as emulator,
        processes.gateway(emulator.url, **settings) as second,
        processes.gateway(emulator.url, **settings) as first,
    ):
        async with connect(first.address) as here, connect(second.address) as there:
            for _ in range(2):
                await (await here.attach()).until_ready()
            waiting = [asyncio.create_task(there.attach()) for _ in range(2)]
            while (await info(there)).waiting_count < 2:
                await asyncio.sleep(0.02)
            first.process.kill()
            # Its sessions continue in the other process with their permits, until nobody has come back for them.
            opened = [await one for one in waiting]
            assert emulator.state()["refusals"]["403/4032"] == 0
            assert emulator.active() == 2
            for attachment in opened:
                await there.end(attachment.session_id)
            async with asyncio.timeout(10):
                while (await info(there)).used_permit_count:
                    await asyncio.sleep(0.05)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(churn(Path(sys.argv[1]), float(sys.argv[2])))))
