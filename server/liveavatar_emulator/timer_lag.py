"""Lag of the emulator's timers in real milliseconds, at any speed of its clock."""

from collections import Counter
from math import ceil, log

FINEST_MS = 0.01
"""Upper bound of the first bucket, which also counts smaller lags."""
STEP = 1.02
"""Ratio of neighbouring buckets: a percentile is at most two percent too high."""


class TimerLag:
    """Histogram with buckets of equal ratio, cheap enough to count every timer."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.max_ms = 0.0

    def record(self, lag_s: float) -> None:
        """Count one timer that was handled `lag_s` after its due time."""
        lag_ms = lag_s * 1000
        self.max_ms = max(self.max_ms, lag_ms)
        self._counts[ceil(log(max(lag_ms, FINEST_MS) / FINEST_MS, STEP))] += 1

    def reset(self) -> None:
        """Begin a new window."""
        self._counts.clear()
        self.max_ms = 0.0

    def percentile_ms(self, share: float) -> float:
        """Return the upper bound of the bucket that holds this share of the timers; 0 without any timer."""
        wanted = share * self._counts.total()
        counted = 0
        for bucket in sorted(self._counts):
            counted += self._counts[bucket]
            if counted >= wanted:
                return round(min(FINEST_MS * STEP**bucket, max(self.max_ms, FINEST_MS)), 3)
        return 0.0

    def row(self) -> dict[str, float | int]:
        """Return count and percentiles as JSON."""
        return {
            "count": self._counts.total(),
            "p50_ms": self.percentile_ms(0.5),
            "p99_ms": self.percentile_ms(0.99),
            "max_ms": round(self.max_ms, 3),
        }
