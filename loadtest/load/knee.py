"""Search for the knee: the most sessions that can talk at once before an objective breaks.

It raises the load by a factor until an objective breaks, then halves the gap. A broken step is repeated before it
counts: other work on a machine can make a gateway slower, but nothing can make it faster than it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import numpy as np

from load.judging import judge
from load.objectives import ScenarioObjectives
from load.result import RunResult, Sample
from load.usage import cpu_s, talking_s
from load.verdict import Verdict

Step = Literal["held", "broke", "void"]
Limit = Literal["objective", "generator", "range"]
"""Reason for the end of the search: a broken objective, a generator at its limit, or the end of the range."""

FIGURE: Final = "first packet upstream"
"""Figure that is compared with the direct users: arrival of speech, independent of any playback clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRange:
    """Range and steps of the search."""

    start: int = 25
    """Sessions of the first step."""
    most: int = 2000
    """Most sessions of a step."""
    growth: float = 1.6
    """Factor from step to step, until an objective breaks. Higher finds the knee sooner, and more roughly."""
    resolution: float = 0.08
    """The search ends when what held and what broke are this close, as a share of what held."""
    attempts: int = 2
    """Runs that must break before a step counts as broken."""

    def __post_init__(self) -> None:
        """Refuse a search that would never end or never start.

        Raises:
            ValueError: a value is out of its range.
        """
        if not 1 <= self.start <= self.most:
            raise ValueError(f"start is {self.start}; it must be 1 to most, which is {self.most}")
        if self.growth <= 1 or not 0 < self.resolution < 1 or self.attempts < 1:
            raise ValueError("growth must be above 1, resolution between 0 and 1, attempts at least 1")


@dataclass(slots=True)
class Search:
    """The state of one search. Invariant: `held` < `beyond`, and everything tried lies outside of the gap."""

    where: SearchRange
    held: int = 0
    """The most sessions with which everything held; 0 when nothing has yet."""
    beyond: int | None = None
    """The fewest with which it did not."""
    limit: Limit = "range"
    _attempts: list[Step] = field(default_factory=list)

    def next(self) -> int | None:
        """Return the number of sessions to try; None when the knee is found."""
        if self.beyond is None:
            if self.held >= self.where.most:
                return None
            grown = max(self.held + 1, round(self.held * self.where.growth))
            return min(self.where.most, grown) if self.held else self.where.start
        gap = self.beyond - self.held
        if gap <= max(1, self.where.resolution * self.held):
            return None
        return self.held + gap // 2

    def tried(self, step: Step) -> bool:
        """Record the result of a step of `next()` sessions; return False if the same step must be repeated."""
        sessions = self.next()
        if sessions is None:
            raise ValueError("the search is over")
        self._attempts.append(step)
        if step == "held":
            self.held = sessions
        elif len(self._attempts) < self.where.attempts:
            return False
        else:
            self.beyond = sessions
            # If the generator was at its limit even once, the gateway's limit is unknown.
            self.limit = "generator" if "void" in self._attempts else "objective"
        self._attempts.clear()
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Run of the search."""

    sessions: int
    """Sessions of the step."""
    talking: float
    """Sessions that talked at once, for at least a quarter of the run."""
    step: Step
    why: str
    """Broken objective, or reason for a void run; empty when all held."""
    core_share: float | None
    """Share of one core that the gateway took at that load."""
    cpu_ms_per_session_s: float | None
    """CPU milliseconds of the gateway for each second that a session talked, over the whole run."""
    p50_ms: float
    p99_ms: float
    added_p50_ms: float | None
    """More than the direct users of the same run."""
    added_p99_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Knee:
    """Result of a search."""

    chunk_ms: int
    limit: Limit
    points: tuple[Point, ...]
    gateway_cores: int = 1
    """Cores that the gateway had."""

    @property
    def best(self) -> Point | None:
        """The run with the most talking sessions in which everything held."""
        held = [point for point in self.points if point.step == "held"]
        return max(held, key=lambda point: (point.sessions, point.talking), default=None)

    @property
    def talking_per_core(self) -> float:
        """Concurrent talking sessions per core of the gateway; 0 when nothing held."""
        return self.best.talking / self.gateway_cores if self.best else 0.0

    @property
    def broke(self) -> Point | None:
        """The run with the fewest sessions beyond the knee."""
        held = self.best.sessions if self.best else 0
        beyond = [point for point in self.points if point.step != "held" and point.sessions > held]
        return min(beyond, key=lambda point: point.sessions, default=None)

    @property
    def headline(self) -> str:
        """Result in a sentence."""
        if self.best is None:
            why = self.broke.why if self.broke else "nothing was tried"
            return f"{self.chunk_ms}-ms chunks: not even the first step held: {why}"
        found = f"{self.chunk_ms}-ms chunks: {self.talking_per_core:.0f} talking sessions per gateway core"
        match self.limit:
            case "objective":
                return f"{found}; with {self.broke.sessions if self.broke else 0} sessions: {self._why}"
            case "generator":
                return f"{found} at least; then the generator gave out, so the knee lies above: {self._why}"
            case "range":
                return f"{found} at least; nothing broke up to the most that were to be tried"

    @property
    def _why(self) -> str:
        return self.broke.why if self.broke else ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "chunk_ms": self.chunk_ms,
            "limit": self.limit,
            "gateway_cores": self.gateway_cores,
            "talking_per_core": round(self.talking_per_core, 1),
            "headline": self.headline,
            "points": [asdict(point) for point in self.points],
        }


def find_knee(
    run: Callable[[int, int], RunResult],
    *,
    objectives: ScenarioObjectives,
    chunk_ms: int,
    where: SearchRange | None = None,
    gateway_cores: int = 1,
    on_point: Callable[[Point], None] = lambda _: None,
) -> Knee:
    """Search with real runs.

    Args:
        run: Makes a run with a number of talking sessions and chunks of a number of milliseconds.
        objectives: What must hold.
        chunk_ms: Chunk size of the callers.
        where: Where to look.
        gateway_cores: Cores that the gateway has.
        on_point: Called after each run.
    """
    search, points = Search(where or SearchRange()), list[Point]()
    while (sessions := search.next()) is not None:
        point = measured(sessions, result := run(sessions, chunk_ms), judge(result, objectives))
        points.append(point)
        on_point(point)
        search.tried(point.step)
    return Knee(chunk_ms=chunk_ms, limit=search.limit, points=tuple(points), gateway_cores=gateway_cores)


def measured(sessions: int, result: RunResult, verdict: Verdict) -> Point:
    """Return the point of one run."""
    steps: dict[str, Step] = {"pass": "held", "fail": "broke", "void": "void"}
    mine, direct = (result.measured.series.get((system, FIGURE)) for system in ("gateway", "direct"))
    p50, p99 = (mine.percentile_ms(rank) if mine else 0.0 for rank in (50, 99))
    added: Sequence[float | None] = (None, None)
    if mine is not None and direct is not None and direct.count:
        added = (p50 - direct.percentile_ms(50), p99 - direct.percentile_ms(99))
    used_s, talked_s = cpu_s(result.samples), talking_s(result.samples)
    talking, share = _plateau(result.samples)
    return Point(
        sessions=sessions,
        talking=talking,
        step=steps[verdict.result],
        why="" if verdict.result == "pass" else verdict.headline,
        core_share=share,
        cpu_ms_per_session_s=1000 * used_s / talked_s if used_s is not None and talked_s else None,
        p50_ms=p50,
        p99_ms=p99,
        added_p50_ms=added[0],
        added_p99_ms=added[1],
    )


def _plateau(samples: Sequence[Sample]) -> tuple[float, float | None]:
    """Return the sessions that talked at once for a quarter of the run, and the share of a core meanwhile."""
    if len(samples) < 2:
        return 0.0, None
    talking = np.array([sample.talking for sample in samples], dtype=float)
    level = float(np.percentile(talking, 75))
    times, spent = np.array([sample.at_s for sample in samples]), np.array([sample.cpu_s for sample in samples])
    full = talking[1:] >= 0.9 * level
    passed_s = float(np.diff(times)[full].sum())
    return level, float(np.diff(spent)[full].sum()) / passed_s if passed_s else None
