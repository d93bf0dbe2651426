"""Plain Locust: users that hold one session after the other, as many and as long as Locust's own options say.

Nothing is scheduled, so a slow gateway slows its users down, and latencies leave out their wait (a closed loop).
Scenarios give verdicts, see `conductor.py`.
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
from load.behaviours import weights
from load.locust_run import LocustRun
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


class ClosedLoop(LocustRun):
    """Plain runs. `worker` is set while a test runs."""

    def __init__(self, config: RunConfig, environment: Mapping[str, str]) -> None:
        """Prepare for tests.

        Args:
            config: Settings of which target, emulator, API key, chunk size, seed and connections apply.
            environment: Source of the settings, to see which variables were set.

        Raises:
            InvalidRunConfig: a variable was set that would be ignored.
        """
        for field, instead in _ELSEWHERE.items():
            if environment.get(name := f"{PREFIX}{field.upper()}", "").strip():
                raise InvalidRunConfig(f"{name} does nothing without LOAD_SCENARIO; {instead}")
        super().__init__(config)
        self._style: Style = SCENARIOS["ci"].style.with_chunks(config.chunk_ms)
        self._numbers = itertools.count()
        self._showing: gevent.Greenlet | None = None

    @property
    def weights(self) -> Mapping[str, float]:
        """Share of each class of users in the sessions under way at once in `ci`."""
        mix = {name: share for name, share in EVERYBODY.items() if self.config.emulator or name != "Direct"}
        return weights(mix, self._style)

    def next_arrival(self, user: str) -> Arrival | None:
        """Return an arrival that is due now; None while no test runs."""
        if self.worker is None or self.worker.closing:
            return None
        return Arrival(next(self._numbers), user, time.monotonic() - self.worker.zero_mono_s)

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
        index = max(0, getattr(runner, "worker_index", 0))
        self._numbers = itertools.count(index * _NUMBERS_PER_WORKER)
        worker = Worker(
            self.config.at(target),
            self._style,
            (),
            zero_mono_s=time.monotonic(),
            timeline=Timeline.read(""),
        )
        self.engine.run(worker.begin)
        self.worker = worker
        self._showing = gevent.spawn(Table(environment).show_all, worker)

    def _on_test_stopping(self, environment: Environment, **_: Any) -> None:
        worker, self.worker = self.worker, None
        if worker is None:
            return
        self.engine.run(lambda: worker.drain(float(environment.stop_timeout or 0.0)))
        if self._showing is not None:
            self._showing.kill()
        Table(environment).show(worker)
