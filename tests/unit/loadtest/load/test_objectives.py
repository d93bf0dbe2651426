"""Reading objectives: what means nothing is refused, with what to write instead."""

import pytest

from load.figures import COUNTERS, FIGURES
from load.findings import find
from load.objectives import Count, Errors, Latency, Objective, ObjectivesError, parse_objectives, read_objectives
from load.scenarios import SCENARIOS

_OBJECTIVE = """
[[sets.quick]]
name = "speech reaches LiveAvatar at once"
why = "Each millisecond is silence that the user waits through."
kind = "latency"
figure = "first packet upstream"
at_most_ms = 50.0
"""
_SCENARIO = """
[scenarios.ci]
sets = ["quick"]
"""


def _problems(text: str) -> str:
    with pytest.raises(ObjectivesError) as caught:
        parse_objectives(text)
    return str(caught.value)


def test_a_scenario_takes_the_objectives_of_its_sets():
    (objective,) = parse_objectives(_OBJECTIVE + _SCENARIO).of("ci").objectives
    assert isinstance(objective, Latency)
    assert (objective.figure, objective.percentile, objective.at_most_ms) == ("first packet upstream", 99, 50)


def test_an_objective_of_the_scenario_replaces_the_sets_of_the_same_name():
    own = _OBJECTIVE.replace("[[sets.quick]]", "[[scenarios.ci.objectives]]").replace("50.0", "10.0")
    (objective,) = parse_objectives(_OBJECTIVE + _SCENARIO + own).of("ci").objectives
    assert objective.at_most_ms == 10


def test_a_scenario_may_have_limits_of_its_own_for_the_generator():
    text = "[generator]\ncpu_share_at_most = 0.8\n" + _OBJECTIVE + _SCENARIO
    assert parse_objectives(text).of("ci").generator.cpu_share_at_most == 0.8
    own = "[scenarios.ci.generator]\ncpu_share_at_most = 0.5\n"
    assert parse_objectives(text + own).of("ci").generator.cpu_share_at_most == 0.5


@pytest.mark.parametrize(
    ("replace", "by", "said"),
    [
        ("at_most_ms", "at_most_m", "sets.quick.1.at_most_m: unknown key; did you mean 'at_most_ms'?"),
        ('kind = "latency"', 'kind = "lateness"', "no kind is called 'lateness'; known are latency, count"),
        ('kind = "latency"\n', "", "'kind' is missing"),
        (
            "first packet upstream",
            "first packet",
            "no figure is called 'first packet'; did you mean 'first",
        ),
        ("first packet upstream", "session lifetime", "'session lifetime' is a lifetime"),
        ("first packet upstream", "started, closed loop", "counts as closed loops do"),
        ("at_most_ms = 50.0", "", "give either 'at_most_ms', or 'at_most_ratio_of_direct' and/or"),
        ("at_most_ms = 50.0", "at_most_ms = 50.0\nat_most_ms_over_direct = 5.0", "give either 'at_most_ms', or"),
        ("at_most_ms = 50.0", 'at_most_ms = "50"', "sets.quick.1.at_most_ms"),
        ("at_most_ms = 50.0", "at_most_ms = 50.0\npercentile = 101.0", "sets.quick.1.percentile"),
        ("Each millisecond is silence that the user waits through.", "fast", "sets.quick.1.why"),
        ('sets = ["quick"]', 'sets = ["quik"]', "scenarios.ci: no set is called 'quik'; did you mean 'quick'?"),
        ('sets = ["quick"]', "", "scenarios.ci: it has neither sets nor objectives"),
        ('sets = ["quick"]', 'sets = ["quick"]\nset = 1', "scenarios.ci.set: unknown key; did you mean 'sets'?"),
        ("[scenarios.ci]", "[scenario.ci]", "scenario: unknown key; did you mean 'scenarios'?"),
        (
            "[scenarios.ci]",
            "[generator]\nlag = 1\n[scenarios.ci]",
            "generator.lag: unknown key; known are lag",
        ),
        ("at_most_ms = 50.0", "at_most_ms = ", "Invalid value"),
    ],
)
def test_what_means_nothing_is_refused_by_name(replace, by, said):
    text = _OBJECTIVE + _SCENARIO
    assert replace in text
    assert said in _problems(text.replace(replace, by, 1))


def test_two_objectives_of_one_name_are_refused():
    assert "two objectives are called 'speech reaches LiveAvatar at once'" in _problems(
        _OBJECTIVE + _OBJECTIVE + _SCENARIO
    )


def test_every_problem_is_named_at_once():
    text = _problems(
        _OBJECTIVE.replace("at_most_ms", "at_most") + _OBJECTIVE.replace("why", "because") + _SCENARIO
    )
    assert "sets.quick.1.at_most: unknown key" in text
    assert "sets.quick.2.because: unknown key" in text


def test_a_run_without_objectives_is_refused_since_nothing_could_break_it():
    with pytest.raises(ObjectivesError, match=r"scenario 'cii' has no objectives; did you mean 'ci'\?"):
        parse_objectives(_OBJECTIVE + _SCENARIO).of("cii")


def test_a_counter_needs_a_limit_and_errors_one_filter():
    common = {"name": "underruns are rare", "why": "Each is a stop in the middle of a word."}
    with pytest.raises(ValueError, match="give 'at_most', 'at_least' or"):
        Count(**common, kind="count", counter="underruns")
    with pytest.raises(ValueError, match="no counter is called 'underrun'; did you mean 'underruns'"):
        Count(**common, kind="count", counter="underrun", at_most=1.0)
    with pytest.raises(ValueError, match="'reasons' or 'besides', not both"):
        Errors(**common, kind="errors", reasons=("A",), besides=("B",))


def test_every_kind_can_be_judged():
    for kind in Objective.__args__:
        assert find.dispatch(kind) is not find.dispatch(object), kind


def test_the_projects_own_objectives_speak_of_figures_and_counters_that_exist():
    own = read_objectives()
    assert "ci" in own.scenarios
    for scenario in own.scenarios:
        for objective in own.of(scenario).objectives:
            assert getattr(objective, "figure", "started") in FIGURES
            assert getattr(objective, "counter", "sessions") in COUNTERS
            assert objective.why.endswith(".")


def test_every_scenario_has_objectives_and_every_objective_a_scenario():
    assert set(read_objectives().scenarios) == set(SCENARIOS)


def test_every_scenario_demands_integrity_and_that_nothing_is_left_upstream():
    own = read_objectives()
    for scenario in own.scenarios:
        assert {"integrity", "leaks", "errors"} <= {objective.kind for objective in own.of(scenario).objectives}
