"""Verdicts: each thing that can be wrong breaks the objective that speaks of it, and nothing passes unseen."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.figures import Recorder
from load.findings import _recovered_after_s
from load.judging import judge, saturation
from load.objectives import GeneratorLimits, ScenarioObjectives, parse_objectives, read_objectives
from load.result import FloorCost, GeneratorHealth, RunResult
from load.verdict import Outcome, Verdict
from testkit.simulated_run import simulated

STARVED = GeneratorHealth(lag_p99_ms=400, lag_max_ms=2000, cpu_share=0.99, core_steal=0.0)


@pytest.fixture(scope="module")
def healthy() -> RunResult:
    return simulated()


@pytest.fixture(scope="module")
def ci() -> ScenarioObjectives:
    return read_objectives().of("ci")


def _only(**objective: object) -> ScenarioObjectives:
    """Objectives with a single one."""
    lines = "\n".join(f"{key} = {_toml(value)}" for key, value in objective.items())
    return parse_objectives(
        f'[[scenarios.ci.objectives]]\nname = "the only objective"\nwhy = "A sentence that says why."\n{lines}\n'
    ).of("ci")


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def _outcome(result: RunResult, **objective: object) -> Outcome:
    (outcome,) = judge(result, _only(**objective)).outcomes
    return outcome


def _broken(verdict: Verdict) -> set[str]:
    return {outcome.objective for outcome in verdict.broken}


def test_a_healthy_run_passes(healthy, ci):
    verdict = judge(healthy, ci)
    assert (verdict.result, verdict.exit_code) == ("pass", 0)
    assert verdict.headline == f"all {len(ci.objectives) - 2} objectives held"
    # Nothing to recover from.
    assert [outcome.kind for outcome in verdict.having("skipped")] == ["recovery", "recovery"]


def test_a_slow_packet_path_fails_and_the_message_names_figure_value_and_limit(ci):
    verdict = judge(simulated(packet_path_s=0.1), ci)
    assert (verdict.result, verdict.exit_code) == ("fail", 1)
    assert "speech reaches LiveAvatar at once" in _broken(verdict)
    (outcome,) = [one for one in verdict.broken if one.objective == "speech reaches LiveAvatar at once"]
    assert outcome.value == pytest.approx(104, abs=10)
    assert "first packet upstream p95 is 1" in outcome.message
    assert "direct's" in outcome.message
    assert f"limit {outcome.limit:.1f} ms" in outcome.message


def test_one_lost_byte_fails_and_the_message_names_session_and_byte(ci):
    verdict = judge(simulated(lost_utterances=1), ci)
    assert _broken(verdict) == {"every byte arrives once and in order"}
    assert "session s-0, utterance 0: differs from byte 0" in verdict.headline


def test_one_session_left_upstream_fails(ci):
    assert _broken(judge(simulated(left_upstream=1), ci)) == {"no session is left running"}


def test_an_error_that_no_fault_provoked_fails_and_one_that_a_fault_provoked_does_not(ci):
    assert judge(simulated(faults=((40.0, "sockets dropped"),)), ci).result == "pass"
    verdict = judge(simulated(errors=(("AUDIO_GAP", 1),)), ci)
    assert _broken(verdict) == {"no unexplained error"}
    assert "1 AUDIO_GAP" in verdict.headline


def test_a_starved_generator_voids_the_run_instead_of_failing_it(ci):
    verdict = judge(simulated(generator=STARVED, packet_path_s=0.3), ci)
    assert (verdict.result, verdict.exit_code) == ("void", 3)
    assert verdict.headline.startswith("generator saturated")
    assert "400 ms late at p99, limit 25.0 ms" in verdict.headline


@pytest.mark.parametrize("wrong", [{"lost_utterances": 1}, {"left_upstream": 1}])
def test_a_starved_generator_excuses_neither_lost_bytes_nor_leaks(ci, wrong):
    assert judge(simulated(generator=STARVED, **wrong), ci).result == "fail"


@pytest.mark.parametrize(
    ("health", "said"),
    [
        ({"lag_p99_ms": 26.0}, "woke 26.0 ms late"),
        ({"cpu_share": 0.91}, "91% of a core"),
        ({"core_steal": 0.26}, "26% of the machine"),
    ],
)
def test_each_sign_of_a_generator_at_its_limit_is_enough(healthy, ci, health, said):
    verdict = judge(replace(healthy, generator=replace(healthy.generator, **health)), ci)
    assert verdict.result == "void"
    assert said in verdict.saturated


def test_a_run_in_which_nothing_happened_is_void(ci):
    verdict = judge(simulated(duration_s=0.0), ci)
    assert verdict.result == "void"


def test_a_run_in_which_every_arrival_failed_is_a_failure_not_a_void_one(ci):
    empty = simulated(duration_s=0.0, errors=(("UNAVAILABLE", 50),))
    assert judge(empty, ci).result == "fail"


def test_integrity_that_nobody_checked_is_said_and_never_held(healthy, ci):
    del healthy  # its recorder is shared
    remote = replace(simulated(), embedded=False, samples=[], left_upstream=None)
    del remote.measured.counters["gateway", "utterances checked"]
    verdict = judge(remote, ci)
    assert verdict.result == "pass"
    skipped = {outcome.kind: outcome.message for outcome in verdict.having("skipped")}
    assert set(skipped) == {"integrity", "leaks", "cpu", "recovery"}
    assert "integrity not checked" in skipped["integrity"]
    assert any("integrity not checked" in note for note in verdict.notes)


def test_an_embedded_run_has_no_excuse_for_utterances_that_nobody_compared(ci):
    result = simulated()
    result.measured.counters["gateway", "utterances checked"] -= 1
    verdict = judge(result, ci)
    assert _broken(verdict) == {"every byte arrives once and in order"}
    assert "the others are unaccounted for" in verdict.headline


def test_of_two_relative_limits_the_more_generous_counts(healthy):
    figure = {"kind": "latency", "figure": "started", "percentile": 50.0}
    direct_ms = healthy.measured.series["direct", "started"].percentile_ms(50)
    added = _outcome(healthy, **figure, at_most_ratio_of_direct=1.1, at_most_ms_over_direct=500.0)
    assert added.limit == pytest.approx(direct_ms + 500, rel=0.01)
    ratio = _outcome(healthy, **figure, at_most_ratio_of_direct=9.0, at_most_ms_over_direct=1.0)
    assert ratio.limit == pytest.approx(9 * direct_ms, rel=0.01)


def test_without_direct_users_a_relative_limit_is_void():
    outcome = _outcome(simulated(direct=False), kind="latency", figure="started", at_most_ratio_of_direct=2.0)
    assert outcome.status == "void"
    assert "the direct users have only 0 values" in outcome.message


def test_too_few_values_are_void(healthy):
    outcome = _outcome(healthy, kind="latency", figure="attach", at_most_ms=1.0, at_least_values=100_000)
    assert outcome.status == "void"


def test_windows_before_warm_up_and_after_faults_can_be_left_out():
    stalled = simulated(stall=(40.0, 4.0), faults=((40.0, "gateway stopped"),))
    objective = {"kind": "latency", "figure": "first packet upstream", "at_most_ms": 100.0}
    assert _outcome(stalled, **objective).status == "broken"
    assert _outcome(stalled, **objective, settle_s=20.0).status == "held"
    assert _outcome(stalled, **objective, after_s=50.0).status == "held"


def test_counters_have_both_limits_and_quotients(healthy):
    measured = healthy.measured.counters
    utterances, sessions = (measured["gateway", name] for name in ("utterances", "sessions"))
    assert _outcome(healthy, kind="count", counter="sessions", at_least=sessions + 1.0).status == "broken"
    assert _outcome(healthy, kind="count", counter="sessions", at_most=sessions - 1.0).status == "broken"
    per = _outcome(healthy, kind="count", counter="utterances", per="sessions", at_least=1.0)
    assert per.value == pytest.approx(utterances / sessions)
    assert _outcome(healthy, kind="count", counter="utterances", per="underruns", at_most=1.0).status == "void"
    over = _outcome(healthy, kind="count", counter="utterances", at_most_over_direct=1.0)
    assert over.status == "broken"


def test_errors_can_be_chosen_by_reason_and_measured_against_arrivals():
    result = simulated(errors=(("RATE_LIMITED", 3), ("AUDIO_GAP", 1)), faults=((40.0, "sockets dropped"),))
    assert _outcome(result, kind="errors", besides=["RATE_LIMITED", "AUDIO_GAP"]).status == "held"
    assert _outcome(result, kind="errors", reasons=["AUDIO_GAP"]).value == 1
    assert _outcome(result, kind="errors", at_most_share_of_arrivals=0.5).status == "held"
    assert _outcome(result, kind="errors", provoked=True, at_most=4).status == "broken"


def test_cpu_per_second_of_audio_is_what_the_process_took_for_what_was_spoken():
    outcome = _outcome(simulated(cpu_ms_per_audio_s=9.0), kind="cpu", at_most_ms_per_audio_s=8.0)
    assert outcome.status == "broken"
    assert outcome.value == pytest.approx(9.0, rel=0.1)


@pytest.mark.parametrize(
    ("floor_ms", "value", "status"), [(4.0, 6.75, "held"), (3.0, 9.0, "broken"), (2.0, 13.5, "broken")]
)
def test_cpu_counts_as_on_the_machine_where_the_floor_costs_as_much(floor_ms, value, status):
    result = replace(
        simulated(cpu_ms_per_audio_s=9.0), floor=FloorCost(cpu_s=floor_ms / 1000 * 500, audio_s=500.0)
    )
    outcome = _outcome(result, kind="cpu", at_most_ms_per_audio_s=8.0, floor_ms_per_audio_s=3.0)
    assert outcome.status == status
    assert outcome.value == pytest.approx(value, rel=0.1)
    assert "bare server" in outcome.message


def test_cpu_counts_as_it_is_without_a_floor_or_before_the_floor_has_talked():
    for floor in (None, FloorCost(cpu_s=0.1, audio_s=0.0)):
        result = replace(simulated(cpu_ms_per_audio_s=9.0), floor=floor)
        outcome = _outcome(result, kind="cpu", at_most_ms_per_audio_s=8.0, floor_ms_per_audio_s=3.0)
        assert outcome.value == pytest.approx(9.0, rel=0.1)


def test_a_growing_process_breaks_and_a_noisy_one_does_not():
    objective = {"kind": "growth", "of": "memory", "at_most_per_hour": 6.0, "after_share": 0.1}
    assert _outcome(simulated(duration_s=600.0, utterances_per_s=0.2), **objective).status == "held"
    leaky = _outcome(simulated(duration_s=600.0, utterances_per_s=0.2, leak_mib_per_h=60.0), **objective)
    assert leaky.status == "broken"
    assert leaky.value == pytest.approx(60, rel=0.3)


def test_tasks_are_judged_by_the_looks_that_counted_them():
    objective = {"kind": "growth", "of": "tasks", "after_share": 0.333}
    assert _outcome(simulated(duration_s=600.0), **objective).status == "held"
    assert _outcome(simulated(duration_s=600.0, leaked_tasks_per_s=0.1), **objective).status == "broken"
    few = simulated(duration_s=20.0)
    assert _outcome(few, **objective).status == "void", "four looks say nothing"


def test_growth_is_judged_while_somebody_comes():
    objective = {"kind": "growth", "of": "memory", "after_share": 0.1}
    result = simulated(duration_s=300.0, utterances_per_s=0.2)
    last = result.samples[-1]
    after = [replace(last, at_s=305.0 + second, rss_bytes=last.rss_bytes + (second << 20)) for second in range(60)]
    longer = replace(result, samples=[*result.samples, *after])
    assert _outcome(longer, **objective).value == pytest.approx(_outcome(result, **objective).value)


def test_growth_that_the_noise_could_hide_is_void():
    short = simulated(duration_s=40.0)
    objective = {"kind": "growth", "of": "memory", "noise_at_most_per_hour": 0.1, "after_share": 0.75}
    assert _outcome(short, **objective, at_most_per_hour=1e9).status == "void"


def test_recovery_is_counted_from_the_fault_to_the_first_moment_from_which_the_limit_holds():
    stalled = simulated(stall=(60.0, 12.0), faults=((60.0, "emulator stopped"),), duration_s=150.0)
    objective = {"kind": "recovery", "figure": "first packet upstream", "at_most_ms": 500.0}
    outcome = _outcome(stalled, **objective, within_s=20.0)
    assert outcome.status == "held"
    assert outcome.value in {10.0, 15.0}
    assert _outcome(stalled, **objective, within_s=5.0).status == "broken"


def test_a_run_that_never_recovers_breaks():
    stalled = simulated(stall=(60.0, 90.0), faults=((60.0, "emulator stopped"),), duration_s=150.0)
    outcome = _outcome(stalled, kind="recovery", figure="ack delay", at_most_ms=500.0, within_s=20.0)
    assert outcome.status == "broken"
    assert "'emulator stopped' at 60 s" in outcome.message


@pytest.mark.parametrize(("came", "status"), [(True, "broken"), (False, "held")])
def test_after_a_fault_silence_is_bad_where_callers_came_and_not_where_nobody_did(came, status):
    """Nobody opens a session from 65 to 100 s: since none could, or since none came."""
    result = simulated(faults=((60.0, "tokens refused"),), duration_s=150.0)
    silent = range(13, 20)
    opened = result.measured.series["gateway", "session open"].by_window
    arrivals = result.measured.over_time["gateway", "arrivals"]
    for window in silent:
        opened.pop(window, None)
        arrivals.pop(window, None)
        if came:
            arrivals[window] = 1
    outcome = _outcome(result, kind="recovery", figure="session open", at_most_ms=500.0, within_s=30.0)
    assert outcome.status == status


def test_without_a_fault_there_is_nothing_to_recover_from(healthy):
    outcome = _outcome(healthy, kind="recovery", figure="ack delay", at_most_ms=500.0, within_s=20.0)
    assert outcome.status == "skipped"


@pytest.mark.parametrize(
    ("good", "expected_s"),
    [
        ({0: True, 1: True, 2: True, 3: True}, 0.0),
        ({0: True, 1: False, 2: True, 3: True, 4: True}, 8.0),
        ({0: False, 2: True, 3: True, 4: True}, 8.0),
        ({0: False, 1: True, 2: False, 3: True, 4: True, 5: True}, 13.0),
        ({0: False, 1: False}, None),
        ({}, None),
    ],
)
def test_a_silent_window_is_a_bad_one_and_a_short_relief_is_none(good, expected_s):
    assert _recovered_after_s(good, at_s=2.0, until_s=60.0, for_s=15.0) == expected_s


@settings(deadline=None, max_examples=25)
@given(limit_ms=st.floats(0.01, 1e5), percentile=st.floats(1, 100))
def test_a_latency_objective_breaks_exactly_when_the_percentile_is_above_the_limit(healthy, limit_ms, percentile):
    outcome = _outcome(healthy, kind="latency", figure="started", percentile=percentile, at_most_ms=limit_ms)
    true_ms = healthy.measured.series["gateway", "started"].percentile_ms(percentile)
    assert outcome.value == pytest.approx(true_ms, rel=0.002)
    assert (outcome.status == "broken") == (outcome.value > limit_ms)


_NOISY = [(5.0, 10.0), (15.0, 20.0)]
_SHARING = {"kind": "sharing", "tenant": "b", "figure": "started", "at_most_ratio_of_alone": 1.5, "after_s": 5.0}


def _shared(alone_s: float, beside_s: float, *, values: int = 100) -> RunResult:
    """Run of 20 s with a slow warm-up, in which another tenant floods from 5 to 10 s and from 15 to 20 s."""
    measured = Recorder(0.0)
    tenant = measured.of_tenant("b")
    for at_s, value_s in ((2.0, 9.0), (7.0, beside_s), (12.0, alone_s), (17.0, beside_s), (22.0, 9.0)):
        tenant.record("gateway", "started", value_s, at_mono_s=at_s, times=values)
    return replace(simulated(duration_s=0.0), measured=measured, noisy=_NOISY)


@pytest.mark.parametrize(("beside_s", "status"), [(0.2, "held"), (0.29, "held"), (0.31, "broken")])
def test_a_tenant_is_compared_with_itself_between_the_windows_of_a_flood(beside_s: float, status: str):
    outcome = _outcome(_shared(0.2, beside_s), **_SHARING)
    assert outcome.status == status
    assert outcome.value == pytest.approx(1000 * beside_s, rel=0.02)
    assert outcome.limit == pytest.approx(300, rel=0.02)
    assert f"({beside_s / 0.2:.2f} times" in outcome.message


def test_small_values_may_have_an_addition_instead_of_a_ratio():
    assert _outcome(_shared(0.002, 0.008), **_SHARING).status == "broken"
    assert _outcome(_shared(0.002, 0.008), **_SHARING, at_most_ms_over_alone=10.0).status == "held"


def test_a_run_without_a_flood_or_with_few_values_says_nothing_of_sharing():
    assert _outcome(_shared(0.2, 0.2, values=40), **_SHARING).status == "void"
    assert _outcome(replace(_shared(0.2, 0.2), noisy=[]), **_SHARING).status == "void"
    assert _outcome(_shared(0.2, 0.2), **{**_SHARING, "tenant": "nobody"}).status == "void"


def test_a_counter_of_one_tenant_is_judged_alone():
    result = _shared(0.2, 0.2)
    result.measured.count("gateway", "calls accepted", 100)
    for counter, number in (("calls accepted", 10), ("quota refusals", 90)):
        result.measured.of_tenant("a").count("gateway", counter, number)
    wanted = {"kind": "count", "counter": "quota refusals", "per": "calls accepted", "at_least": 1.0}
    outcome = _outcome(result, **wanted, tenant="a")
    assert (outcome.status, outcome.message) == ("held", "quota refusals per calls accepted of a is 9, at least 1")
    assert _outcome(result, **wanted).status == "broken"
    assert _outcome(result, **wanted, tenant="b").status == "void"


def test_one_long_standstill_of_the_generator_counts_where_parts_of_a_run_are_compared():
    stalled = replace(_shared(0.2, 0.2), generator=GeneratorHealth(
        lag_p99_ms=1, lag_max_ms=400, cpu_share=0.1, core_steal=0
    ))  # fmt: skip
    limits = GeneratorLimits()
    assert saturation(stalled, limits) == ""
    assert "once woke 400 ms late" in saturation(stalled, limits.model_copy(update={"lag_max_at_most_ms": 250.0}))
