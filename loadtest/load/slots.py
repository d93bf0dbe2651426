"""How many users there are, and where. Pure, and apart from Locust, since importing that can patch a process."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from load.arrivals import Curve

_AHEAD_S: Final = 20.0


def cap_at(curve: Curve, at_s: float, users: int) -> int:
    """How many users there should be at a moment: those for the highest rate up to a little later."""
    until_s = at_s + _AHEAD_S
    rates = [rate for moment_s, rate in curve.points if moment_s <= until_s]
    highest = max([*rates, curve.rate(min(until_s, curve.seconds))])
    return math.ceil(users * highest / curve.peak) if curve.peak else users


def even(workers: Sequence[str], weights: Mapping[str, float], users: int) -> dict[str, dict[str, int]]:
    """Deal users out to workers, by class.

    Args:
        workers: Their ids.
        weights: How many there should be of each class, in any unit.
        users: How many in all. Each worker gets at least one of each class, even if that makes more.
    """
    spare = max(0, users - len(workers) * len(weights))
    counts = _rounded(weights, spare)
    dealt: dict[str, dict[str, int]] = {worker: {} for worker in workers}
    turn = 0
    for name, count in counts.items():
        whole, rest = divmod(count, len(workers))
        for place, worker in enumerate(workers):
            extra = (place - turn) % len(workers) < rest
            dealt[worker][name] = 1 + whole + extra
        turn += rest
    return dealt


def _rounded(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers in the proportion of the weights, that add up: those cut the most get one more."""
    sum_ = sum(weights.values())
    exact = {name: total * weight / sum_ for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_cut = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_cut[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
