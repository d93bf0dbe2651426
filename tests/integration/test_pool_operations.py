"""Operators of the pool: two gateways on one registry show and obey the same, and verbs hold over restarts."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub
from testkit import processes
from testkit.accounts import AccountsFile
from testkit.caller import Attachment, Caller, refused
from testkit.caller import caller as connect
from testkit.tenants import TenantsFile, caller_with

KEYS = "one=one-key one=one-new-key two=two-key"
BOTH = {"one": {"max_sessions": 3, "cost": 0.5}, "two": {"max_sessions": 3}}


@pytest.fixture
def two_accounts():
    with processes.emulator(api_keys=KEYS, account_limits="one:concurrency=3 two:concurrency=3") as found:
        yield found


class Operated:
    """Gateway with a caller and an operator."""

    def __init__(self, gateway: processes.Gateway, caller: Caller, stub: AdminServiceStub) -> None:
        self.gateway = gateway
        self.caller = caller
        self.stub = stub

    async def pool(self) -> p.GetPoolResponse:
        return await self.stub.GetPool(p.GetPoolRequest(), timeout=10)

    async def account(self, name: str) -> p.PoolAccount:
        return next(one for one in (await self.pool()).accounts if one.name == name)

    async def pause(self, name: str) -> p.PoolAccount:
        return (await self.stub.PauseAccount(p.PauseAccountRequest(account=name), timeout=10)).account

    async def resume(self, name: str) -> p.PoolAccount:
        return (await self.stub.ResumeAccount(p.ResumeAccountRequest(account=name), timeout=10)).account

    async def drain(self, name: str, grace_s: int | None = None) -> p.PoolAccount:
        grace = None if grace_s is None else duration_pb2.Duration(seconds=grace_s)
        request = p.DrainAccountRequest(account=name, grace=grace)
        return (await self.stub.DrainAccount(request, timeout=10)).account

    async def limit(self, name: str, limit: int | None) -> p.PoolAccount:
        request = p.SetAccountLimitRequest(account=name, limit=limit)
        return (await self.stub.SetAccountLimit(request, timeout=10)).account


@contextlib.asynccontextmanager
async def operated(emulator: processes.Emulator, folder: Path, **settings: Any) -> AsyncIterator[Operated]:
    file = AccountsFile(folder)
    path = file.path if file.path.exists() else file.write(BOTH)
    settings = {
        "pool_file": path,
        "api_key": "",
        "registry_file": folder / "registry.db",
        "admin_port": 0,
        "settle_s": 0,
        **settings,
    }
    with processes.gateway(emulator.url, **settings) as gateway:
        async with (
            connect(gateway.address) as caller,
            grpc.aio.insecure_channel(gateway.admin_address) as channel,
        ):
            yield Operated(gateway, caller, AdminServiceStub(channel))


async def until(condition: Callable[[], Any], *, timeout_s: float = 15) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.1)


def active(emulator: processes.Emulator) -> dict[str, int]:
    return {row["name"]: row["active"] for row in emulator.state()["accounts"]}


@pytest.mark.timeout(90)
async def test_two_gateways_on_one_registry_show_and_obey_the_same(two_accounts, tmp_path):
    async with operated(two_accounts, tmp_path) as one, operated(two_accounts, tmp_path) as other:
        await one.caller.create()
        await other.caller.create()
        for process in (one, other):
            shown = await process.pool()
            assert {account.name: account.held_count for account in shown.accounts} == {"one": 2, "two": 0}
            assert shown.tenants[0].used_permit_count == 2
        assert (await one.pool()).owner != (await other.pool()).owner

        # A pause holds for both; the cheaper account is not used any more.
        paused = await one.pause("one")
        assert (paused.state, paused.effective_limit) == (p.ACCOUNT_STATE_PAUSED, 0)
        assert (await other.account("one")).state == p.ACCOUNT_STATE_PAUSED
        await other.caller.create()
        await one.caller.create()
        assert active(two_accounts) == {"one": 2, "two": 2}

        # A limit holds for both.
        assert (await other.limit("two", 2)).set_limit == 2
        assert (await refused(one.caller.create(deadline_s=2))).reason == "CAPACITY_EXHAUSTED"

        # Callers wait in both, and both show it; a resume by the other process serves them.
        waiting = [asyncio.create_task(process.caller.create(deadline_s=30)) for process in (one, other)]

        async def both_wait() -> bool:
            shown = await one.pool()
            return shown.waiting_count == 2 and shown.tenants[0].waiting_count == 2

        await until(both_wait)
        assert (await other.pool()).tenants[0].HasField("longest_wait")
        await other.limit("one", 4)
        assert (await other.resume("one")).effective_limit == 4
        refusals_before = two_accounts.state()["refusals"]["403/4032"]
        assert refusals_before == 0
        # The account takes three in truth: one waiter is served at once, and the fourth start is refused.
        done, _ = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert done
        await other.limit("two", None)
        await asyncio.gather(*waiting)


@pytest.mark.timeout(90)
async def test_a_drained_account_ends_its_sessions_at_the_deadline_in_every_process(two_accounts, tmp_path):
    async with operated(two_accounts, tmp_path) as one, operated(two_accounts, tmp_path) as other:
        attachment = await other.caller.attach()
        await attachment.until_ready()
        assert active(two_accounts) == {"one": 1, "two": 0}
        drained = await one.drain("one", 60)
        assert drained.state == p.ACCOUNT_STATE_DRAINING
        assert 0 < drained.drain_left.seconds <= 60
        await _until_told(attachment, "go_away")
        await other.caller.create()
        assert active(two_accounts) == {"one": 1, "two": 1}
        await one.drain("one", 0)
        ended = await attachment.event("ended")
        assert ended.session.end_reason == session_pb2.END_REASON_DRAINED
        await until(lambda: _has(two_accounts, one=0, two=1))
        await one.resume("one")
        await one.caller.create()
        assert active(two_accounts) == {"one": 1, "two": 1}


async def _until_told(attachment: Attachment, kind: str) -> None:
    while not (await attachment.read()).HasField(kind):
        pass


async def _has(emulator: processes.Emulator, **counts: int) -> bool:
    return await asyncio.to_thread(active, emulator) == counts


async def test_callers_are_refused_while_all_accounts_are_drained(two_accounts, tmp_path):
    async with operated(two_accounts, tmp_path) as one:
        await one.drain("one")
        await one.drain("two")
        refusal = await refused(one.caller.create(deadline_s=20))
        assert refusal.reason == "CAPACITY_EXHAUSTED"
        assert refusal.retry_s > 0


@pytest.mark.timeout(60)
async def test_what_operators_decide_holds_over_a_restart(two_accounts, tmp_path):
    async with operated(two_accounts, tmp_path) as one:
        await one.pause("one")
        await one.limit("two", 1)
    async with operated(two_accounts, tmp_path) as again:
        assert (await again.account("one")).state == p.ACCOUNT_STATE_PAUSED
        assert (await again.account("two")).set_limit == 1
        await again.caller.create()
        assert active(two_accounts) == {"one": 0, "two": 1}


async def test_a_refused_key_is_shown_and_tried_again_on_reload(two_accounts, tmp_path):
    async with operated(two_accounts, tmp_path, breaker_s=1) as one:
        two_accounts.change_account("one", revoked_keys=["one-key"])
        await one.caller.create()

        async def is_set_aside() -> bool:
            return (await one.account("one")).set_aside == "key_refused"

        await until(is_set_aside)
        two_accounts.change_account("one", revoked_keys=[])
        reloaded = await one.stub.ReloadPool(p.ReloadPoolRequest(), timeout=10)
        assert list(reloaded.retried_accounts) == ["one"]
        assert not reloaded.failed
        await one.caller.create()
        assert active(two_accounts)["one"] == 1


async def test_a_file_that_cannot_be_used_is_reported_and_the_former_stays(two_accounts, tmp_path):
    async with operated(two_accounts, tmp_path) as one:
        (tmp_path / "accounts.toml").write_text("[accounts.one]\n")
        (failure,) = (await one.stub.ReloadPool(p.ReloadPoolRequest(), timeout=10)).failed
        assert "accounts.one" in failure
        await one.caller.create()


async def test_an_unknown_account_is_refused(two_accounts, tmp_path):
    async with operated(two_accounts, tmp_path) as one:
        for call in (one.pause("three"), one.resume("three"), one.drain("three"), one.limit("three", 2)):
            refusal = await refused(call)
            assert (refusal.reason, refusal.code) == ("ACCOUNT_NOT_FOUND", grpc.StatusCode.NOT_FOUND)


async def test_the_only_account_of_a_key_is_called_default(emulator):
    with processes.gateway(emulator.url, admin_port=0, max_sessions=2) as gateway:
        async with connect(gateway.address) as caller, grpc.aio.insecure_channel(gateway.admin_address) as channel:
            await caller.create()
            operator = Operated(gateway, caller, AdminServiceStub(channel))
            account = await operator.account("default")
            assert (account.held_count, account.configured_limit) == (1, 2)
            assert (await operator.limit("default", 1)).effective_limit == 1
            assert (await refused(caller.create(deadline_s=1))).reason == "CAPACITY_EXHAUSTED"


async def test_verbs_need_the_role_admin_and_are_in_the_audit_log(two_accounts, tmp_path):
    tenants = TenantsFile(tmp_path / "tenants.toml")
    tenants.tenant("acme")
    admin, reader = tenants.key("acme", "admin"), tenants.key("acme", "watch")
    audit = tmp_path / "audit.jsonl"
    async with operated(two_accounts, tmp_path, auth_file=tenants.path, audit_file=audit) as one:
        address = one.gateway.admin_address
        async with caller_with(address, reader) as caller:
            refusal = await refused(AdminServiceStub(caller.channel).GetPool(p.GetPoolRequest(), timeout=10))
            assert refusal.reason == "ROLE_MISSING"
        async with caller_with(address, admin) as caller:
            operator = Operated(one.gateway, caller, AdminServiceStub(caller.channel))
            await operator.pause("one")
            await operator.limit("one", 2)
            await operator.drain("one", 60)
            await operator.resume("one")
            assert (await refused(operator.pause("k" * 60))).reason == "ACCOUNT_NOT_FOUND"

    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    acts = [(line["event"], line["outcome"], line.get("account")) for line in lines if "account." in line["event"]]
    assert acts == [
        ("account.pause", "OK", "one"),
        ("account.limit", "OK", "one"),
        ("account.drain", "OK", "one"),
        ("account.resume", "OK", "one"),
        ("account.pause", "ACCOUNT_NOT_FOUND", None),
    ]
    assert "kkk" not in audit.read_text()


async def test_the_metrics_have_accounts_and_tenants_as_labels(two_accounts, tmp_path):
    async with operated(two_accounts, tmp_path, metrics_port=0) as one:
        await one.caller.create()
        await one.pause("two")
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(one.gateway.metrics)).text
        for line in (
            'gateway_account_permits{account="one",state="held"} 1.0',
            'gateway_account_limit{account="one",kind="configured"} 3.0',
            'gateway_account_limit{account="two",kind="effective"} 0.0',
            'gateway_account_breaker{account="one",state="closed"} 1.0',
            'gateway_account_set_aside{account="two",cause="paused"} 1.0',
            'gateway_permit_wait_seconds_count{outcome="granted"} 1.0',
            'gateway_tenant_permits{tenant=""} 1.0',
        ):
            assert line in metrics, line
        assert "one-key" not in metrics


def run_pool(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "liveavatar_gateway", "pool", *arguments, "--address", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


async def test_the_command_line_shows_and_steers(two_accounts, tmp_path):
    async with operated(two_accounts, tmp_path) as one:
        address = one.gateway.admin_address
        await one.caller.create()

        async def run(*arguments: str) -> str:
            done = await asyncio.to_thread(run_pool, address, *arguments)
            assert done.returncode == 0, done.stderr
            return done.stdout

        shown = json.loads(await run("show", "--json"))
        assert [(account["name"], account["held_count"]) for account in shown["accounts"]] == [
            ("one", 1),
            ("two", 0),
        ]
        assert "one: paused, 1 in use, limit 0 (configured 3)" in await run("pause", "one")
        assert "paused" in await run("show")
        assert "one: active, 1 in use, limit 3" in await run("resume", "one")
        assert "one: active, 1 in use, limit 2 (set to 2, configured 3)" in await run("limit", "one", "2")
        assert "draining, " in await run("drain", "two", "--grace", "600")
        assert await run("reload") == "nothing changed\n"
        failed = await asyncio.to_thread(run_pool, address, "pause", "three")
        assert failed.returncode == 1
        assert "pool show" in failed.stderr
        assert "limit 3" in await run("limit", "one", "--reset")
