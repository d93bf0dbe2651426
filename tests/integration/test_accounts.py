"""Several accounts: the choice among them, accounts that fail, and their file while the gateway runs."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys

import pytest

from liveavatar.gateway.v1 import session_service_pb2
from testkit import processes
from testkit.accounts import AccountsFile
from testkit.caller import caller as connect
from testkit.caller import refused

KEYS = "one=one-key one=one-new-key two=two-key"


@pytest.fixture
def two_accounts():
    with processes.emulator(api_keys=KEYS, account_limits="one:concurrency=3 two:concurrency=3") as found:
        yield found


@contextlib.asynccontextmanager
async def served(emulator, file: AccountsFile, accounts, **settings):
    path = file.write(accounts)
    settings = {"pool_file": path, "api_key": "", "breaker_s": 1, "settle_s": 0, **settings}
    with processes.gateway(emulator.url, **settings) as gateway:
        async with connect(gateway.address) as caller:
            yield gateway, caller


@pytest.fixture
def file(tmp_path) -> AccountsFile:
    return AccountsFile(tmp_path)


def active(emulator) -> dict[str, int]:
    return {row["name"]: row["active"] for row in emulator.state()["accounts"]}


async def _info(caller):
    return await caller.sessions.GetServerInfo(session_service_pb2.GetServerInfoRequest(), timeout=10)


BOTH = {"one": {"max_sessions": 3}, "two": {"max_sessions": 3}}


async def test_both_accounts_are_filled_and_neither_refuses(two_accounts, file):
    async with served(two_accounts, file, BOTH) as (_, caller):
        sessions = [await caller.create() for _ in range(6)]
        assert active(two_accounts) == {"one": 3, "two": 3}
        assert two_accounts.state()["refusals"]["403/4032"] == 0
        assert (await refused(caller.create(deadline_s=2))).reason == "CAPACITY_EXHAUSTED"
        for one in sessions:
            await caller.end(one.session.id)
        await asyncio.to_thread(two_accounts.wait_active, 0)


async def test_the_cheaper_account_is_used_first(two_accounts, file):
    accounts = {"one": {"max_sessions": 3, "cost": 2.0}, "two": {"max_sessions": 3, "cost": 0.5}}
    async with served(two_accounts, file, accounts) as (_, caller):
        for _ in range(3):
            await caller.create()
        assert active(two_accounts) == {"one": 0, "two": 3}


async def test_a_revoked_key_is_set_aside_reported_and_used_again_once_it_changes(two_accounts, file):
    accounts = {"one": {"max_sessions": 3, "cost": 0.5}, "two": {"max_sessions": 3}}
    async with served(two_accounts, file, accounts) as (gateway, caller):
        await caller.create()
        two_accounts.change_account("one", revoked_keys=["one-key"])
        await caller.create()
        await caller.create()
        assert active(two_accounts) == {"one": 1, "two": 2}
        assert gateway.process.logged("account.set_aside")
        assert "one-key" not in gateway.process.log
        file.write_key("one", "one-new-key")
        assert gateway.process.logged("account.changed")
        await caller.create()
        assert active(two_accounts) == {"one": 2, "two": 2}


async def test_an_account_without_credits_is_left_alone_until_some_are_added(two_accounts, file):
    accounts = {"one": {"max_sessions": 3, "cost": 0.5}, "two": {"max_sessions": 3}}
    two_accounts.change_account("one", credits=0)
    async with served(two_accounts, file, accounts) as (_, caller):
        await caller.create()
        assert active(two_accounts) == {"one": 0, "two": 1}
        two_accounts.change_account("one", credits=100)
        async with asyncio.timeout(20):
            while not active(two_accounts)["one"]:
                await caller.create()
                await asyncio.sleep(0.5)


async def test_a_caller_goes_on_to_the_next_account_when_one_fails(two_accounts, file):
    accounts = {"one": {"max_sessions": 3, "cost": 0.5}, "two": {"max_sessions": 3}}
    async with served(two_accounts, file, accounts) as (_, caller):
        two_accounts.fault("start", account="one", status=500, after_effect=True)
        await caller.create()
        await asyncio.to_thread(two_accounts.wait_active, 1)
        assert active(two_accounts) == {"one": 0, "two": 1}
        # The account works again: one failure opens no breaker.
        await caller.create()
        assert active(two_accounts)["one"] == 1


async def test_a_start_that_hangs_is_given_up_stopped_and_made_elsewhere(two_accounts, file):
    accounts = {"one": {"max_sessions": 3, "cost": 0.5}, "two": {"max_sessions": 3}}
    async with served(two_accounts, file, accounts, rest_timeout_s=1) as (_, caller):
        two_accounts.fault("start", account="one", hang=True, after_effect=True)
        await caller.create(deadline_s=20)
        await asyncio.to_thread(two_accounts.wait_active, 1)
        assert active(two_accounts) == {"one": 0, "two": 1}


async def test_an_account_is_added_paused_and_retired_while_sessions_run(two_accounts, file):
    async with served(two_accounts, file, {"one": {"max_sessions": 3}}) as (gateway, caller):
        attachment = await caller.attach()
        await attachment.until_ready()
        file.write({"one": {"max_sessions": 3, "state": "retired"}, "two": {"max_sessions": 2}})
        assert gateway.process.logged("account.added")
        await caller.create()
        await caller.create()
        assert active(two_accounts) == {"one": 1, "two": 2}
        assert (await refused(caller.create(deadline_s=2))).reason == "CAPACITY_EXHAUSTED"
        file.write({"two": {"max_sessions": 2, "state": "paused"}})
        gateway.process.send(signal.SIGHUP)
        assert gateway.process.logged("state=paused")
        assert (await refused(caller.create(deadline_s=2))).reason == "CAPACITY_EXHAUSTED"
        # Its session still lives, and is stopped with the key that the file no longer names.
        await caller.end(attachment.session_id)
        await asyncio.to_thread(two_accounts.wait_active, 2)
        assert active(two_accounts) == {"one": 0, "two": 2}


async def test_a_file_with_a_mistake_changes_nothing_and_is_named(two_accounts, file):
    async with served(two_accounts, file, BOTH) as (gateway, caller):
        file.write({"one": {"max_sessions": 3}, "two": {"max_session": 3, "max_sessions": 3}})
        assert gateway.process.logged("did you mean max_sessions?")
        sessions = [await caller.create() for _ in range(6)]
        assert len(sessions) == 6


async def test_accounts_are_for_their_avatars_and_tenants_alone(two_accounts, file):
    other = "11111111-2222-4333-8444-555555555555"
    accounts = {"one": {"max_sessions": 3, "avatars": [other]}, "two": {"max_sessions": 3, "tenants": ["acme"]}}
    async with served(two_accounts, file, accounts) as (_, caller):
        why = await refused(caller.create())
        assert why.reason == "CAPACITY_EXHAUSTED"
        assert active(two_accounts) == {"one": 0, "two": 0}


async def test_sessions_of_other_programs_are_counted(two_accounts, file):
    async with served(two_accounts, file, {"one": {"max_sessions": 3}}, foreign_poll_s=1) as (_, caller):
        key = {"X-API-KEY": "one-new-key"}
        for _ in range(2):
            body = {"avatar_id": "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"}
            minted = two_accounts.http.post("/v1/sessions/token", json=body, headers=key).json()["data"]
            token = {"Authorization": f"Bearer {minted['session_token']}"}
            two_accounts.http.post("/v1/sessions/start", headers=token).raise_for_status()
        async with asyncio.timeout(20):
            while (await _info(caller)).permit_count != 1:
                await asyncio.sleep(0.1)
        await caller.create()
        assert two_accounts.state()["refusals"]["403/4032"] == 0


def _check_config(*arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
    environment = {**processes.clean_environment(), **{name: str(value) for name, value in variables.items()}}
    command = [sys.executable, "-m", "liveavatar_gateway", "check-config", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_check_config_shows_accounts_and_never_a_key(two_accounts, file):
    path = file.write({"one": {"max_sessions": 3}, "two": {"max_sessions": 2, "cost": 2, "state": "paused"}})
    settings = {"GATEWAY_POOL_FILE": path, "LIVEAVATAR_API_URL": two_accounts.url}
    done = _check_config("--json", "--online", **settings)
    shown = json.loads(done.stdout)
    assert shown["accounts"] == "one (3 sessions, cost 1), two (2 sessions, paused, cost 2)"
    assert (shown["max_sessions"], shown["credits_left"]) == (5, "one: 1000.00")
    assert "one-key" not in done.stdout + done.stderr
    file.write_key("one", "wrong-key")
    refused = _check_config("--online", **settings)
    assert (refused.returncode, "accounts.one: UPSTREAM_UNAUTHENTICATED" in refused.stderr) == (78, True)
    file.write({"one": {"max_session": 3}})
    refused = _check_config(**settings)
    assert (refused.returncode, "did you mean max_sessions?" in refused.stderr) == (78, True)
    both = _check_config(GATEWAY_POOL_FILE=path, LIVEAVATAR_API_KEY="a-key")
    assert (both.returncode, "exclude each other" in both.stderr) == (78, True)


async def test_sessions_of_a_dead_process_continue_on_their_accounts_and_are_stopped_with_their_keys(
    two_accounts, file, tmp_path
):
    registry = {"registry_file": tmp_path / "registry.db"}
    async with served(two_accounts, file, BOTH, **registry) as (gateway, caller):
        attachments = [await caller.attach() for _ in range(4)]
        for one in attachments:
            await one.until_ready()
        assert active(two_accounts) == {"one": 2, "two": 2}
        gateway.process.kill()
    async with served(two_accounts, file, BOTH, **registry) as (gateway, caller):
        for one in attachments:
            resumed = await caller.resume(one.opened.handle, skip_compacted=True)
            assert resumed.upstream_id == one.upstream_id
        assert (await _info(caller)).used_permit_count == 4
        for one in attachments:
            await caller.end(one.session_id)
        await asyncio.to_thread(two_accounts.wait_active, 0)


async def test_a_session_of_a_single_key_continues_once_the_key_is_an_account(two_accounts, file, tmp_path):
    registry = {"registry_file": tmp_path / "registry.db"}
    with processes.gateway(two_accounts.url, api_key="one-key", **registry) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            gateway.process.kill()
    async with served(two_accounts, file, BOTH, **registry) as (_, caller):
        resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
        assert resumed.upstream_id == attachment.upstream_id
        await caller.end(attachment.session_id)
        await asyncio.to_thread(two_accounts.wait_active, 0)
