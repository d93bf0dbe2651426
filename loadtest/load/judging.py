"""Verdict on a run, from its objectives and its generator's health. Pure."""

from dataclasses import replace
from typing import Final

from load.findings import find
from load.format import format_ms
from load.objectives import GeneratorLimits, ScenarioObjectives
from load.result import RunResult
from load.verdict import Outcome, Verdict

_SURVIVE_SATURATION: Final = {"integrity", "leaks"}
"""Kinds of objectives that a late generator cannot break: it loses no byte and leaks no session."""


def judge(result: RunResult, objectives: ScenarioObjectives) -> Verdict:
    """Judge every objective, then the generator."""
    saturated = saturation(result, objectives.generator)
    outcomes = []
    for objective in objectives.objectives:
        finding = find(objective, result)
        if saturated and objective.kind not in _SURVIVE_SATURATION and finding.status != "skipped":
            finding = replace(
                finding,
                status="void",
                message=f"{finding.message} (generator saturated)",
            )
        outcomes.append(
            Outcome(
                objective=objective.name,
                kind=objective.kind,
                why=objective.why,
                status=finding.status,
                message=finding.message,
                value=finding.value,
                limit=finding.limit,
                unit=finding.unit,
                figure=getattr(objective, "figure", ""),
                percentile=getattr(objective, "percentile", None),
            )
        )
    return Verdict(scenario=result.scenario, outcomes=tuple(outcomes), saturated=saturated, notes=_notes(result))


def saturation(result: RunResult, limits: GeneratorLimits) -> str:
    """Return why the generator was the bottleneck; empty when it was not."""
    health = result.generator
    reasons = []
    if health.lag_p99_ms > limits.lag_p99_at_most_ms:
        reasons.append(
            f"its event loop woke {format_ms(health.lag_p99_ms)} late at p99, "
            f"limit {format_ms(limits.lag_p99_at_most_ms)}"
        )
    if limits.lag_max_at_most_ms is not None and health.lag_max_ms > limits.lag_max_at_most_ms:
        reasons.append(
            f"its event loop once woke {format_ms(health.lag_max_ms)} late, "
            f"limit {format_ms(limits.lag_max_at_most_ms)}"
        )
    if health.cpu_share > limits.cpu_share_at_most:
        reasons.append(
            f"its busiest process took {health.cpu_share:.0%} of a core, limit {limits.cpu_share_at_most:.0%}"
        )
    if health.core_steal > limits.core_steal_at_most:
        reasons.append(
            f"the hypervisor gave {health.core_steal:.0%} of the machine to others, "
            f"limit {limits.core_steal_at_most:.0%}"
        )
    return "; ".join(reasons)


def _notes(result: RunResult) -> tuple[str, ...]:
    notes = []
    if not result.measured.counters.get(("gateway", "utterances checked")):
        notes.append("integrity not checked: no recording of the emulator's was compared with what was spoken")
    if result.left_upstream is None:
        notes.append("leaks not checked: no emulator could be asked for the sessions left upstream")
    if not result.samples:
        notes.append("CPU and memory not measured: the gateway's process is not on this machine")
    return tuple(notes)
