"""Locust's users: slots that each serve one arrival of their class at a time. `behaviours.py` says how."""

import contextlib
import functools
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any, ClassVar

import gevent
from locust import User, task

from load.behaviours import expected_s
from load.conductor import Conductor
from load.scenarios import Scenario

_IDLE_S = 0.5


class Caller(User):
    """Serves the next arrival of its class, for ever."""

    abstract = True
    conductor: ClassVar[Conductor]

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._slot = self.conductor.next_slot()

    @task
    def serve_next(self) -> None:
        """Wait until the next one comes, and be that one from the intended moment on."""
        part = self.conductor.part
        arrival = part.take(type(self).__name__) if part is not None else None
        if part is None or arrival is None:
            gevent.sleep(_IDLE_S)
            return
        # What was under way when the run came to its end is cancelled, which is no error.
        with contextlib.suppress(CancelledError):
            self.conductor.engine.run(functools.partial(part.serve, arrival, self._slot))


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


def users_of(conductor: Conductor, scenario: Scenario) -> Mapping[str, type[Caller]]:
    """The classes of a scenario's mix, weighted by how many arrivals of each are under way at once."""
    busy_s = expected_s(scenario.style)
    Caller.conductor = conductor
    found = {}
    for user in _CLASSES:
        share = scenario.mix.get(user.__name__, 0.0)
        if share > 0:
            user.weight = share * busy_s[user.__name__]
            found[user.__name__] = user
    return found
