"""Result of a simulation: waits, refusals, credits, and the use of slots over time."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any


@unique
class Refusal(StrEnum):
    """Reason for which a caller got no session."""

    DEADLINE = "deadline"
    """No permit came free in time."""
    QUEUE_FULL = "queue_full"
    """The queue of the pool, or of the tenant, was full."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below or at which a share of the values lies; NaN without values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(slots=True, kw_only=True)
class TenantResult:
    """Callers of one tenant, or of several together."""

    arrivals: int = 0
    served_warm: int = 0
    waits_s: list[float] = field(default_factory=list)
    """Wait for a permit of each caller that was served."""
    openings_s: list[float] = field(default_factory=list)
    """Time from the request until the session is ready, of each caller that was served."""
    refused: Counter[Refusal] = field(default_factory=Counter)
    slot_s: float = 0.0
    """Time for which the tenant's callers held permits."""
    credits: float = 0.0
    """Credits of the tenant's callers, without those of warm sessions before they were taken."""

    @property
    def served(self) -> int:
        """Number of callers that got a session."""
        return len(self.waits_s)

    def add(self, other: "TenantResult") -> None:
        """Add the callers of another tenant."""
        self.arrivals += other.arrivals
        self.served_warm += other.served_warm
        self.waits_s += other.waits_s
        self.openings_s += other.openings_s
        self.refused += other.refused
        self.slot_s += other.slot_s
        self.credits += other.credits


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmResult:
    """Warm sessions of one profile."""

    started: int
    taken: int
    most: int
    """Most sessions at once."""
    idle_s: float
    """Time for which sessions waited, their opening included."""
    credits: float
    """Credits of that waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Use of slots in one stretch of time, on average; the most callers that waited at once."""

    at_s: float
    callers: float
    warm: float
    settling: float
    waiting: int


class Timeline:
    """Averages of counts over stretches of equal length."""

    def __init__(self, begins_at_s: float, stretch_s: float) -> None:
        self._begin_s = begins_at_s
        self._stretch_s = max(stretch_s, 1e-3)
        self._at_s = begins_at_s
        self._points: list[Point] = []
        self._sums: Counter[str] = Counter()
        self._most_waiting = 0

    def advance(self, until_s: float, counts: Mapping[str, int]) -> None:
        """Record counts that held up to a time."""
        while self._at_s < until_s:
            end_s = self._begin_s + (len(self._points) + 1) * self._stretch_s
            step_s = min(until_s, end_s) - self._at_s
            for name in ("callers", "warm", "settling"):
                self._sums[name] += counts.get(name, 0) * step_s  # type: ignore[assignment]  # sums of time
            self._most_waiting = max(self._most_waiting, counts.get("waiting", 0))
            self._at_s += step_s
            if self._at_s >= end_s - 1e-9:
                self._at_s = max(self._at_s, end_s)
                self._close(self._stretch_s)

    def points(self) -> list[Point]:
        """Return all stretches, the present stretch included."""
        length_s = self._at_s - self._begin_s - len(self._points) * self._stretch_s
        if length_s > 0:
            self._close(length_s)
        return self._points

    def _close(self, length_s: float) -> None:
        self._points.append(
            Point(
                at_s=self._begin_s + len(self._points) * self._stretch_s,
                callers=self._sums["callers"] / length_s,
                warm=self._sums["warm"] / length_s,
                settling=self._sums["settling"] / length_s,
                waiting=self._most_waiting,
            )
        )
        self._sums.clear()
        self._most_waiting = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """Result of one run."""

    tenants: Mapping[str, TenantResult]
    warm: Mapping[str, WarmResult]
    timeline: Sequence[Point]
    seconds: float
    """Length of the run."""
    slots: int
    """Sum of the limits of all accounts."""

    @property
    def total(self) -> TenantResult:
        """All tenants together."""
        total = TenantResult()
        for result in self.tenants.values():
            total.add(result)
        return total

    @property
    def credits(self) -> float:
        """Credits of callers and of warm sessions."""
        return self.total.credits + sum(one.credits for one in self.warm.values())

    @property
    def slot_use(self) -> float:
        """Share of all slot-seconds in which callers held a permit."""
        return self.total.slot_s / (self.seconds * self.slots) if self.seconds and self.slots else 0.0

    def as_fields(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "seconds": round(self.seconds, 3),
            "slots": self.slots,
            "slot_use": round(self.slot_use, 4),
            "credits": round(self.credits, 3),
            "total": _fields(self.total),
            "tenants": {name: _fields(result) for name, result in sorted(self.tenants.items())},
            "warm": {
                name: {
                    "started": one.started,
                    "taken": one.taken,
                    "most": one.most,
                    "idle_s": round(one.idle_s, 3),
                    "credits": round(one.credits, 3),
                }
                for name, one in self.warm.items()
            },
            "timeline": [
                {
                    "at_s": round(point.at_s, 3),
                    "callers": round(point.callers, 3),
                    "warm": round(point.warm, 3),
                    "settling": round(point.settling, 3),
                    "waiting": point.waiting,
                }
                for point in self.timeline
            ],
        }


def _fields(result: TenantResult) -> dict[str, Any]:
    return {
        "arrivals": result.arrivals,
        "served": result.served,
        "served_warm": result.served_warm,
        "refused": {refusal.value: result.refused[refusal] for refusal in Refusal},
        "wait_s": _spread(result.waits_s),
        "open_s": _spread(result.openings_s),
        "slot_s": round(result.slot_s, 3),
        "credits": round(result.credits, 3),
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"p50": None, "p95": None, "max": None}
    return {
        "p50": round(percentile(values, 50), 3),
        "p95": round(percentile(values, 95), 3),
        "max": round(max(values), 3),
    }
