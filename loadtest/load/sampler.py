"""Sampler of the gateway's process, once a second during a run."""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx
import psutil

from liveavatar_demo.emulator_control import EmulatorControl, EmulatorError
from load.result import Sample

PERIOD_S = 1.0
_TASKS_EVERY = 5
"""Samples per question to the gateway itself, which costs it a few milliseconds."""
_TASKS = "gateway_asyncio_tasks "


@dataclass(frozen=True, slots=True)
class Seen:
    """Sample with its time on the monotonic clock."""

    at_mono_s: float
    cpu_s: float
    rss_bytes: int
    threads: int
    open_files: int
    talking: int
    active: int
    """Sessions that live upstream."""
    tasks: int | None

    def sample(self, zero_mono_s: float) -> Sample:
        """Return the sample for the result, in seconds since the schedule's zero."""
        return Sample(
            at_s=round(self.at_mono_s - zero_mono_s, 3),
            cpu_s=self.cpu_s,
            rss_bytes=self.rss_bytes,
            threads=self.threads,
            open_files=self.open_files,
            talking=self.talking,
            tasks=self.tasks,
        )


class Sampler:
    """Context manager that takes samples in a thread of its own. `seen` grows meanwhile."""

    def __init__(self, pid: int, control: EmulatorControl, metrics_url: str | None) -> None:
        """Prepare the sampler.

        Args:
            pid: The gateway's process.
            control: The emulator, which knows the talking sessions.
            metrics_url: URL of the gateway's metrics; None when it serves none.
        """
        self.seen: list[Seen] = []
        self.problem = ""
        self._process = psutil.Process(pid)
        self._control = control
        self._metrics_url = metrics_url
        # The gateway would close a kept connection at about the time of the next sample.
        self._http = httpx.Client(timeout=5.0, headers={"Connection": "close"})
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._http.close()

    def _run(self) -> None:
        due_s = time.monotonic()
        try:
            while not self._over.is_set():
                self.seen.append(self._look())
                # Samples keep a fixed interval; missed ones are not made up for.
                due_s = max(due_s + PERIOD_S, time.monotonic())
                self._over.wait(due_s - time.monotonic())
        except (psutil.Error, EmulatorError, httpx.HTTPError) as error:
            # The run reports the problem; the samples until then are kept.
            self.problem = str(error)

    def _look(self) -> Seen:
        state = self._control.state()
        tasks = self._tasks() if len(self.seen) % _TASKS_EVERY == 0 else None
        with self._process.oneshot():
            cpu = self._process.cpu_times()
            return Seen(
                at_mono_s=time.monotonic(),
                cpu_s=cpu.user + cpu.system,
                rss_bytes=self._process.memory_info().rss,
                threads=self._process.num_threads(),
                open_files=self._process.num_fds(),
                talking=int(state["talking"]),
                active=int(state["sessions"]["active"]),
                tasks=tasks,
            )

    def _tasks(self) -> int | None:
        if self._metrics_url is None:
            return None
        lines = self._http.get(self._metrics_url).raise_for_status().text.splitlines()
        # A gateway of another build may lack this metric.
        return next((int(float(line.removeprefix(_TASKS))) for line in lines if line.startswith(_TASKS)), None)
