"""Source of work for Locust's users, one per process: a scenario's schedule, or one session after the other."""

import contextlib
import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any, ClassVar, Final

import gevent

from load.arrivals import Arrival
from load.behaviours import Behaviour
from load.engine import Engine
from load.run_config import RunConfig
from load.worker import Worker

_IDLE_S: Final = 0.5


class LocustRun(ABC):
    """Runs of one process. `worker` is set while users have something to serve."""

    scheduled: ClassVar[bool] = False
    """True if arrivals follow a schedule, so that a load shape sets the number of users."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.engine = Engine()
        self.worker: Worker | None = None
        self._user_numbers = itertools.count()

    @property
    def host(self) -> str:
        """Address of the gateway where `--host` names none."""
        return self.config.target

    @property
    @abstractmethod
    def weights(self) -> Mapping[str, float]:
        """Share of each class of users, in any unit; classes without one are no part of the run."""

    @abstractmethod
    def install(self, events: Any) -> None:
        """Listen to Locust's events."""

    @abstractmethod
    def next_arrival(self, user: str) -> Arrival | None:
        """Return the next arrival of a class of users; None when none is left or no test runs."""

    def next_user(self) -> int:
        """Return a number for a new user of this process."""
        return next(self._user_numbers)

    def serve_next(self, user: str, number: int, behaviour: Behaviour) -> None:
        """Serve the next arrival of a class; the calling greenlet waits until its session has ended.

        Args:
            user: Name of the class.
            number: Number of the user; it selects the connection.
            behaviour: Coroutine function that speaks in the session.
        """
        worker, arrival = self.worker, self.next_arrival(user)
        if worker is None or arrival is None:
            gevent.sleep(_IDLE_S)
            return
        # Sessions under way at the end of the run are cancelled, which is no error.
        with contextlib.suppress(CancelledError):
            self.engine.run(functools.partial(worker.serve, arrival, number, behaviour))

    def begin_again(self) -> None:  # noqa: B027 - plain Locust has nothing to reset
        """Forget the end of the run before."""

    def users_at(self, at_s: float, workers: int) -> int | None:  # noqa: ARG002 - plain Locust has no shape
        """Return the number of users at a time after the start; None when the run is over."""
        return None
