"""Where users run: as many of each class on each worker, so that each can serve its share of arrivals.

Locust deals users out one by one, class after class; with two workers and two classes of equal weight the one
worker gets all of the one class, and the arrivals of the other class would find nobody there.
"""

from collections.abc import Generator, Mapping, Sequence

from locust.dispatch import UsersDispatcher


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


class EvenDispatcher(UsersDispatcher):
    """All users at once, evenly: they are only slots, and what ramps is the schedule of arrivals."""

    def _dispatcher(self) -> Generator[dict[str, dict[str, int]], None, None]:
        self._dispatch_in_progress = True
        self._deal()
        yield self._users_on_workers
        self._dispatch_in_progress = False

    def _prepare_rebalance(self) -> None:
        self._deal()

    def _deal(self) -> None:
        weights = {user.__name__: user.weight for user in self._user_classes}
        workers = [worker.id for worker in self._worker_nodes]
        self._users_on_workers = even(workers, weights, self._target_user_count)
        self._current_user_count = self.get_current_user_count()
