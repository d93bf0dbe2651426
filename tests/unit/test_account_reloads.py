"""Files of keys and accounts that are read again."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from liveavatar_gateway.account_reloads import AccountReloads
from liveavatar_gateway.config import Settings, components, load, pool_file
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.memory import MemoryRegistry
from liveavatar_gateway.reloading import FileReloads
from testkit.accounts import AccountsFile
from testkit.pools import accounts_at

URL = "http://127.0.0.1:9"


class Warm:
    """Notes the profiles that it is to keep."""

    def __init__(self) -> None:
        self.profiles: list[object] = []

    def use(self, profiles: object) -> bool:
        self.profiles.append(profiles)
        return False


class Parts:
    """Reloads of a process with these settings."""

    def __init__(self, settings: Settings) -> None:
        self.content = None if settings.pool_file is None else pool_file.read(settings.pool_file)
        self.accounts = accounts_at(URL, *components.account_specs(settings, self.content))
        self.warm = Warm()
        self.changes = 0
        self.files = FileReloads()
        self.rooms = SimpleNamespace(secrets=[], use_secret=self._use_secret)
        registry = MemoryRegistry(LeaseConfig())
        self.reloads = AccountReloads(
            settings, self.files, self.accounts, registry, self.warm, on_change=self._changed
        )
        self.reloads.watch(self.content, self.rooms, tenants=lambda: None)

    def _use_secret(self, secret: str) -> bool:
        self.rooms.secrets.append(secret)
        return True

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text("key-1")
    return file


async def test_a_new_key_is_used_and_the_same_key_changes_nothing(key_file):
    parts = Parts(load({"GATEWAY_API_KEY_FILE": str(key_file)}))
    assert (await parts.reloads.read_again()).changed == []
    key_file.write_text("key-2")
    assert (await parts.reloads.read_again()).changed == ["LiveAvatar API key"]
    assert parts.accounts.first.spec.api_key == "key-2"
    assert parts.changes == 3, "once for each reading, and once for the key"


async def test_a_key_that_cannot_be_used_is_named_and_the_former_one_stays(key_file):
    parts = Parts(load({"GATEWAY_API_KEY_FILE": str(key_file)}))
    key_file.write_text("")
    again = await parts.reloads.read_again()
    assert again.changed == []
    assert len(again.failed) == 1
    assert again.failed[0].startswith("LiveAvatar API key: ")
    assert parts.accounts.first.spec.api_key == "key-1"


async def test_accounts_come_and_go_with_their_file(tmp_path):
    file = AccountsFile(tmp_path)
    path = file.write({"main": {"key": "k-1"}})
    parts = Parts(load({"GATEWAY_POOL_FILE": str(path)}))
    file.write({"main": {"key": "k-1"}, "spare": {"key": "k-2"}})
    assert (await parts.reloads.read_again()).changed == ["file of accounts"]
    assert [account.name for account in parts.accounts] == ["main", "spare"]
    assert len(parts.warm.profiles) == 1
    path.write_text("[accounts")
    again = await parts.reloads.read_again()
    assert again.changed == []
    assert len(again.failed) == 1
    assert [account.name for account in parts.accounts] == ["main", "spare"]


async def test_the_secret_of_the_livekit_server_is_read_on_a_signal(tmp_path, key_file):
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    parts = Parts(
        load(
            {
                "GATEWAY_API_KEY_FILE": str(key_file),
                "GATEWAY_LIVEKIT_URL": "ws://127.0.0.1:9",
                "GATEWAY_LIVEKIT_KEY": "k",
                "GATEWAY_LIVEKIT_SECRET_FILE": str(secret),
            }
        )
    )
    await parts.reloads.read_again()
    assert parts.rooms.secrets == [], "it is no part of the pool"
    await parts.files.reload()
    assert parts.rooms.secrets == ["s" * 32]
