"""A gateway does not start with files that somebody else may have made, nor with credentials in an address."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from testkit import processes
from testkit.caller import caller

NOBODY = 65_534
SECRET = "pa55word"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


async def open_session(address: str) -> None:
    async with caller(address) as speaking:
        await speaking.attach()


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**processes.clean_environment(), "LIVEAVATAR_API_KEY": "key", "GATEWAY_PORT": "0", **environment}
    arguments = [sys.executable, "-m", "liveavatar_gateway", *command]
    return subprocess.run(arguments, env=variables, capture_output=True, text=True, check=False, timeout=50)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@as_root
@pytest.mark.parametrize("name", ["registry.db", "registry.db.key", "registry.db-wal"])
def test_a_file_that_another_user_made_beforehand_in_an_open_folder_is_not_used(tmp_path, name):
    tmp_path.chmod(0o1777)
    path = tmp_path / name
    path.write_text("ab" * 32 if name.endswith("key") else "")
    os.chown(path, NOBODY, NOBODY)
    before = path.read_bytes()
    done = run("serve", GATEWAY_REGISTRY_FILE=str(tmp_path / "registry.db"))
    refused(done, "GATEWAY_REGISTRY_", f"belongs to user {NOBODY}")
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["registry.db", "registry.db.key"])
def test_a_link_made_beforehand_is_not_followed(tmp_path, name):
    target = tmp_path / "elsewhere"
    (tmp_path / name).symlink_to(target)
    done = run("serve", GATEWAY_REGISTRY_FILE=str(tmp_path / "registry.db"))
    refused(done, "GATEWAY_REGISTRY_", "is a link")
    assert not target.exists()


def test_a_folder_that_is_open_to_everybody_holds_no_registry(tmp_path):
    tmp_path.chmod(0o777)
    done = run("serve", GATEWAY_REGISTRY_FILE=str(tmp_path / "registry.db"))
    refused(done, "GATEWAY_REGISTRY_", "every user can replace files")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("command", ["serve", "check-config"])
@pytest.mark.parametrize("name", ["LIVEAVATAR_API_URL", "GATEWAY_API_URL", "GATEWAY_LIVEKIT_URL"])
def test_credentials_in_an_address_are_refused_and_shown_nowhere(command, name):
    scheme = "wss" if "LIVEKIT" in name else "https"
    done = run(command, **{name: f"{scheme}://user:{SECRET}@host"})
    refused(done, name, "no user name and no password")
    assert SECRET not in done.stderr + done.stdout


def test_a_running_gateway_leaves_no_core_dump(shared_gateway):
    limits = Path(f"/proc/{shared_gateway.process.pid}/limits").read_text().splitlines()
    (line,) = [line for line in limits if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]


def test_a_key_of_the_registry_is_made_in_a_file_of_its_own(emulator, tmp_path):
    key = tmp_path / "keys" / "registry.key"
    key.parent.mkdir()
    for _ in range(2):
        registry = str(tmp_path / "registry.db")
        with processes.gateway(emulator.url, registry_file=registry, registry_key_file=key):
            assert not (tmp_path / "registry.db.key").exists()
    assert len(key.read_text().strip()) == 64


def test_a_gateway_starts_again_after_kubernetes_has_opened_its_files_to_the_group(emulator, tmp_path):
    """As kubelet does for `fsGroup` at each mount; `check-config` accepts the files too."""
    folder, key = tmp_path / "data", tmp_path / "keys" / "registry.key"
    for made in (folder, key.parent):
        made.mkdir()
    registry = folder / "registry.db"
    contents = set()
    for _ in range(3):
        with processes.gateway(emulator.url, registry_file=registry, registry_key_file=key):
            contents.add(key.read_text())
            assert stat.S_IMODE(key.stat().st_mode) == 0o600
        for path in (*folder.iterdir(), key):
            path.chmod(0o660)
        for opened in (folder, key.parent):
            opened.chmod(0o2770)
        named = {"GATEWAY_REGISTRY_FILE": str(registry), "GATEWAY_REGISTRY_KEY_FILE": str(key)}
        assert run("check-config", **named).returncode == 0
        key.chmod(0o660)
    assert len(contents) == 1


@as_root
def test_an_administrator_checks_files_of_the_gateways_user(tmp_path):
    """As docs/authentication.md has it after `chown -R 10001`."""
    folder = tmp_path / "auth"
    folder.mkdir()
    tenants, key = folder / "tenants.toml", folder / "api.key"
    made = run("keys", "make", "acme", "--new-tenant", "--role", "open", "--file", str(tenants))
    assert made.returncode == 0
    key.write_text("key")
    key.chmod(0o600)
    for path in (folder, tenants, key):
        os.chown(path, 10_001, 10_001)
    listed = run("keys", "list", "--file", str(tenants))
    assert (listed.returncode, "acme" in listed.stdout) == (0, True), listed.stderr
    named = {"GATEWAY_AUTH_FILE": str(tenants), "GATEWAY_API_KEY_FILE": str(key), "LIVEAVATAR_API_KEY": ""}
    checked = run("check-config", **named)
    assert checked.returncode == 0, checked.stderr
    assert tenants.stat().st_uid == 10_001


async def test_the_log_names_the_key_when_the_registry_was_sealed_with_another(emulator, tmp_path):
    """A mistyped path is no error, since a missing key is made."""
    named = {"registry_file": tmp_path / "registry.db", "log_format": "json"}
    for name in ("right", "right", "wrong"):
        with processes.gateway(emulator.url, **named, registry_key_file=tmp_path / name) as gateway:
            assert gateway.process.logged("serve.config")
            found = [line for line in gateway.process.log.splitlines() if "registry.other_key" in line]
            if name == "right":
                assert found == []
                await open_session(gateway.address)
                gateway.process.kill()
            else:
                (said,) = map(json.loads, found)
                assert (said["level"], said["rows"]) == ("error", 2)
                assert "GATEWAY_REGISTRY_KEY_FILE" in said["hint"]
