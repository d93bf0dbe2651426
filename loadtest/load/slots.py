"""How many users there are, and where. Pure, and apart from Locust, since importing that can patch a process."""

import heapq
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
    """Deal users out to workers, by class. More users take nobody away, neither from a class nor from a worker.

    Args:
        workers: Their ids.
        weights: How many there should be of each class, in any unit.
        users: How many in all. Each worker gets at least one of each class, even if that makes more.
    """
    spare = max(0, users - len(workers) * len(weights))
    dealt: dict[str, dict[str, int]] = {worker: {} for worker in workers}
    for turn, (name, count) in enumerate(_shared_out(weights, spare).items()):
        whole, rest = divmod(count, len(workers))
        for place, worker in enumerate(workers):
            dealt[worker][name] = 1 + whole + ((place - turn) % len(workers) < rest)
    return dealt


def _shared_out(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers about in the proportion of the weights, that add up: one by one, to whom lacks most.

    It is Webster's method. Rounding and giving the rest to those cut the most can take one away when the total
    grows (the Alabama paradox), and with that user goes whoever it waited for.
    """
    counts = dict.fromkeys(weights, 0)
    lacking = [(-weight, name) for name, weight in weights.items()]
    heapq.heapify(lacking)
    for _ in range(total):
        _, name = lacking[0]
        counts[name] += 1
        heapq.heapreplace(lacking, (-weights[name] / (2 * counts[name] + 1), name))
    return counts
