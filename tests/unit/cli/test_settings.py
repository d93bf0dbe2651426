"""Settings on the command line."""

import pytest

from liveavatar_gateway.cli.settings import EX_CONFIG, load_or_exit


def test_flags_are_settings(monkeypatch):
    monkeypatch.delenv("GATEWAY_PORT", raising=False)
    assert load_or_exit(None, {"port": 7, "host": None}).port == 7


def test_an_unusable_setting_exits_with_the_code_of_configurations(monkeypatch, capsys):
    monkeypatch.setenv("GATEWAY_PORT", "x")
    with pytest.raises(SystemExit) as ended:
        load_or_exit(None, {})
    assert ended.value.code == EX_CONFIG
    assert capsys.readouterr().err.startswith("liveavatar-gateway: GATEWAY_PORT: ")
