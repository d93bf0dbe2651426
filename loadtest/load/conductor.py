"""Scheduled run of a scenario over all processes: a common beginning, a common end, one report.

    master or only process                         each process that generates
    test_start: zero, shares   --load-begin-->     its share is prepared, users serve it
                                                   after the last arrival: drain
    merge, report              <--load-done---     what it measured
    stopped early              --load-stop-->      drain at once

Locust's own end is not used for this: it leaves workers half a second for their last word.
"""

import datetime as dt
import gc
import itertools
import logging
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import gevent
import gevent.event
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from load.arrivals import Arrival, share_of
from load.behaviours import USER_KINDS, expected_s, weights
from load.dispatch import EvenDispatcher
from load.figures import Recorder
from load.locust_run import LocustRun
from load.run_config import Began, Report, RunConfig
from load.scenarios import scenario_of
from load.show import Table
from load.signals import leave_ctrl_c_to_the_master
from load.slots import cap_at
from load.target import target_of
from load.timeline import Timeline
from load.worker import DRAIN_S, END_WITHIN_S, Worker

logger = logging.getLogger(__name__)

_LEAD_S: Final = 2.0
"""From the start of a test to the schedule's zero: users are there before the first arrival."""
_LATEST_S: Final = DRAIN_S + END_WITHIN_S + 10.0
"""Longest time from the last arrival to a process's report; a process without a report by then is lost."""
_FIXED: Final = {"num_users": "LOAD_USERS", "spawn_rate": "LOAD_RATE", "run_time": "LOAD_SECONDS"}
"""Options of Locust that a scenario replaces, with the variable for each."""
_POLL_S: Final = 0.1
_TURN_S: Final = 0.001


class Conductor(LocustRun):
    """Scheduled runs. `worker` is set from the first run's beginning on."""

    scheduled = True

    def __init__(self, config: RunConfig) -> None:
        """Prepare for runs.

        Raises:
            InvalidRunConfig: the scenario does not exist, or has no class of users left.
            TimelineError: the timeline of faults cannot be read.
        """
        super().__init__(config)
        self.scenario = scenario_of(config, expected_s)
        self._curve = self.scenario.curve()
        self._timeline = Timeline.read(config.faults)
        self._environment: Environment | None = None
        self._work: gevent.Greenlet | None = None
        self._early = gevent.event.Event()
        # State of the master, or of the only process.
        self._running = False
        self._over = False
        self._zero_mono_s = 0.0
        self._began: Began | None = None
        self._workers = 0
        self._reports: dict[int, Mapping[str, Any]] = {}

    @property
    def weights(self) -> Mapping[str, float]:
        """Share of each class of users in the sessions under way at once."""
        return weights(self.scenario.mix, self.scenario.style)

    def next_arrival(self, user: str) -> Arrival | None:
        """Return the next arrival of a class; None before the run and after the last arrival."""
        return None if self.worker is None else self.worker.take(user)

    def users_at(self, at_s: float, workers: int) -> int | None:
        """Return the number of users at a time after the start; None when every process has reported."""
        if self.over():
            return None
        return max(cap_at(self._curve, at_s, self.scenario.users), len(self.weights) * max(1, workers))

    def install(self, events: Any) -> None:
        """Listen to Locust."""
        events.init.add_listener(self._on_init)
        events.test_start.add_listener(self._on_test_start)
        events.test_stopping.add_listener(self._on_stopping)
        events.quitting.add_listener(self._on_stopping)

    def _on_init(self, environment: Environment, **_: Any) -> None:
        self._refuse_what_is_ignored(environment)
        leave_ctrl_c_to_the_master(environment)
        self._environment = environment
        environment.dispatcher_class = EvenDispatcher
        runner = environment.runner
        if isinstance(runner, MasterRunner | LocalRunner):
            runner.register_message("load-done", self._on_done)
            # Locust installs its own only after a run without its web page; until then SIGTERM would kill it.
            gevent.signal_handler(signal.SIGTERM, self._on_stopping, environment)
        if isinstance(runner, WorkerRunner | LocalRunner):
            runner.register_message("load-begin", self._on_begin)
            runner.register_message("load-stop", self._on_stop, concurrent=True)

    def _refuse_what_is_ignored(self, environment: Environment) -> None:
        """Refuse Locust's options for users, rate and length, which the schedule replaces."""
        options = environment.parsed_options
        for option, variable in _FIXED.items():
            if options is not None and getattr(options, option, None) is not None:
                flag = f"--{option.replace('num_', '').replace('_', '-')}"
                raise SystemExit(
                    f"{flag} does nothing in a scenario, whose schedule says it; set {variable}, or unset "
                    "LOAD_SCENARIO for plain Locust"
                )
        if environment.host and target_of(environment.host) != self.config.target:
            raise SystemExit(
                f"--host is {environment.host}, but LOAD_TARGET is {self.config.target}; set one of them"
            )

    def _on_test_start(self, environment: Environment, **_: Any) -> None:
        runner = environment.runner
        if not isinstance(runner, MasterRunner | LocalRunner):
            return
        workers = [node.id for node in runner.clients.all] if isinstance(runner, MasterRunner) else ["local"]
        zero_wall_s, self._zero_mono_s = time.time() + _LEAD_S, time.monotonic() + _LEAD_S
        self._workers, self._reports = len(workers), {}
        self._running, self._over = True, False
        self._began = Began(
            started_at=dt.datetime.fromtimestamp(zero_wall_s, dt.UTC).isoformat(),
            started_mono_s=self._zero_mono_s,
            seconds=self.scenario.seconds,
        )
        self._began.save(self.config)
        # Messages of one worker keep their order, so its share is there before its users are.
        for rank, worker in enumerate(workers):
            plan = {"rank": rank, "workers": len(workers), "zero_wall_s": zero_wall_s}
            runner.send_message("load-begin", plan, worker)

    def over(self) -> bool:
        """Return whether every process has reported or is lost; write the report then."""
        if self._running:
            missing = self._workers - len(self._reports)
            late = time.monotonic() > self._zero_mono_s + self.scenario.seconds + _LATEST_S
            if missing and not late:
                return False
            self._write_report()
        return self._over

    def begin_again(self) -> None:
        """Forget the end of the run before; do nothing while a run is under way."""
        if not self._running:
            self._over = False

    def _on_done(self, msg: Any, **_: Any) -> None:
        self._reports[msg.data["rank"]] = msg.data

    def _write_report(self) -> None:
        if not self._running:
            return
        assert self._began is not None
        self._running, self._over = False, True
        measured = Recorder(self._zero_mono_s)
        for left in self._reports.values():
            measured.merge(Recorder.from_json(left["measured"]))
        for rank in set(range(self._workers)) - set(self._reports):
            logger.error("worker %d of %d is lost, with all it measured", rank + 1, self._workers)
            for arrival in share_of(self.scenario.arrivals(self.config.seed), rank=rank, workers=self._workers):
                system = USER_KINDS[arrival.user].system
                measured.count(system, "arrivals missed", at_mono_s=self._zero_mono_s + arrival.due_s)
        report = Report(
            measured=measured,
            started_at=self._began.started_at,
            started_mono_s=self._began.started_mono_s,
            duration_s=time.monotonic() - self._zero_mono_s,
            workers=self._workers,
            **{
                name: max((left[name] for left in self._reports.values()), default=0.0)
                for name in ("lag_p99_ms", "lag_max_ms", "cpu_share")
            },
        )
        report.save(Path(self.config.report))
        logger.info("what was measured is in %s", self.config.report)

    def _on_begin(self, msg: Any, **_: Any) -> None:
        plan = msg.data
        zero_mono_s = time.monotonic() + plan["zero_wall_s"] - time.time()
        share = share_of(self.scenario.arrivals(self.config.seed), rank=plan["rank"], workers=plan["workers"])
        worker = Worker(self.config, self.scenario.style, share, zero_mono_s=zero_mono_s, timeline=self._timeline)
        self._user_numbers = itertools.count()
        self._early.clear()
        _keep_pauses_short()
        self.engine.run(worker.begin)
        self.worker = worker
        self._work = gevent.spawn(self._work_through, worker, plan["rank"])

    def _work_through(self, worker: Worker, rank: int) -> None:
        assert self._environment is not None
        table = Table(self._environment)
        showing = gevent.spawn(table.show_all, worker)
        end_mono_s = worker.zero_mono_s + self.scenario.seconds
        self._early.wait(max(0.0, end_mono_s - time.monotonic()))
        report = self.engine.run(lambda: worker.drain(DRAIN_S))
        showing.kill()
        table.show(worker)
        assert self._environment.runner is not None
        self._environment.runner.send_message("load-done", {"rank": rank, **report})

    def _on_stop(self, **_: Any) -> None:
        if self._work is not None and not self._work.ready():
            self._early.set()
            assert self.worker is not None
            self.engine.run(self.worker.hurry)
            self._work.join(_LATEST_S)

    def _on_stopping(self, environment: Environment, **_: Any) -> None:
        self._on_stop()
        if self._running and isinstance(environment.runner, MasterRunner):
            environment.runner.send_message("load-stop")
            give_up_s = time.monotonic() + END_WITHIN_S
            while len(self._reports) < self._workers and time.monotonic() < give_up_s:
                gevent.sleep(_POLL_S)
        self._write_report()


def _keep_pauses_short() -> None:
    """Keep Locust's thread and the garbage collector from delaying the event loop."""
    # Python's own default is 5 ms at a time for each of several running threads.
    sys.setswitchinterval(_TURN_S)
    # Imported objects stay for the life of the process; a collection over them would stop the loop for long.
    gc.collect()
    gc.freeze()
