"""Comparison of two runs: differences with confidence intervals instead of bare percentages.

Windows of the run are resampled, because values inside a window resemble each other: a hundred acks that waited
for the same pause are one observation, not a hundred. A run's direct users are resampled with the same windows and
serve as control: if they became slower too, the machine became slower, not the gateway.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from load.figures import CLOSED_LOOP, FIGURES, WINDOW_S, Series, System
from load.judging import saturation
from load.objectives import GeneratorLimits
from load.result import RunResult, Sample
from load.spread import Spread
from load.usage import AUDIO_BYTES_PER_S

Change = Literal["regressed", "improved", "no difference shown", "not comparable"]
EXIT_CODES: Final[dict[Change, int]] = {
    "improved": 0,
    "no difference shown": 0,
    "regressed": 1,
    "not comparable": 3,
}
RANKS: Final = (50.0, 90.0, 99.0)
CONFIDENCE: Final = 0.95
"""Probability that all intervals hold the true differences; each interval has its part of the error."""
RESAMPLES: Final = 5000
_LEAST_WINDOWS: Final = 8
_LEAST_BEYOND: Final = 5
"""Values that must lie beyond a percentile for it to be one, and not the largest value by another name."""
_SMALLEST_SHARE: Final = 0.05
_SMALLEST_MS: Final = 1.0
"""Differences below both of these are harmless, however certain they are."""
_GENERATORS_OWN: Final = {"chunk lateness", "deferred"}
_CHUNK: Final = 250
_CPU: Final = "CPU per second of audio"
_MAY_DIFFER: Final = {"commit", "load before", "seed"}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Difference of a figure at a percentile between two runs, in milliseconds."""

    what: str
    before_ms: float
    now_ms: float
    difference_ms: float
    """Now less before; with a control, less the control's own difference."""
    low_ms: float
    high_ms: float
    controlled: bool
    """True if the direct users' difference was subtracted."""
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs, compared."""

    differences: tuple[Difference, ...] = ()
    obstacles: tuple[str, ...] = ()
    """Reasons why the runs cannot be compared."""
    warnings: tuple[str, ...] = ()
    """Other differences between the runs, which may be the cause."""
    resamples: int = RESAMPLES
    seed: int = 1

    @property
    def change(self) -> Change:
        """Regressed if any figure is."""
        changes = {difference.change for difference in self.differences}
        if self.obstacles or not changes:
            return "not comparable"
        order: tuple[Change, ...] = ("regressed", "improved", "no difference shown")
        return next(change for change in order if change in changes)

    @property
    def exit_code(self) -> int:
        """0 unless something regressed (1) or nothing can be said (3)."""
        return EXIT_CODES[self.change]

    @property
    def headline(self) -> str:
        """The comparison in a sentence."""
        if self.change == "not comparable":
            return "; ".join(self.obstacles) or "no figure has enough values in both runs"
        found = [difference for difference in self.differences if difference.change == self.change]
        if self.change == "no difference shown":
            return f"none of {len(self.differences)} figures differs by more than chance and {_SMALLEST_SHARE:.0%}"
        first = max(found, key=lambda one: abs(one.difference_ms) / max(one.before_ms, _SMALLEST_MS))
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return (
            f"{first.what} {self.change} by {abs(first.difference_ms):.3g} ms "
            f"({first.low_ms:+.3g} to {first.high_ms:+.3g}){more}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "change": self.change,
            "exit_code": self.exit_code,
            "headline": self.headline,
            "confidence": CONFIDENCE,
            "resamples": self.resamples,
            "seed": self.seed,
            "obstacles": list(self.obstacles),
            "warnings": list(self.warnings),
            "differences": [asdict(difference) for difference in self.differences],
        }


def compare(
    before: RunResult,
    now: RunResult,
    *,
    limits: GeneratorLimits | None = None,
    resamples: int = RESAMPLES,
    seed: int = 1,
) -> Comparison:
    """Compare two runs of one scenario, figure by figure.

    The intervals hold together with `CONFIDENCE`: each is widened for their number (Bonferroni), since of twenty
    bare 95 % intervals one would cry wolf. They know the chance inside two runs, not what differs between days.
    """
    obstacles = _obstacles(before, now, limits or GeneratorLimits())
    warnings = _warnings(before, now)
    if obstacles:
        return Comparison(obstacles=obstacles, warnings=warnings, resamples=resamples, seed=seed)
    rng = np.random.default_rng(seed)
    drawn = [_Resampled(result, rng, resamples) for result in (before, now)]
    candidates = [
        (name, rank)
        for name in FIGURES
        if _is_gateways(name)
        for rank in RANKS
        if all(one.knows("gateway", name, rank) for one in drawn)
    ]
    cpu = [_cpu_by_window(result) for result in (before, now)]
    comparisons = len(candidates) + all(one is not None for one in cpu)
    tail = (1 - CONFIDENCE) / max(1, comparisons) / 2
    differences = [
        difference
        for name in dict.fromkeys(name for name, _ in candidates)
        for difference in _figure_differences(name, drawn, tail)
    ]
    if cpu[0] is not None and cpu[1] is not None:
        differences.append(_cpu_difference(cpu[0], cpu[1], rng, resamples, tail))
    return Comparison(differences=tuple(differences), warnings=warnings, resamples=resamples, seed=seed)


class _Resampled:
    """Run whose windows are drawn again, with the same draws for all its series."""

    def __init__(self, result: RunResult, rng: np.random.Generator, resamples: int) -> None:
        self._series = result.measured.series
        self._windows = sorted(_full_windows(result))
        count = len(self._windows)
        self._weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)

    def knows(self, system: System, figure: str, rank: float) -> bool:
        """Return whether enough values lie beyond a percentile."""
        series = self._series.get((system, figure))
        return series is not None and series.count * (1 - rank / 100) >= _LEAST_BEYOND

    def percentiles(self, system: System, figure: str) -> tuple[Floats, Floats]:
        """Return percentiles in milliseconds, a row for each of `RANKS`: as measured, and in each resample."""
        values_ms, counts = _matrix(self._series[system, figure], self._windows)
        measured = _percentiles(values_ms, counts.sum(axis=0, keepdims=True))[:, 0]
        drawn = [
            _percentiles(values_ms, self._weights[start : start + _CHUNK] @ counts)
            for start in range(0, len(self._weights), _CHUNK)
        ]
        return measured, np.concatenate(drawn, axis=1)


def _figure_differences(name: str, drawn: list[_Resampled], tail: float) -> list[Difference]:
    (before, drawn_before), (now, drawn_now) = (one.percentiles("gateway", name) for one in drawn)
    difference, differences = now - before, drawn_now - drawn_before
    control, controls = np.zeros_like(difference), np.zeros_like(differences)
    controlled = [all(one.knows("direct", name, rank) for one in drawn) for rank in RANKS]
    if any(controlled):
        (was, were), (is_now, are) = (one.percentiles("direct", name) for one in drawn)
        control[controlled], controls[controlled] = (is_now - was)[controlled], (are - were)[controlled]
    return [
        _judged(
            f"{name} p{rank:g}",
            float(before[at]),
            float(now[at]),
            float(difference[at] - control[at]),
            differences[at] - controls[at],
            tail=tail,
            controlled=controlled[at],
        )
        for at, rank in enumerate(RANKS)
        if all(one.knows("gateway", name, rank) for one in drawn)
    ]


def _judged(
    what: str, before: float, now: float, difference: float, differences: Floats, *, tail: float, controlled: bool
) -> Difference:
    low, high = (float(np.nanquantile(differences, at)) for at in (tail, 1 - tail))
    smallest = max(_SMALLEST_SHARE * before, _SMALLEST_MS if what != _CPU else 0.0)
    change: Change = "no difference shown"
    if low > smallest:
        change = "regressed"
    elif high < -smallest:
        change = "improved"
    return Difference(
        what=what,
        before_ms=before,
        now_ms=now,
        difference_ms=difference,
        low_ms=low,
        high_ms=high,
        controlled=controlled,
        change=change,
    )


def _cpu_difference(
    before: tuple[Floats, Floats],
    now: tuple[Floats, Floats],
    rng: np.random.Generator,
    resamples: int,
    tail: float,
) -> Difference:
    measured, drawn = [], []
    for cpu_s, audio_s in (before, now):
        weights = rng.multinomial(len(cpu_s), np.full(len(cpu_s), 1 / len(cpu_s)), size=resamples)
        measured.append(1000 * float(cpu_s.sum() / audio_s.sum()))
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn.append(1000 * (weights @ cpu_s) / (weights @ audio_s))
    return _judged(
        _CPU, measured[0], measured[1], measured[1] - measured[0], drawn[1] - drawn[0], tail=tail, controlled=False
    )


def _cpu_by_window(result: RunResult) -> tuple[Floats, Floats] | None:
    """Return the seconds of CPU and of audio of each window that the samples cover."""
    spoken = result.measured.over_time.get(("gateway", "audio bytes"), {})
    windows = [window for window in sorted(_full_windows(result)) if _covered(result.samples, window)]
    audio_s = np.array([spoken.get(window, 0) / AUDIO_BYTES_PER_S for window in windows])
    if len(windows) < _LEAST_WINDOWS or not audio_s.any():
        return None
    times, cpu = [one.at_s for one in result.samples], [one.cpu_s for one in result.samples]
    edges = np.interp([[window * WINDOW_S, (window + 1) * WINDOW_S] for window in windows], times, cpu)
    return edges[:, 1] - edges[:, 0], audio_s


def _covered(samples: list[Sample], window: int) -> bool:
    return bool(samples) and samples[0].at_s <= window * WINDOW_S and (window + 1) * WINDOW_S <= samples[-1].at_s


def _matrix(series: Series, windows: list[int]) -> tuple[Floats, Floats]:
    """Return the distinct values in milliseconds, and the count of each in each window."""
    spreads = [
        Spread.of((series.by_window[window],)) if window in series.by_window else Spread.of(())
        for window in windows
    ]
    values_ms = np.unique(np.concatenate([spread.values_ms for spread in spreads]))
    counts = np.zeros((len(windows), len(values_ms)))
    for row, spread in zip(counts, spreads, strict=True):
        row[np.searchsorted(values_ms, spread.values_ms)] = spread.counts
    return values_ms, counts


def _percentiles(values_ms: Floats, counts: Floats) -> Floats:
    """Return the percentile of each row of counts for each of `RANKS`; NaN for a row without values."""
    reached = np.cumsum(counts, axis=1)
    totals = reached[:, -1]
    found = []
    for rank in RANKS:
        targets = np.maximum(1, np.floor(rank * totals / 100 + 0.5))
        places = (reached < targets[:, None]).sum(axis=1).clip(0, len(values_ms) - 1)
        found.append(np.where(totals > 0, values_ms[places], math.nan))
    return np.array(found)


def _full_windows(result: RunResult) -> set[int]:
    """Return the windows in which any session spoke."""
    series = result.measured.series.items()
    return {window for (_, name), one in series if _is_gateways(name) for window in one.by_window}


def _is_gateways(name: str) -> bool:
    """Return whether a figure measures the gateway's speed."""
    return FIGURES[name].phase != "lifetime" and name not in _GENERATORS_OWN and not name.endswith(CLOSED_LOOP)


def _obstacles(before: RunResult, now: RunResult, limits: GeneratorLimits) -> tuple[str, ...]:
    obstacles = []
    if before.scenario != now.scenario:
        obstacles.append(f"the scenarios differ: {before.scenario!r} before, {now.scenario!r} now")
    if before.embedded != now.embedded:
        obstacles.append("one run had the gateway on this machine, the other had not")
    for which, result in (("before", before), ("now", now)):
        if reason := saturation(result, limits):
            obstacles.append(f"the generator was saturated {which}: {reason}")
        if (windows := len(_full_windows(result))) < _LEAST_WINDOWS:
            obstacles.append(
                f"the run {which} has {windows} windows of {WINDOW_S} s, {_LEAST_WINDOWS} are needed; run longer"
            )
    return tuple(obstacles)


def _warnings(before: RunResult, now: RunResult) -> tuple[str, ...]:
    warnings = []
    if not math.isclose(before.duration_s, now.duration_s, rel_tol=0.2):
        warnings.append(f"the runs lasted {before.duration_s:.0f} s and {now.duration_s:.0f} s")
    if not before.embedded and before.target != now.target:
        warnings.append(f"the target was {before.target} and is {now.target}")
    environments: tuple[Mapping[str, str], ...] = (before.environment, now.environment)
    for name in sorted(set(environments[0]) | set(environments[1])):
        was, is_now = (environment.get(name, "unknown") for environment in environments)
        if was != is_now and name not in _MAY_DIFFER:
            warnings.append(f"{name} was {was} and is {is_now}")
    return tuple(warnings)
