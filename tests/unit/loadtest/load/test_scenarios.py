"""Scenarios have users that exist and a cap that suffices, and a run's settings change them."""

import pytest

from load.behaviours import USER_KINDS, expected_s
from load.run_config import InvalidRunConfig, RunConfig
from load.scenarios import SCENARIOS, scenario_of


def test_every_scenario_has_users_that_exist_and_a_cap_above_what_is_under_way():
    for name, scenario in SCENARIOS.items():
        assert set(scenario.mix) <= set(USER_KINDS), name
        busy_s = expected_s(scenario.style)
        mean_s = sum(scenario.mix[user] * busy_s[user] for user in scenario.mix) / sum(scenario.mix.values())
        assert scenario.users >= 1.25 * scenario.rate * mean_s, f"{name} would defer arrivals of its own accord"


def test_settings_change_their_scenario():
    config = RunConfig(emulator="http://e", users=30, seconds=9.0, rate=2.5, chunk_ms=100)
    scenario = scenario_of(config, expected_s)
    assert (scenario.users, scenario.seconds, scenario.rate) == (30, 9.0, 2.5)
    assert scenario.style.chunk_ms == (100,)
    assert scenario.style.burst_share == 0.0


def test_users_without_a_rate_are_kept_busy():
    few = scenario_of(RunConfig(emulator="http://e", users=10), expected_s)
    many = scenario_of(RunConfig(emulator="http://e", users=40), expected_s)
    assert many.rate == pytest.approx(4 * few.rate)


def test_without_an_emulator_nobody_speaks_directly():
    assert "Direct" not in scenario_of(RunConfig(emulator=""), expected_s).mix


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (RunConfig(scenario="nonsense"), "LOAD_SCENARIO is 'nonsense'; it must be one of "),
        (RunConfig(rate=-1.0), "LOAD_RATE is -1.0; it must not be negative"),
    ],
)
def test_a_setting_that_makes_no_sense_names_its_variable(config: RunConfig, says: str):
    with pytest.raises(InvalidRunConfig, match=says):
        scenario_of(config, expected_s)
