"""Objectives of scenarios, read from `objectives.toml`.

Values only; `findings.py` judges them. A new kind is a class here, a function there, and a row in
`docs/load-testing.md`.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from load.figures import CLOSED_LOOP, COUNTERS, FIGURES

DEFAULT_FILE: Final = Path(__file__).parents[1] / "objectives.toml"


class ObjectivesError(ValueError):
    """Invalid objectives; the message names every problem, with a suggestion."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))
        self.problems = tuple(problems)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Objective(_Strict):
    name: str = Field(min_length=5, max_length=80)
    """Claim that holds, as reports and CI show it."""
    why: str = Field(min_length=20)
    """Sentence that names who suffers when the objective breaks, and how."""


class Latency(_Objective):
    """A percentile of a figure stays under a limit: an absolute one, or one made from the direct users' value.

    With both `at_most_ratio_of_direct` and `at_most_ms_over_direct` the more generous counts: a ratio alone is
    unfair to small values, an addition alone to large ones.
    """

    kind: Literal["latency"]
    figure: str
    percentile: float = Field(default=99.0, gt=0, le=100)
    at_most_ms: float | None = Field(default=None, gt=0)
    at_most_ratio_of_direct: float | None = Field(default=None, gt=0)
    at_most_ms_over_direct: float | None = Field(default=None, ge=0)
    after_s: float = Field(default=0.0, ge=0)
    """Leave out values from before this time, seconds into the run."""
    settle_s: float = Field(default=0.0, ge=0)
    """Leave out this many seconds after each fault of the timeline; `recovery` objectives judge those."""
    at_least_values: int = Field(default=20, ge=1)
    """Fewest values; with fewer the objective is void."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        _check_figure(self.figure)
        relative = self.at_most_ratio_of_direct is not None or self.at_most_ms_over_direct is not None
        if (self.at_most_ms is not None) == relative:
            raise ValueError(
                "give either 'at_most_ms', or 'at_most_ratio_of_direct' and/or 'at_most_ms_over_direct'"
            )
        return self


class Count(_Objective):
    """A counter, or its quotient by another, stays inside limits."""

    kind: Literal["count"]
    counter: str
    per: str | None = None
    """Divide by this counter."""
    tenant: str | None = None
    """Count for this tenant only."""
    at_most: float | None = Field(default=None, ge=0)
    at_least: float | None = Field(default=None, ge=0)
    at_most_over_direct: float | None = Field(default=None, ge=0)
    """Highest excess over the direct users' value."""

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        for counter in (self.counter, self.per):
            if counter is not None and counter not in COUNTERS:
                raise ValueError(f"no counter is called {counter!r}{_did_you_mean(counter, COUNTERS)}")
        if self.at_most is None and self.at_least is None and self.at_most_over_direct is None:
            raise ValueError("give 'at_most', 'at_least' or 'at_most_over_direct'")
        return self


class Sharing(_Objective):
    """A percentile of one tenant's figure is hardly higher while another tenant floods the gateway.

    With both limits the more generous counts, as in `Latency`.
    """

    kind: Literal["sharing"]
    tenant: str
    figure: str
    percentile: float = Field(default=99.0, gt=0, le=100)
    at_most_ratio_of_alone: float = Field(gt=0)
    """Highest value beside the flood, as a multiple of that in the windows without it."""
    at_most_ms_over_alone: float = Field(default=0.0, ge=0)
    after_s: float = Field(default=0.0, ge=0)
    """Leave out values from before this time, seconds into the run."""
    at_least_values: int = Field(default=100, ge=1)
    """Fewest values of each kind of window; with fewer the objective is void."""

    @model_validator(mode="after")
    def _figure_exists(self) -> Self:
        _check_figure(self.figure)
        return self


class Errors(_Objective):
    """Errors, by reason. Those that the run's own faults provoked are counted only where `provoked` is true."""

    kind: Literal["errors"]
    reasons: tuple[str, ...] = Field(default=(), strict=False)
    """Reasons to count; all when empty."""
    besides: tuple[str, ...] = Field(default=(), strict=False)
    """Reasons not to count."""
    provoked: bool = False
    at_most: int = Field(default=0, ge=0)
    at_most_share_of_arrivals: float | None = Field(default=None, ge=0, le=1)
    """Replaces `at_most` where load makes some errors normal."""

    @model_validator(mode="after")
    def _one_filter(self) -> Self:
        if self.reasons and self.besides:
            raise ValueError("give 'reasons' or 'besides', not both")
        return self


class Integrity(_Objective):
    """Every utterance came upstream byte for byte. Judged even when the generator was saturated."""

    kind: Literal["integrity"]
    checked_share_at_least: float = Field(default=1.0, ge=0, le=1)
    """Share of the ended utterances whose bytes must have been compared."""


class Leaks(_Objective):
    """No session is left active upstream, and billed. Judged even when the generator was saturated."""

    kind: Literal["leaks"]
    at_most: int = Field(default=0, ge=0)


class Cpu(_Objective):
    """CPU of the gateway's process per second of audio."""

    kind: Literal["cpu"]
    at_most_ms_per_audio_s: float = Field(gt=0)
    floor_ms_per_audio_s: float | None = Field(default=None, gt=0)
    """Cost of the floor on the machine on which the limit was set. A floor then runs beside the gateway, and the
    limit is for a machine that is as fast."""


class Growth(_Objective):
    """The gateway's process does not grow: the slope of a straight line through the samples, less its noise."""

    kind: Literal["growth"]
    of: Literal["memory", "threads", "open files", "tasks"]
    """Memory counts in MiB."""
    at_most_per_hour: float = Field(default=0.0, ge=0)
    """Highest growth; the noise is allowed on top."""
    noise_at_most_per_hour: float | None = Field(default=None, gt=0)
    """A band wider than this on either side could hide a leak, and the objective is void."""
    after_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the run at its start that is left out, in which the gateway warms up."""


class Recovery(_Objective):
    """After each fault of the timeline a figure is soon as it should be, and stays so for a while."""

    kind: Literal["recovery"]
    figure: str
    percentile: float = Field(default=95.0, gt=0, le=100)
    at_most_ms: float = Field(gt=0)
    within_s: float = Field(gt=0)
    """From the fault to the first moment from which the limit holds."""
    for_s: float = Field(default=15.0, gt=0)
    """Time for which the limit must hold, or until the next fault or the end."""

    @model_validator(mode="after")
    def _figure_exists(self) -> Self:
        _check_figure(self.figure)
        return self


Objective = Latency | Count | Sharing | Errors | Integrity | Leaks | Cpu | Growth | Recovery
_KINDS: Final[Mapping[str, type[BaseModel]]] = {
    get_args(kind.model_fields["kind"].annotation)[0]: kind for kind in get_args(Objective)
}


class GeneratorLimits(_Strict):
    """Limits of the generator; beyond them the run says nothing of the gateway's speed."""

    lag_p99_at_most_ms: float = Field(default=25.0, gt=0)
    """Highest lateness of its event loop."""
    cpu_share_at_most: float = Field(default=0.9, gt=0, le=1)
    """Share of a core that its busiest process may take."""
    core_steal_at_most: float = Field(default=0.25, gt=0, le=1)
    """Share of the machine that the hypervisor may give to others."""
    lag_max_at_most_ms: float | None = Field(default=None, gt=0)
    """Longest single lateness of its event loop, for runs whose parts are compared; None for any."""


class ScenarioObjectives(_Strict):
    """Objectives of a scenario."""

    scenario: str
    objectives: tuple[Objective, ...]
    generator: GeneratorLimits = GeneratorLimits()

    @property
    def with_floor(self) -> bool:
        """True if an objective is judged by a floor, which then runs beside the gateway."""
        return any(isinstance(one, Cpu) and one.floor_ms_per_audio_s is not None for one in self.objectives)


class _Scenario(_Strict):
    sets: list[str] = []
    generator: GeneratorLimits | None = None
    objectives: list[Annotated[Objective, Field(discriminator="kind")]] = []


class _File(_Strict):
    generator: GeneratorLimits = GeneratorLimits()
    sets: dict[str, list[Annotated[Objective, Field(discriminator="kind")]]] = {}
    scenarios: dict[str, _Scenario]


class Objectives:
    """Objectives of all scenarios. A scenario's own objective replaces that of a set with the same name."""

    def __init__(self, file: _File, source: str) -> None:
        self._file = file
        self._source = source

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Scenarios that have objectives."""
        return tuple(self._file.scenarios)

    def of(self, scenario: str) -> ScenarioObjectives:
        """Gather a scenario's objectives.

        Raises:
            ObjectivesError: the scenario has none; a run that nothing can break is no test.
        """
        found = self._file.scenarios.get(scenario)
        if found is None:
            hint = _did_you_mean(scenario, self._file.scenarios)
            problem = (
                f"scenario {scenario!r} has no objectives{hint}; "
                f"add a table [scenarios.{scenario}] with sets = [...] or objectives of its own"
            )
            raise ObjectivesError(self._source, [problem])
        gathered = {
            objective.name: objective
            for objectives in (*(self._file.sets[name] for name in found.sets), found.objectives)
            for objective in objectives
        }
        return ScenarioObjectives(
            scenario=scenario,
            objectives=tuple(gathered.values()),
            generator=found.generator or self._file.generator,
        )


def read_objectives(path: Path = DEFAULT_FILE) -> Objectives:
    """Read a file.

    Raises:
        ObjectivesError: the file is invalid.
        OSError: it cannot be read.
    """
    return parse_objectives(path.read_text(), source=path.name)


def parse_objectives(text: str, *, source: str = "objectives.toml") -> Objectives:
    """Read the text of a file.

    Raises:
        ObjectivesError: it is no TOML, or has an unknown key, kind, figure, counter or set, or a name twice.
    """
    try:
        file = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ObjectivesError(source, [str(error)]) from error
    except ValidationError as error:
        raise ObjectivesError(source, [_problem(one) for one in error.errors()]) from error
    if problems := _inconsistencies(file):
        raise ObjectivesError(source, problems)
    return Objectives(file, source)


def _inconsistencies(file: _File) -> list[str]:
    problems = []
    for where, objectives in (
        *((f"sets.{name}", objectives) for name, objectives in file.sets.items()),
        *((f"scenarios.{name}", scenario.objectives) for name, scenario in file.scenarios.items()),
    ):
        names = [objective.name for objective in objectives]
        problems += [
            f"{where}: two objectives are called {name!r}; rename one"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
    for name, scenario in file.scenarios.items():
        problems += [
            f"scenarios.{name}: no set is called {wanted!r}{_did_you_mean(wanted, file.sets)}"
            for wanted in scenario.sets
            if wanted not in file.sets
        ]
        if not scenario.sets and not scenario.objectives:
            problems.append(f"scenarios.{name}: it has neither sets nor objectives, so nothing could break it")
    return problems


def _check_figure(name: str) -> None:
    if name not in FIGURES:
        raise ValueError(f"no figure is called {name!r}{_did_you_mean(name, FIGURES)}")
    if FIGURES[name].phase == "lifetime":
        raise ValueError(f"{name!r} is a lifetime: how long something lived says nothing of its speed")
    if name.endswith(CLOSED_LOOP):
        raise ValueError(f"{name!r} counts as closed loops do, which hides what this suite is to find")


def _problem(error: Any) -> str:
    """Return a line for one of pydantic's errors, with its place, the problem, and a suggestion."""
    location = list(error["loc"])
    kind = next((part for part in location if isinstance(part, str) and part in _KINDS), None)
    where = ".".join(str(part + 1) if isinstance(part, int) else part for part in location if part != kind)
    if error["type"] == "extra_forbidden":
        known: Mapping[str, object] = _fields_around(location, kind)
        unknown = str(location[-1])
        return f"{where}: unknown key{_did_you_mean(unknown, known)}; known are {', '.join(known)}"
    if error["type"] == "union_tag_invalid":
        return f"{where}: no kind is called {error['ctx']['tag']!r}; known are {', '.join(_KINDS)}"
    if error["type"] == "union_tag_not_found":
        return f"{where}: 'kind' is missing; known are {', '.join(_KINDS)}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _fields_around(location: list[str | int], kind: str | None) -> Mapping[str, object]:
    if kind is not None:
        return _KINDS[kind].model_fields
    if "generator" in location[:-1]:
        return GeneratorLimits.model_fields
    return _Scenario.model_fields if location[0] == "scenarios" else _File.model_fields


def _did_you_mean(word: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
