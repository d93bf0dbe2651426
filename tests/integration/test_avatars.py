"""The list of avatars: LiveAvatar's lists as callers of the gateway see them, also while LiveAvatar is down."""

import asyncio
import json
import subprocess
import sys

import pytest

from liveavatar.gateway import AsyncClient, Client, InvalidField, UpstreamError
from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar_demo.process import clean_environment
from testkit import processes
from testkit.caller import caller as connect
from testkit.caller import refused
from testkit.tenants import TenantsFile, caller_with

WAYNE = "dd73ea75-1218-4ef3-92ce-606d5f7fbc0a"
ADA = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
PUBLIC = ["Ada", "Embed sandbox", "Grace", "Wayne"]


async def test_the_usable_avatars_of_both_lists_are_listed_by_name_in_pages():
    with processes.emulator(own_avatars=120) as emulator, processes.gateway(emulator.url) as gateway:
        async with AsyncClient(gateway.address) as client:
            found = [avatar async for avatar in client.list_avatars(page_size=50)]
        names = [avatar.name for avatar in found]
        # The second is still deploying, and the third has expired.
        own = [f"Custom {number}" for number in range(1, 121) if number not in (2, 3)]
        assert names == sorted([*own, *PUBLIC])
        assert [(avatar.id, avatar.name) for avatar in found if avatar.sandbox] == [(WAYNE, "Wayne")]
        assert {avatar.name for avatar in found if avatar.is_1080p} == {"Ada", "Custom 1", "Wayne"}


async def test_the_list_is_fetched_once_and_outlives_an_outage_of_liveavatar():
    with processes.emulator() as emulator, processes.gateway(emulator.url, avatars_ttl_s=1) as gateway:
        async with AsyncClient(gateway.address) as client:

            async def names():
                return [avatar.name async for avatar in client.list_avatars()]

            assert await asyncio.gather(*(names() for _ in range(5))) == [PUBLIC] * 5
            emulator.fault("avatars", status=503, times=100)
            await asyncio.sleep(1.1)
            assert await names() == PUBLIC
        assert gateway.process.logged("avatars.not_fetched", "UPSTREAM_UNREACHABLE")


async def test_without_any_list_the_failure_of_liveavatar_is_returned():
    with processes.emulator() as emulator, processes.gateway(emulator.url) as gateway:
        emulator.fault("avatars", status=503, times=100)
        async with connect(gateway.address) as caller:
            refusal = await refused(caller.sessions.ListAvatars(p.ListAvatarsRequest(), timeout=20))
        assert refusal.reason == "UPSTREAM_UNREACHABLE"
        assert refusal.retry_s > 0


@pytest.mark.parametrize(
    ("fields", "field"), [({"page_size": -1}, "page_size"), ({"page_token": "x"}, "page_token")]
)
async def test_a_wrong_page_is_refused(caller, fields, field):
    refusal = await refused(caller.sessions.ListAvatars(p.ListAvatarsRequest(**fields), timeout=20))
    assert (refusal.reason, refusal.field) == ("INVALID_FIELD", field)


def test_blocking_client_and_command_list_the_same_avatars(emulator, shared_gateway):
    with Client(shared_gateway.address) as client:
        found = list(client.list_avatars())
        with pytest.raises(InvalidField):
            list(client.list_avatars(page_size=-1))
    command = [sys.executable, "-m", "liveavatar_gateway", "avatars", "--address", shared_gateway.address]

    def run(*more: str) -> str:
        done = subprocess.run(
            [*command, *more], capture_output=True, text=True, env=clean_environment(), check=True, timeout=60
        )
        return done.stdout

    assert [avatar["id"] for avatar in json.loads(run("--json"))] == [avatar.id for avatar in found]
    table = run().splitlines()
    assert table[0].split() == ["id", "name", "1080p", "sandbox", "preview"]
    assert [line.split()[0] for line in table[1:]] == [avatar.id for avatar in found]


def test_an_unreachable_liveavatar_is_an_upstream_error_for_the_client():
    with (
        processes.gateway("http://127.0.0.1:9") as gateway,
        Client(gateway.address) as client,
        pytest.raises(UpstreamError),
    ):
        list(client.list_avatars())


async def test_a_tenant_is_listed_the_avatars_that_the_operator_allows(emulator, tmp_path):
    tenants = TenantsFile(tmp_path / "tenants.toml")
    tenants.tenant("all")
    tenants.tenant("some", avatars=[WAYNE])
    everything, some, speaker = tenants.key("all"), tenants.key("some"), tenants.key("all", "speak")

    async def names(text):
        async with caller_with(gateway.address, text) as caller:
            answer = await caller.sessions.ListAvatars(p.ListAvatarsRequest(), timeout=20)
            return [avatar.name for avatar in answer.avatars]

    with processes.gateway(emulator.url, auth_file=tenants.path) as gateway:
        assert (await names(everything), await names(some)) == (PUBLIC, ["Wayne"])
        async with caller_with(gateway.address, speaker) as caller:
            refusal = await refused(caller.sessions.ListAvatars(p.ListAvatarsRequest(), timeout=20))
        assert refusal.reason == "ROLE_MISSING"
        async with caller_with(gateway.address, some) as caller:
            refusal = await refused(caller.create(avatar_id=ADA))
            assert (refusal.reason, refusal.field) == ("AVATAR_NOT_ALLOWED", "spec.avatar_id")
            refusal = await refused(caller.attach(avatar_id=ADA))
            assert (refusal.reason, refusal.field) == ("AVATAR_NOT_ALLOWED", "open.spec.avatar_id")
            tenants.tenant("some", avatars=[ADA])
            async with asyncio.timeout(20):
                while await names(some) != ["Ada"]:
                    await asyncio.sleep(0.2)
            await caller.end((await caller.create(avatar_id=ADA)).session.id)
