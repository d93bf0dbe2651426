"""Whether the generator does what it is told: how late its loop wakes up, and how much of a core it takes."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

from hdrh.histogram import HdrHistogram

from load.session import until

_TICK_S: Final = 0.02
_HIGHEST_US: Final = 600_000_000


@dataclass(slots=True)
class Health:
    """One process's own behaviour in a run. `watch` runs on the loop that is watched."""

    began_mono_s: float = field(default_factory=time.monotonic)
    began_cpu_s: float = field(default_factory=time.process_time)
    lag: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, _HIGHEST_US, 3))

    async def watch(self) -> None:
        """Wake up fifty times a second and note how late, until cancelled."""
        due_s = time.monotonic()
        while True:
            due_s += _TICK_S
            await until(due_s)
            now_s = time.monotonic()
            self.lag.record_value(max(1, round((now_s - due_s) * 1e6)))
            # Ticks missed in a pause count too, each as late as it was: a pause of 2 s is a hundred late ones.
            while now_s - due_s > _TICK_S:
                due_s += _TICK_S
                self.lag.record_value(max(1, round((now_s - due_s) * 1e6)))
            await asyncio.sleep(0)

    def report(self) -> dict[str, Any]:
        """What the master needs of it."""
        wall_s = max(1e-3, time.monotonic() - self.began_mono_s)
        return {
            "lag_p99_ms": self.lag.get_value_at_percentile(99) / 1000 if self.lag.get_total_count() else 0.0,
            "lag_max_ms": self.lag.get_max_value() / 1000 if self.lag.get_total_count() else 0.0,
            "cpu_share": (time.process_time() - self.began_cpu_s) / wall_s,
        }
