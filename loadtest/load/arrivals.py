"""Schedule of arrivals: absolute, the same for the same seed, divided between workers. Pure.

The schedule is open-loop: no arrival waits for another one, so a slow server does not slow the load down.
"""

import itertools
import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Point = tuple[float, float]
"""A moment, seconds, and how many come per second then."""

_NOTHING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Curve:
    """Arrivals per second over time: straight between points; two points at one moment are a jump.

    Invariant: moments do not fall, rates are not negative. Nobody comes before the first or after the last point.
    """

    points: tuple[Point, ...]

    @property
    def seconds(self) -> float:
        """Length of the curve."""
        return self.points[-1][0]

    @property
    def peak(self) -> float:
        """The highest rate."""
        return max(rate for _, rate in self.points)

    def rate(self, at_s: float) -> float:
        """Return the arrivals per second at a time."""
        index = bisect_right(self.points, at_s, key=lambda point: point[0])
        if index == 0 or at_s > self.seconds:
            return 0.0
        if index == len(self.points):
            return self.points[-1][1]
        (from_s, low), (to_s, high) = self.points[index - 1], self.points[index]
        return low + (high - low) * (at_s - from_s) / (to_s - from_s)

    def total(self) -> float:
        """Return the mean number of arrivals."""
        return sum((to_s - from_s) * (low + high) / 2 for (from_s, low), (to_s, high) in _steps(self.points))

    def moments(self, counts: Iterator[float]) -> Iterator[float]:
        """Yield the time at which each count of arrivals is reached; counts must not fall."""
        steps = _steps(self.points)
        before, mass = 0.0, 0.0
        step: tuple[Point, Point] | None = None
        for count in counts:
            while step is None or before + mass < count:
                before += mass
                step = next(steps, None)
                if step is None:
                    return
                (from_s, low), (to_s, high) = step
                mass = (to_s - from_s) * (low + high) / 2
            yield _moment_within(step, count - before)


def even(curve: Curve) -> Iterator[float]:
    """Yield times as regular as the curve allows: arrival k is due when k - 1/2 arrivals should have come."""
    total = curve.total()
    return curve.moments(k + 0.5 for k in range(math.floor(total + 0.5)))


def poisson(curve: Curve, rng: random.Random) -> Iterator[float]:
    """Yield times of independent arrivals."""

    def counts() -> Iterator[float]:
        count = 0.0
        while True:
            count += rng.expovariate(1.0)
            yield count

    return curve.moments(counts())


@dataclass(frozen=True, slots=True)
class Arrival:
    """Caller of the schedule."""

    number: int
    """Counts from 0 through the whole run; seeds what this caller does."""
    user: str
    """Name of the class of users it is."""
    due_s: float
    """Seconds after the schedule's zero."""


def schedule(moments: Iterator[float], mix: Mapping[str, float]) -> list[Arrival]:
    """Assign a class of users to each time, so that every stretch of the run has the mix as exactly as possible.

    Args:
        moments: Seconds, in order.
        mix: Share of each class of users, in any unit.
    """
    total = sum(mix.values())
    shares = {user: share / total for user, share in mix.items() if share > 0}
    owed = dict.fromkeys(shares, 0.0)
    arrivals = []
    for number, due_s in enumerate(moments):
        for user, share in shares.items():
            owed[user] += share
        user = max(owed, key=lambda name: owed[name])
        owed[user] -= 1.0
        arrivals.append(Arrival(number, user, due_s))
    return arrivals


def share_of(arrivals: Sequence[Arrival], *, rank: int, workers: int) -> list[Arrival]:
    """Return the share of worker `rank` of `workers`: every `workers`-th arrival of each class of users.

    The workers' shares are a partition; classes start with different workers, so that rare ones are spread too.
    """
    seen: dict[str, int] = {}
    share = []
    for arrival in arrivals:
        # The first of each class goes to the next worker after the one the class before began with.
        count = seen.setdefault(arrival.user, len(seen))
        seen[arrival.user] = count + 1
        if count % workers == rank:
            share.append(arrival)
    return share


def _steps(points: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    return itertools.pairwise(points)


def _moment_within(step: tuple[Point, Point], count: float) -> float:
    """Return the time at which a straight piece has had `count` arrivals: its rate's integral, solved for time."""
    (from_s, low), (to_s, high) = step
    slope = (high - low) / (to_s - from_s) if to_s > from_s else 0.0
    if abs(slope) < _NOTHING:
        return from_s + count / low if low > 0 else to_s
    root = math.sqrt(max(0.0, low * low + 2 * slope * count))
    # This form of the root loses no digits to cancellation.
    return min(to_s, from_s + 2 * count / (low + root))
