"""Plain Locust: users that hold one conversation after the other, as many and as long as Locust's own options say.

Nothing is scheduled, so a slow gateway slows its users down, and latencies leave out what they waited (a closed
loop). For a verdict there are scenarios, see `conductor.py`.
"""

import itertools
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

import gevent
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from load.arrivals import Arrival
from load.behaviours import expected_s
from load.engine import Engine
from load.run_config import PREFIX, InvalidRunConfig, RunConfig
from load.scenarios import EVERYBODY, SCENARIOS, Style
from load.show import Table
from load.signals import leave_ctrl_c_to_the_master
from load.target import target_of
from load.timeline import Timeline
from load.worker import Worker

logger = logging.getLogger(__name__)

_ELSEWHERE: Final = {
    "users": "use -u",
    "seconds": "use -t",
    "rate": "a rate of arrivals needs a scenario: set LOAD_SCENARIO",
    "faults": "a timeline of faults needs a scenario: set LOAD_SCENARIO",
    "report": "a report needs a scenario: set LOAD_SCENARIO, or use --csv and --html",
}
"""Variables that mean nothing without a schedule, with what to do instead."""
_NUMBERS_PER_WORKER: Final = 1_000_000


class ClosedLoop:
    """Listener for Locust's events in each process. `part` is there while a test runs."""

    def __init__(self, order: RunConfig, environment: Mapping[str, str]) -> None:
        """Prepare for tests.

        Args:
            order: What applies without a schedule: target, emulator, API key, chunk size, seed, connections.
            environment: Where the order was read from, to see which variables were set.

        Raises:
            InvalidOrder: a variable was set that would be ignored.
        """
        for field, instead in _ELSEWHERE.items():
            if environment.get(name := f"{PREFIX}{field.upper()}", "").strip():
                raise InvalidRunConfig(f"{name} does nothing without LOAD_SCENARIO; {instead}")
        style = SCENARIOS["ci"].style
        self._style: Style = style.with_chunks(order.chunk_ms)
        self._order = order
        self.engine = Engine()
        self.part: Worker | None = None
        self._numbers = itertools.count()
        self._slots = itertools.count()
        self._showing: gevent.Greenlet | None = None

    @property
    def host(self) -> str:
        """The gateway's address where `--host` names none."""
        return self._order.target

    @property
    def weights(self) -> Mapping[str, float]:
        """Share of each class of users, by how many conversations of each are under way at once in `ci`."""
        busy_s = expected_s(self._style)
        mix = {name: share for name, share in EVERYBODY.items() if self._order.emulator or name != "Direct"}
        return {name: share * busy_s[name] for name, share in mix.items()}

    def next_slot(self) -> int:
        """Return a number for a user of this process."""
        return next(self._slots)

    def next_arrival(self, user: str) -> Arrival | None:
        """Return a conversation that begins now; None while no test runs."""
        if self.part is None or self.part.closing:
            return None
        return Arrival(next(self._numbers), user, time.monotonic() - self.part.zero_mono_s)

    def install(self, events: Any) -> None:
        """Listen to Locust."""
        events.init.add_listener(self._on_init)
        events.test_start.add_listener(self._on_test_start)
        events.test_stopping.add_listener(self._on_test_stopping)

    def _on_init(self, environment: Environment, **_: Any) -> None:
        leave_ctrl_c_to_the_master(environment)
        if environment.host:
            try:
                target_of(environment.host)
            except InvalidRunConfig as error:
                raise SystemExit(f"--host: {error}") from None

    def _on_test_start(self, environment: Environment, **_: Any) -> None:
        runner = environment.runner
        if isinstance(runner, MasterRunner):
            return
        assert isinstance(runner, LocalRunner | WorkerRunner)
        try:
            target = target_of(environment.host or self.host)
        except InvalidRunConfig as error:
            logger.error("host: %s", error)  # noqa: TRY400 - the message says it all, a traceback adds nothing
            gevent.spawn(runner.stop)
            return
        worker = max(0, getattr(runner, "worker_index", 0))
        self._numbers = itertools.count(worker * _NUMBERS_PER_WORKER)
        part = Worker(
            self._order.at(target),
            self._style,
            (),
            zero_mono_s=time.monotonic(),
            timeline=Timeline.read(""),
        )
        self.engine.run(part.begin)
        self.part = part
        self._showing = gevent.spawn(Table(environment).show_all, part)

    def _on_test_stopping(self, environment: Environment, **_: Any) -> None:
        part, self.part = self.part, None
        if part is None:
            return
        self.engine.run(lambda: part.drain(float(environment.stop_timeout or 0.0)))
        if self._showing is not None:
            self._showing.kill()
        Table(environment).show(part)
