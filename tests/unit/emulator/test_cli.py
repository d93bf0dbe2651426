"""Options of the command line and their errors."""

import pytest
from click.testing import CliRunner

from liveavatar_emulator import server
from liveavatar_emulator.cli import EX_CONFIG, main, serve
from liveavatar_emulator.config import Settings


@pytest.fixture
def served(monkeypatch):
    """Configurations with which the server would have been run."""
    calls = []
    monkeypatch.setattr(server, "run", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr("liveavatar_emulator.cli._configure_logs", lambda _level: None)
    return calls


def test_every_knob_is_an_option_with_a_variable():
    options = {option.name: option for option in serve.params}
    for name in Settings.model_fields:
        assert options[name].envvar == f"EMULATOR_{name.upper()}"


def test_options_override_the_knobs_of_the_scenario(served, tmp_path):
    scenario = tmp_path / "scenario.toml"
    scenario.write_text("[settings]\nidle_s = 5\nreap_s = 6\n")
    done = CliRunner().invoke(main, ["serve", "--scenario", str(scenario), "--idle-s", "7", "--seed", "3"])
    assert done.exit_code == 0
    config, settings, _, _ = served[0]
    assert (settings.idle_s, settings.reap_s, config.seed) == (7, 6, 3)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--idle-s", "0"], "--idle-s"),
        (["--clock-speed", "0"], "--clock-speed"),
        (["--livekit-url", "ws://x"], "--livekit-key"),
        (["--scenario", "absent.toml"], "cannot be read"),
    ],
)
def test_a_wrong_configuration_ends_with_78_and_names_the_option(served, options, problem):
    environment = dict.fromkeys(("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"))
    done = CliRunner().invoke(main, ["serve", *options], env=environment)
    assert done.exit_code == EX_CONFIG
    assert problem in done.output
    assert served == []
