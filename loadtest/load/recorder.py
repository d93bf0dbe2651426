"""Recorder of a generator process: its measurements, and rows for Locust's own tables.

It lives in the thread of the event loop. Locust's thread reads only `for_locust`, a deque, which needs no lock.
"""

import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from load.figures import FIGURES, Recorder, System

_GRAIN_US: Final = 16
"""Lateness of chunks is counted in steps of this size, so that a second's worth of them is a handful of steps."""

QUOTA_EXCEEDED: Final = "QUOTA_EXCEEDED"
"""The gateway's reason for refusals because of a quota."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Row for Locust's tables."""

    system: System
    name: str
    took_ms: float
    reason: str | None = None
    """Reason of a failure."""
    latency: bool = True
    """False for lifetimes and for the generator's own delays, which must not mix with latencies in totals."""


@dataclass(slots=True)
class LoadRecorder:
    """Measurements of one process in one run."""

    measured: Recorder
    expects: Callable[[str, float], bool]
    """Return whether the run's own faults provoke errors of a reason at a time, seconds after the run's start."""
    for_locust: deque[Shown] = field(default_factory=deque)
    late: dict[System, "array[float]"] = field(default_factory=dict)
    """Seconds by which chunks were written late, since the last flush."""
    share: Recorder | None = None
    """Share of a tenant, which gets all but the generator's own figures; None without tenants."""

    def of_tenant(self, tenant: str) -> "LoadRecorder":
        """Return a recorder of the same process that also records in the share of a tenant."""
        return replace(self, share=self.measured.of_tenant(tenant))

    @property
    def _recorders(self) -> tuple[Recorder, ...]:
        return (self.measured,) if self.share is None else (self.measured, self.share)

    def record(self, system: System, figure: str, value_s: float, *, at_mono_s: float | None = None) -> None:
        """Record a value of a figure at a time: now, if none is given."""
        at_mono_s = time.monotonic() if at_mono_s is None else at_mono_s
        for recorder in self._recorders:
            recorder.record(system, figure, value_s, at_mono_s=at_mono_s)
        if not figure.endswith("closed loop"):
            latency = FIGURES[figure].phase != "lifetime"
            self.for_locust.append(Shown(system, figure, 1000 * value_s, latency=latency))

    def count(self, system: System, counter: str, by: int = 1) -> None:
        """Add to a counter, now."""
        for recorder in self._recorders:
            recorder.count(system, counter, by)

    def failed(self, system: System, reason: str, *, took_s: float) -> None:
        """Count a session that failed, by its reason."""
        now_s = time.monotonic()
        expected = self.expects(reason, now_s - self.measured.started_mono_s)
        for recorder in self._recorders:
            recorder.failed(system, reason, expected=expected, at_mono_s=now_s)
        if reason == QUOTA_EXCEEDED:
            self.count(system, "quota refusals")
        self.for_locust.append(Shown(system, "session", 1000 * took_s, reason=reason))

    def note_integrity_failure(self, system: System, what: str) -> None:
        """Record an utterance whose bytes upstream differ from those that were sent."""
        for recorder in self._recorders:
            recorder.note_integrity_failure(system, what)
        self.for_locust.append(Shown(system, "integrity", 0.0, reason=what))

    def lateness_of(self, system: System) -> "array[float]":
        """Return the array to which a session appends the lateness of each chunk, in seconds."""
        return self.late.setdefault(system, array("d"))

    def flush(self) -> None:
        """Move the values of `late` into the measurements. Called about twice a second."""
        now_s = time.monotonic()
        for system, values in self.late.items():
            if not values:
                continue
            # The arrays stay the same objects, because sessions keep references to them.
            micros = np.asarray(values) * 1e6
            worst_ms = float(micros.max()) / 1000
            steps, counts = np.unique((micros / _GRAIN_US).astype(np.int64), return_counts=True)
            del micros
            del values[:]
            for one, number in zip(steps.tolist(), counts.tolist(), strict=True):
                value_s = (one + 0.5) * _GRAIN_US / 1e6
                self.measured.record(system, "chunk lateness", value_s, at_mono_s=now_s, times=number)
            self.for_locust.append(Shown(system, "chunk lateness, worst", worst_ms, latency=False))
