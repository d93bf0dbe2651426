"""Options of the command line and their errors."""

import subprocess
import sys

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


HOSTILE = """
import logging, structlog
from liveavatar_emulator import cli
cli._configure_logs("info")
text = "x\\x1b[2J\\u202e\\nERROR forged"
structlog.get_logger().info("session.started", label=text, path=[text])
logging.getLogger("uvicorn.error").error("failed: %s", text)
"""


def test_texts_of_callers_cannot_act_on_a_terminal_or_forge_a_line_of_the_log():
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=True, timeout=30)
    lines = done.stderr.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("ERROR forged") for line in lines)
    assert len(lines) == 3
