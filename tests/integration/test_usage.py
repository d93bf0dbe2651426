"""Money: usage adds up to LiveAvatar's own bill, over processes and kills, and a spent budget refuses or ends."""

import asyncio
import contextlib
import csv
import io
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub
from testkit import processes, speech
from testkit.caller import Attachment, Caller, refused
from testkit.tenants import TenantsFile, caller_with

SANDBOX_AVATAR = "dd73ea75-1218-4ef3-92ce-606d5f7fbc0a"


@pytest.fixture
def registry(tmp_path: Path) -> str:
    return str(tmp_path / "registry.db")


@pytest.fixture
def tenants(tmp_path: Path) -> TenantsFile:
    return TenantsFile(tmp_path / "tenants.toml")


def bill(emulator: processes.Emulator) -> int:
    """Return the minutes that LiveAvatar bills for all sessions that have ended."""
    answer = emulator.http.get(
        "/v1/sessions",
        params={"type": "historic", "page_size": 100},
        headers={"X-API-KEY": processes.API_KEY},
    )
    answer.raise_for_status()
    return sum(row["credits_consumed"] for row in answer.json()["data"]["results"])


@contextlib.asynccontextmanager
async def operator(gateway: processes.Gateway, key: str = "") -> AsyncIterator[AdminServiceStub]:
    async with caller_with(gateway.admin_address, key) as caller:
        yield AdminServiceStub(caller.channel)


async def usage(gateway: processes.Gateway, key: str = "") -> list[p.UsageRow]:
    async with operator(gateway, key) as stub:
        return list((await stub.GetUsage(p.GetUsageRequest(), timeout=10)).rows)


async def settled(gateway: processes.Gateway, key: str, minutes: int) -> list[p.UsageRow]:
    """Return usage once it has so many minutes, or as it is after a while."""
    give_up_s = time.monotonic() + 10
    while True:
        rows = await usage(gateway, key)
        if sum(row.billed_minutes for row in rows) == minutes or time.monotonic() > give_up_s:
            return rows
        await asyncio.sleep(0.1)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_usage_adds_up_to_the_bill_and_budgets_refuse_or_end(tenants, record_property):
    """All at once, since a minute takes a minute; no session ends near a border, where both sides may differ."""
    budgets = {
        "plain": {},
        "refused": {"minutes_per_month": 2},
        "silent": {"minutes_per_month": 1, "at_limit": "end"},
        "speaking": {"minutes_per_month": 1, "at_limit": "end"},
        "rotating": {},
    }
    for name, budget in budgets.items():
        tenants.tenant(name, budget=budget)
    keys = {name: tenants.key(name) for name in budgets}
    admin = tenants.key("plain", "admin")
    settings = {
        "auth_file": tenants.path,
        "admin_port": 0,
        "usage_label": "desk",
        "rotation_lead_s": 20,
        "detach_grace_s": 200,
    }
    with processes.emulator() as emulator, processes.gateway(emulator.url, **settings) as gateway:

        async def plain(caller: Caller) -> None:
            async with asyncio.TaskGroup() as group:
                for label, seconds in (("a", 10), ("a", 80), ("", 20)):
                    group.create_task(_hold(caller, seconds, labels={"desk": label} if label else {}))
                group.create_task(
                    _hold(caller, 10, sandbox=True, avatar_id=SANDBOX_AVATAR, labels={"desk": "free"})
                )

        async def refused_while_running(caller: Caller) -> None:
            session = (await caller.create()).session
            await asyncio.sleep(75)
            refusal = await refused(caller.create())
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")
            assert (refusal.metadata["period"], refusal.metadata["limit"]) == ("month", "2")
            assert refusal.has("QuotaFailure")
            assert 0 < refusal.retry_s <= 31 * 86_400
            assert (await caller.end(session.id)).end_reason == session_pb2.END_REASON_CALLER_ENDED

        async def silent(caller: Caller) -> None:
            attachment = await caller.attach()
            await attachment.until_ready()
            await _ended_for_budget(attachment)

        async def speaking(caller: Caller) -> None:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await asyncio.sleep(50)
            await stream.say(speech.sound(22.0), "across the border")
            spoken = await stream.until("ended")
            assert spoken.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await _ended_for_budget(attachment)

        async def rotating(caller: Caller) -> None:
            limit = duration_pb2.Duration(seconds=50)
            attachment = await caller.attach(auto_rotate=True, max_duration=limit)
            await attachment.until_ready()
            await attachment.event("rotated")
            await asyncio.sleep(5)
            await caller.end(attachment.session_id)

        async with contextlib.AsyncExitStack() as stack:
            parts = (plain, refused_while_running, silent, speaking, rotating)
            callers = [await stack.enter_async_context(caller_with(gateway.address, key)) for key in keys.values()]
            async with asyncio.TaskGroup() as group:
                for part, caller in zip(parts, callers, strict=True):
                    group.create_task(part(caller))
        emulator.wait_active(0)
        billed = bill(emulator)
        rows = await settled(gateway, admin, billed)
        minutes, sessions = Counter(), Counter()
        for row in rows:
            minutes[row.tenant, row.label] += row.billed_minutes
            sessions[row.tenant, row.label] += row.session_count
        assert sum(minutes.values()) == billed
        assert minutes == {
            ("plain", "a"): 3,
            ("plain", ""): 1,
            ("plain", "free"): 0,
            ("refused", ""): 2,
            ("silent", ""): 1,
            ("speaking", ""): 2,
            ("rotating", ""): 2,
        }
        assert sessions == {key: 2 if key == ("plain", "a") else 1 for key in minutes}
        assert gateway.process.logged("budget.warning")
        record_property(
            "figure",
            f"usage has {sum(minutes.values())} minutes of {sum(sessions.values())} sessions, the emulator billed "
            f"{billed}; of budgets of 1 and 2 minutes, one refused and two ended their sessions",
        )


async def _hold(caller: Caller, seconds: float, **spec: Any) -> None:
    session = (await caller.create(**spec)).session
    await asyncio.sleep(seconds)
    await caller.end(session.id)


async def _ended_for_budget(attachment: Attachment) -> None:
    ended = await attachment.event("ended")
    assert ended.session.end_reason == session_pb2.END_REASON_OPERATOR
    assert "of the 1 minutes of this month" in ended.error.message


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_minute_counts_once_over_two_processes_and_a_kill(registry, tenants, record_property):
    tenants.tenant("acme", budget={"minutes_per_month": 3})
    tenants.tenant("ops")
    key, admin = tenants.key("acme"), tenants.key("ops", "admin")
    settings = {"registry_file": registry, "auth_file": tenants.path, "admin_port": 0, "detach_grace_s": 200}
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        first = stack.enter_context(processes.gateway(emulator.url, **settings))
        second = stack.enter_context(processes.gateway(emulator.url, **settings))
        async with caller_with(first.address, key) as one, caller_with(second.address, key) as two:
            kept = [(await caller.create()).session.id for caller in (one, two)]
            begun_s = time.monotonic()
            # The session of the first process is continued by the second, before its second minute begins.
            await asyncio.sleep(20)
            first.process.kill()
            await asyncio.sleep(begun_s + 30 - time.monotonic())
            await two.end(kept[1])
            await two.end((await two.create()).session.id)
            assert (await refused(two.create())).reason == "BUDGET_EXHAUSTED"
            await asyncio.sleep(begun_s + 70 - time.monotonic())
            await two.end(kept[0])
        emulator.wait_active(0)
        billed = bill(emulator)
        rows = await settled(second, admin, billed)
        assert billed == 4
        assert sum(row.billed_minutes for row in rows) == billed
        assert sum(row.session_count for row in rows) == 3
        record_property(
            "figure",
            f"a budget of 3 minutes refused the fourth session over two processes and a kill -9; {billed} minutes "
            "billed and counted, the last begun by a running session",
        )


async def test_a_start_that_liveavatar_refused_costs_nothing(tenants):
    tenants.tenant("acme", budget={"minutes_per_month": 1})
    key = tenants.key("acme")
    with processes.emulator() as emulator, processes.gateway(emulator.url, auth_file=tenants.path) as gateway:
        async with caller_with(gateway.address, key) as caller:
            for _ in range(2):
                emulator.fault("start", status=403, code=4033, message="Insufficient credits for session", times=1)
                assert (await refused(caller.create())).reason == "UPSTREAM_CREDITS_EXHAUSTED"
            await caller.end((await caller.create()).session.id)
            assert (await refused(caller.create())).reason == "BUDGET_EXHAUSTED"


def test_budgets_without_a_registry_are_refused_at_the_start(tenants):
    tenants.tenant("acme", budget={"minutes_per_day": 1})
    with (
        pytest.raises(Exception, match="GATEWAY_REGISTRY_FILE"),
        processes.gateway("http://127.0.0.1:9", auth_file=tenants.path, registry_file="off"),
    ):
        pass


async def test_the_command_prints_csv(emulator):
    with processes.gateway(emulator.url, admin_port=0) as gateway:
        async with caller_with(gateway.address) as caller:
            await caller.end((await caller.create()).session.id)
        await settled(gateway, "", 1)
        words = [sys.executable, "-m", "liveavatar_gateway", "usage", "--csv", "--address", gateway.admin_address]
        result = await asyncio.to_thread(
            subprocess.run, words, capture_output=True, text=True, timeout=30, check=True
        )
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert (row["tenant"], row["session_count"], row["billed_minutes"]) == ("", "1", "1")
