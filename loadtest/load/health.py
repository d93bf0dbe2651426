"""Health of a generator process: lateness of its event loop, and its share of a core."""

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
    """Health of one process in a run. `watch` runs on the loop under observation."""

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
            # Ticks missed in a pause count too, each with its lateness: a pause of 2 s is a hundred late ticks.
            while now_s - due_s > _TICK_S:
                due_s += _TICK_S
                self.lag.record_value(max(1, round((now_s - due_s) * 1e6)))
            await asyncio.sleep(0)

    def report(self) -> dict[str, Any]:
        """Return the values for the master."""
        wall_s = max(1e-3, time.monotonic() - self.began_mono_s)
        return {
            "lag_p99_ms": self.lag.get_value_at_percentile(99) / 1000 if self.lag.get_total_count() else 0.0,
            "lag_max_ms": self.lag.get_max_value() / 1000 if self.lag.get_total_count() else 0.0,
            "cpu_share": (time.process_time() - self.began_cpu_s) / wall_s,
        }
