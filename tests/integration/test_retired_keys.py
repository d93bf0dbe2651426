"""A gateway that comes back with another API key of the account: what the old one left is named, and ended."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from testkit import processes
from testkit.caller import caller as connect

KEYS = "acme=emulator-key acme=fresh-key other=strange-key"


@pytest.fixture
def registry(tmp_path) -> str:
    return str(tmp_path / "registry.db")


async def _killed(emulator: processes.Emulator, registry: str) -> None:
    with processes.gateway(emulator.url, registry_file=registry) as first:
        async with connect(first.address) as caller:
            for _ in range(2):
                attachment = await caller.attach()
                await attachment.until_ready()
            first.process.kill()


async def test_what_was_left_under_another_key_is_named_and_with_that_key_ended(registry):
    with processes.emulator(api_keys=KEYS) as emulator:
        await _killed(emulator, registry)
        fresh = {"registry_file": registry, "api_key": "fresh-key"}
        with processes.gateway(emulator.url, **fresh) as second:
            assert second.process.logged("sweep.other_key")
            assert second.process.logged("sessions=2")
            assert processes.API_KEY not in second.process.log
            assert emulator.active() == 2
        with processes.gateway(emulator.url, retired_api_keys=f"unused {processes.API_KEY}", **fresh) as third:
            await asyncio.to_thread(emulator.wait_active, 0)
            assert "sweep.other_key" not in third.process.log


async def test_a_retired_key_that_was_revoked_leaves_it_to_the_one_in_use(registry):
    with processes.emulator(api_keys=KEYS) as emulator:
        await _killed(emulator, registry)
        emulator.fault("stop", status=401, times=2)
        fresh = {"registry_file": registry, "api_key": "fresh-key", "retired_api_keys": processes.API_KEY}
        with processes.gateway(emulator.url, **fresh) as second:
            await asyncio.to_thread(emulator.wait_active, 0)
            assert second.process.logged("upstream.retired_key_refused")


async def test_a_session_of_another_account_is_stopped_with_its_own_key(registry):
    """The key in use does not know it: its refusal would count as the end of the session."""
    with processes.emulator(api_keys=KEYS) as emulator:
        await _killed(emulator, registry)
        settings = {"registry_file": registry, "api_key": "strange-key", "retired_api_keys": processes.API_KEY}
        with processes.gateway(emulator.url, **settings):
            await asyncio.to_thread(emulator.wait_active, 0)


async def test_check_config_names_what_was_left_and_never_a_key(registry):
    with processes.emulator(api_keys=KEYS) as emulator:
        await _killed(emulator, registry)
        settings = {"REGISTRY_FILE": registry}
        done = await asyncio.to_thread(_check_config, emulator.url, "fresh-key", settings)
        before = await asyncio.to_thread(_check_config, emulator.url, processes.API_KEY, settings)
        fingerprint = before["api_key_fingerprint"]
        assert done["sessions_under_other_keys"] == f"2 under {fingerprint}"
        assert done["api_key_fingerprint"] != fingerprint
        assert before["sessions_under_other_keys"] == "0"
        settings["RETIRED_API_KEYS"] = f"\n{processes.API_KEY},\n"
        done = await asyncio.to_thread(_check_config, emulator.url, "fresh-key", settings)
        assert done["sessions_under_other_keys"] == "0"
        assert done["retired_api_keys"] == "set"
        assert processes.API_KEY not in str(done)


def _check_config(url: str, key: str, settings: dict[str, str]) -> dict[str, str]:
    environment = {
        **os.environ,
        **{f"GATEWAY_{name}": value for name, value in settings.items()},
        "LIVEAVATAR_API_URL": url,
        "LIVEAVATAR_API_KEY": key,
    }
    command = [sys.executable, "-m", "liveavatar_gateway", "check-config", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
