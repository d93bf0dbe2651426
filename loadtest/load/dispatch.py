"""Distribution of users over workers: users of each class on each worker, for its share of arrivals.

Locust distributes users class after class: with two workers and two classes of equal weight, each worker would get
all users of one class, and its arrivals of the other class would find no user.
"""

from collections.abc import Generator

from locust.dispatch import UsersDispatcher

from load.slots import even


class EvenDispatcher(UsersDispatcher):
    """Dispatcher that starts all users at once, evenly: the schedule of arrivals ramps, users only serve it."""

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
