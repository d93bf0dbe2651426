"""Number of users and their distribution. Pure, and apart from Locust, whose import can patch a process."""

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Final

from load.arrivals import Curve

_AHEAD_S: Final = 20.0


def cap_at(curve: Curve, at_s: float, users: int) -> int:
    """Return the number of users for a time: those for the highest rate up to a little later."""
    until_s = at_s + _AHEAD_S
    rates = [rate for moment_s, rate in curve.points if moment_s <= until_s]
    highest = max([*rates, curve.rate(min(until_s, curve.seconds))])
    return math.ceil(users * highest / curve.peak) if curve.peak else users


def even(workers: Sequence[str], weights: Mapping[str, float], users: int) -> dict[str, dict[str, int]]:
    """Distribute users over workers, by class. More users take none away, neither from a class nor from a worker.

    Args:
        workers: Ids of the workers.
        weights: Share of each class, in any unit.
        users: Number of users. Each worker gets at least one of each class, even if that makes more.
    """
    spare = max(0, users - len(workers) * len(weights))
    dealt: dict[str, dict[str, int]] = {worker: {} for worker in workers}
    for turn, (name, count) in enumerate(_shared_out(weights, spare).items()):
        whole, rest = divmod(count, len(workers))
        for place, worker in enumerate(workers):
            dealt[worker][name] = 1 + whole + ((place - turn) % len(workers) < rest)
    return dealt


def _shared_out(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Return whole numbers in about the proportion of the weights that add up to `total`, by Webster's method.

    The method of largest remainders can take a user away when the total grows (the Alabama paradox), and with it
    the session that it serves.
    """
    counts = dict.fromkeys(weights, 0)
    lacking = [(-weight, name) for name, weight in weights.items()]
    heapq.heapify(lacking)
    for _ in range(total):
        _, name = lacking[0]
        counts[name] += 1
        heapq.heapreplace(lacking, (-weights[name] / (2 * counts[name] + 1), name))
    return counts
