"""Locust's load shapes: how many users there are over time, which caps the sessions in flight.

What ramps is the schedule of arrivals, `arrivals.py`; users are only there to serve it. So their number follows
the curve with room to spare and never falls during a run: a user that is taken away takes its session with it.
"""

import time
from typing import Any, ClassVar, Final

from locust import LoadTestShape

from load.conductor import Conductor
from load.slots import cap_at

_ALL_AT_ONCE: Final = 100.0


class ArrivalShape(LoadTestShape):
    """The users that a curve of arrivals needs."""

    abstract = True
    conductor: ClassVar[Conductor]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._curve = self.conductor.scenario.curve()
        self._began_s = time.monotonic()

    def reset_time(self) -> None:
        """A run begins."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._began_s = time.monotonic()
        self.conductor.forget()

    def tick(self) -> tuple[int, float] | None:
        """The cap, until everybody has reported."""
        at_s = time.monotonic() - self._began_s
        if self.conductor.over():
            return None
        scenario = self.conductor.scenario
        users = cap_at(self._curve, at_s, scenario.users)
        return max(users, len(scenario.mix) * max(1, _workers(self.runner))), _ALL_AT_ONCE


class Constant(ArrivalShape):
    """The same rate all the time, evenly."""


class Poisson(ArrivalShape):
    """The same rate all the time, at random."""


class Ramp(ArrivalShape):
    """From nothing to the full rate."""


class Step(ArrivalShape):
    """The rate in four steps."""


class Spike(ArrivalShape):
    """A rush in the middle."""


class Soak(ArrivalShape):
    """The full rate, for long."""


_CLASSES: Final = {one.__name__.lower(): one for one in (Constant, Poisson, Ramp, Step, Spike, Soak)}


def shape_of(conductor: Conductor) -> type[ArrivalShape]:
    """The shape of a scenario."""
    ArrivalShape.conductor = conductor
    return _CLASSES[conductor.scenario.shape]


def _workers(runner: Any) -> int:
    return int(getattr(runner, "worker_count", 1))
