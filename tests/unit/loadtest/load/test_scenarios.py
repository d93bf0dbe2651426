"""Scenarios have users that exist and a cap that suffices, and a run's settings change them."""

import os

import pytest

from load.behaviours import USER_KINDS, expected_s
from load.figures import WINDOW_S
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


def test_the_callers_of_a_morning_come_and_go():
    curve = SCENARIOS["arrivals"].curve()
    assert (curve.rate(0.0), curve.rate(curve.seconds)) == (0.0, 0.0)
    assert curve.peak == curve.rate(curve.seconds * 0.6) == SCENARIOS["arrivals"].rate


_TWO_KEYS = os.pathsep.join(("a", "b"))


@pytest.mark.parametrize(("seconds", "length_s"), [(10, 5), (30, 5), (120, 10), (240, 20), (3600, 300)])
def test_a_neighbour_comes_in_every_other_window_and_never_in_the_first(seconds: float, length_s: float):
    config = RunConfig(scenario="two-tenants", key_files=_TWO_KEYS, seconds=float(seconds))
    scenario = scenario_of(config, expected_s)
    windows = scenario.windows()
    assert [from_s for from_s, _ in windows] == [length_s * k for k in range(1, int(seconds / length_s), 2)]
    assert {to_s - from_s for from_s, to_s in windows} == {length_s}
    assert all(from_s % WINDOW_S == 0 and to_s <= seconds for from_s, to_s in windows)
    assert {arrival.user for arrival in scenario.arrivals(seed=1)} == {"Quiet"}


def test_without_a_neighbour_there_are_no_windows():
    assert SCENARIOS["ci"].windows() == []


@pytest.mark.parametrize("files", ["", "one", "one" + os.pathsep])
def test_two_tenants_need_two_keys(files: str):
    with pytest.raises(InvalidRunConfig, match="LOAD_KEY_FILES must name the keys of two tenants"):
        scenario_of(RunConfig(scenario="two-tenants", key_files=files), expected_s)
