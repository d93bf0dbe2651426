"""Location of the registry."""

import stat

import pytest

from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.registry.factory import RegistryConfig, account_name, make_registry, state_folder
from liveavatar_gateway.registry.memory import MemoryRegistry
from liveavatar_gateway.registry.sealing import BadKey
from liveavatar_gateway.registry.sqlite import SqliteRegistry


def test_off_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert isinstance(make_registry(RegistryConfig(file="off", account="a")), MemoryRegistry)
    assert list(tmp_path.iterdir()) == []


def test_without_a_file_it_is_in_the_state_folder_of_the_user_and_for_nobody_else(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert isinstance(make_registry(RegistryConfig(account="a")), SqliteRegistry)
    folder = tmp_path / "liveavatar-gateway"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [file.name for file in folder.iterdir()] == ["registry.db.key"]


@pytest.mark.parametrize("value", ["", "relative/path"])
def test_a_state_folder_that_is_not_absolute_is_ignored_as_the_specification_asks(monkeypatch, value):
    monkeypatch.setenv("XDG_STATE_HOME", value)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(state_folder()) == "/home/somebody/.local/state/liveavatar-gateway"


def test_with_a_key_of_ones_own_none_is_made(tmp_path):
    make_registry(RegistryConfig(file=str(tmp_path / "r.db"), key="ab" * 32, account="a"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named_with_the_way_out(tmp_path):
    with pytest.raises(RegistryUnavailable, match=r"nowhere/r\.db cannot be used.*or `off`"):
        make_registry(RegistryConfig(file=str(tmp_path / "nowhere" / "r.db"), account="a"))


def test_a_bad_key_is_refused_and_not_shown(tmp_path):
    config = RegistryConfig(file=str(tmp_path / "r.db"), key="secret-but-short", account="a")
    with pytest.raises(BadKey) as refused:
        make_registry(config)
    assert "secret-but-short" not in str(refused.value) + repr(config)


def test_a_key_file_that_holds_no_key_is_refused(tmp_path):
    (tmp_path / "r.db.key").write_bytes(b"\xff\xfe")
    with pytest.raises(BadKey, match=r"r\.db cannot be used"):
        make_registry(RegistryConfig(file=str(tmp_path / "r.db"), account="a"))


def test_accounts_have_different_names_that_do_not_show_the_key():
    names = {account_name(url, key) for url in ("https://a", "https://b") for key in ("secret-1", "secret-2")}
    assert len(names) == 4
    assert not any("secret" in name for name in names)


# --- files made beforehand


def config_of(tmp_path, **more) -> RegistryConfig:
    return RegistryConfig(file=str(tmp_path / "r.db"), account="a", **more)


def test_a_key_in_a_file_of_its_own_is_made_there_and_read_again(tmp_path):
    (tmp_path / "keys").mkdir()
    key_file = tmp_path / "keys" / "key"
    make_registry(config_of(tmp_path, key_file=key_file))
    made = key_file.read_bytes()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    make_registry(config_of(tmp_path, key_file=key_file))
    assert key_file.read_bytes() == made
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "open to others"])
def test_a_key_that_somebody_else_may_know_is_not_used(tmp_path, kind):
    key_file, known = tmp_path / "r.db.key", tmp_path / "known"
    (key_file if kind == "open to others" else known).write_text("ab" * 32)
    if kind == "open to others":
        key_file.chmod(0o604)
    else:
        key_file.symlink_to(known if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(BadKey):
        make_registry(config_of(tmp_path))
    assert not (tmp_path / "nowhere").exists()


async def open_and_close(tmp_path) -> None:
    async with make_registry(config_of(tmp_path, key="ab" * 32)):
        pass


@pytest.mark.parametrize("name", ["r.db", "r.db-wal", "r.db-shm", "r.db-journal"])
@pytest.mark.parametrize("kind", ["link", "open to others"])
async def test_a_database_that_somebody_else_may_have_made_is_not_used(tmp_path, name, kind):
    await open_and_close(tmp_path)
    path = tmp_path / name
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_bytes(b"")
        path.chmod(0o666)
    with pytest.raises(RegistryUnavailable, match=f"{name} is"):
        await open_and_close(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


async def test_a_folder_that_everybody_can_write_to_holds_no_registry(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(RegistryUnavailable, match="every user can replace files"):
        await open_and_close(folder)
    with pytest.raises(BadKey, match="every user can replace files"):
        make_registry(config_of(folder))
    assert list(folder.iterdir()) == []
