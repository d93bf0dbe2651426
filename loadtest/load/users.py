"""Locust's users: slots that each serve one arrival of their class at a time. `behaviours.py` says how."""

import contextlib
import functools
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any, ClassVar, Protocol

import gevent
from locust import User, task

from load.arrivals import Arrival
from load.engine import Engine
from load.worker import Worker

_IDLE_S = 0.5


class Run(Protocol):
    """Source of work for users: a scenario's schedule, or one conversation after the other."""

    engine: Engine
    part: Worker | None

    @property
    def host(self) -> str:
        """Default address of the gateway."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Share of each class of users, in any unit; classes that are not in it do not exist."""

    def install(self, events: Any) -> None:
        """Listen to Locust."""

    def next_slot(self) -> int:
        """Return a number for a user of this process."""

    def next_arrival(self, user: str) -> Arrival | None:
        """Return what a user of a class does next; None when there is nothing now."""


class Caller(User):
    """Serves the next arrival of its class, for ever."""

    abstract = True
    work: ClassVar[Run]

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._slot = self.work.next_slot()

    @task
    def serve_next(self) -> None:
        """Wait until the next one comes, and be that one from the intended moment on."""
        part = self.work.part
        arrival = self.work.next_arrival(type(self).__name__)
        if part is None or arrival is None:
            gevent.sleep(_IDLE_S)
            return
        # What was under way when the run came to its end is cancelled, which is no error.
        with contextlib.suppress(CancelledError):
            self.work.engine.run(functools.partial(part.serve, arrival, self._slot))


class Conversation(Caller):
    """Listens, thinks, speaks; is sometimes interrupted; several turns."""


class Direct(Caller):
    """The same conversation with LiveAvatar itself: the baseline of the same run."""


class Broadcast(Caller):
    """One long monologue."""


class Churn(Caller):
    """Opens a session, says one word, ends it."""


class BargeIn(Caller):
    """Interrupts nearly everything, in every way there is."""


class Firehose(Caller):
    """Sends speech as fast as the credit allows."""


class Talker(Caller):
    """Talks without a pause."""


_CLASSES = (Conversation, Direct, Broadcast, Churn, BargeIn, Firehose, Talker)


def users_of(work: Run) -> Mapping[str, type[Caller]]:
    """Return the classes that a run has, with their weights."""
    Caller.work = work
    Caller.host = work.host
    found = {}
    for user in _CLASSES:
        weight = work.weights.get(user.__name__, 0.0)
        if weight > 0:
            user.weight = weight
            found[user.__name__] = user
    return found
