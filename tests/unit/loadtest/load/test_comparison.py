"""Comparisons: a true difference is shown, chance is not taken for one, and a slow machine is no slow gateway."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from load.comparison import Comparison, compare
from load.report.compared import comparison_markdown, show_comparison
from load.result import GeneratorHealth, RunResult
from testkit.simulated_run import simulated

_TIMES = {"resamples": 1000}


@pytest.fixture(scope="module")
def before() -> RunResult:
    return simulated(seed=1)


def _changes(comparison: Comparison) -> dict[str, str]:
    return {difference.what: difference.change for difference in comparison.differences}


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_two_runs_of_one_world_show_no_difference(before, seed):
    comparison = compare(before, simulated(seed=seed), **_TIMES)
    assert comparison.change == "no difference shown"
    assert comparison.exit_code == 0
    assert len(comparison.differences) >= 10


def test_ten_milliseconds_in_the_packet_path_are_a_regression(before):
    comparison = compare(before, simulated(seed=2, packet_path_s=0.01), **_TIMES)
    assert (comparison.change, comparison.exit_code) == ("regressed", 1)
    (median,) = [one for one in comparison.differences if one.what == "first packet upstream p50"]
    assert median.low_ms < 10 < median.high_ms
    assert "regressed by" in comparison.headline


def test_the_same_the_other_way_round_is_an_improvement(before):
    comparison = compare(simulated(seed=2, packet_path_s=0.01), before, **_TIMES)
    assert (comparison.change, comparison.exit_code) == ("improved", 0)


def test_a_slower_machine_is_not_taken_for_a_slower_gateway(before):
    comparison = compare(before, simulated(seed=2, machine_s=0.01), **_TIMES)
    controlled = [one for one in comparison.differences if one.controlled]
    assert {"first packet upstream p50", "started p50"} <= {one.what for one in controlled}
    assert "regressed" not in {one.change for one in controlled}
    # Without a control there is nothing to take off.
    assert _changes(comparison)["attach p50"] == "regressed"


def test_more_cpu_per_second_of_audio_is_a_regression(before):
    comparison = compare(before, simulated(seed=2, cpu_ms_per_audio_s=5.0), **_TIMES)
    assert _changes(comparison)["CPU per second of audio"] == "regressed"


def test_a_stall_in_one_window_widens_the_interval_instead_of_proving_anything(before):
    stalled = compare(before, simulated(seed=2, stall=(60.0, 1.0)), **_TIMES)
    (tail,) = [one for one in stalled.differences if one.what == "ack delay p99"]
    assert tail.change == "no difference shown"
    assert tail.high_ms > 100


def test_the_same_seed_gives_the_same_intervals(before):
    now = simulated(seed=2)
    assert compare(before, now, **_TIMES, seed=7) == compare(before, now, **_TIMES, seed=7)
    assert compare(before, now, **_TIMES, seed=7) != compare(before, now, **_TIMES, seed=8)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"scenario": "churn"}, "the scenarios differ: 'ci' before, 'churn' now"),
        ({"embedded": False}, "one run had the gateway on this machine"),
        (
            {"generator": GeneratorHealth(lag_p99_ms=300, lag_max_ms=300, cpu_share=0.5, core_steal=0.0)},
            "the generator was saturated now",
        ),
    ],
)
def test_runs_of_different_kinds_are_not_comparable(before, other, said):
    comparison = compare(before, replace(before, **other), **_TIMES)
    assert (comparison.change, comparison.exit_code) == ("not comparable", 3)
    assert said in comparison.headline


def test_a_run_of_a_few_windows_is_not_comparable(before):
    assert "windows of 5 s, 8 are needed" in compare(before, simulated(duration_s=20.0), **_TIMES).headline


def test_another_environment_is_said(before):
    now = replace(before, environment={**before.environment, "grpcio": "1.90.0", "seed": "9"}, duration_s=300.0)
    warnings = compare(before, now, **_TIMES).warnings
    assert "grpcio was 1.85.0 and is 1.90.0" in warnings
    assert "the runs lasted 120 s and 300 s" in warnings
    assert not any("seed" in warning for warning in warnings)


def test_every_output_says_how_many_resamples_were_drawn_and_what_was_judged(before):
    comparison = compare(before, simulated(seed=2, packet_path_s=0.01), **_TIMES)
    console = Console(width=200, record=True, quiet=True)
    console.quiet = False
    with console.capture() as shown:
        show_comparison(console, comparison)
    for text in (shown.get(), comparison_markdown(comparison)):
        assert "1,000 resamples" in text
        assert "first packet upstream p50" in text
        assert "less direct's difference" in text
    row = json.loads(json.dumps(comparison.to_json()))
    assert (row["change"], row["resamples"]) == ("regressed", 1000)
