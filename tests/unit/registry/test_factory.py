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
