"""The command line refuses what cannot be run, with the option at fault and the next step."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from load.__main__ import main
from load.objectives import read_objectives
from load.scenarios import SCENARIOS

_DOCUMENT = Path(__file__).parents[4] / "docs/load-testing.md"


def _load(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment)


def test_an_emulator_without_a_target_is_refused():
    result = _load("run", "--emulator", "http://127.0.0.1:1")
    assert result.exit_code == 2
    assert "--emulator names the emulator behind --target" in result.output


def test_an_unknown_scenario_is_refused_with_those_there_are():
    result = _load("run", "rush-hour")
    assert result.exit_code == 2
    assert "'rush-hour' is not one of 'ci', 'smoke'" in result.output


def test_the_scenario_of_the_environment_is_taken():
    result = _load("run", LOAD_SCENARIO="rush-hour")
    assert "'rush-hour' is not one of" in result.output


def test_a_timeline_that_cannot_be_played_is_refused_before_anything_starts(tmp_path: Path):
    timeline = tmp_path / "faults.toml"
    timeline.write_text("[[at]]\nat_s = 1\nwhat = 'nothing'")
    result = _load("run", "--faults", str(timeline), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "give exactly one of 'fault', 'settings' and 'restart'" in result.output


def test_what_is_no_result_is_refused_by_name(tmp_path: Path):
    file = tmp_path / "other.json"
    file.write_text("{}")
    result = _load("compare", str(file), str(file))
    assert result.exit_code == 2
    assert "other.json" in result.output


def test_every_scenario_has_objectives_and_no_objectives_lack_a_scenario():
    objectives = read_objectives()
    assert set(objectives.scenarios) == set(SCENARIOS)
    for scenario in SCENARIOS:
        assert objectives.of(scenario).objectives


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_the_guide_names_every_scenario(scenario: str):
    assert f"`{scenario}`" in _DOCUMENT.read_text().partition("## Scenarios")[2]


@pytest.mark.parametrize("option", ["--target", "--api-key-file"])
def test_the_scenario_of_two_tenants_has_a_gateway_and_keys_of_its_own(tmp_path: Path, option: str):
    file = tmp_path / "key"
    file.write_text("lag_a")
    result = _load("run", "two-tenants", option, str(file))
    assert result.exit_code == 2
    assert "leave out --target and --api-key-file" in result.output


@pytest.mark.parametrize("arguments", [("smoke",), ("arrivals", "--target", "127.0.0.1:1")])
def test_sessions_are_kept_warm_for_one_scenario_alone(arguments: tuple[str, ...]):
    result = _load("run", *arguments, "--warm")
    assert result.exit_code == 2
    assert "--warm is for the scenario arrivals" in result.output
