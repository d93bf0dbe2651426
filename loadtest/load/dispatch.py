"""Where users run: as many of each class on each worker, so that each can serve its share of arrivals.

Locust deals users out one by one, class after class; with two workers and two classes of equal weight the one
worker gets all of the one class, and the arrivals of the other class would find nobody there.
"""

from collections.abc import Generator

from locust.dispatch import UsersDispatcher

from load.slots import even


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
