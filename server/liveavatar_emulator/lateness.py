"""How late the emulator noticed things that were due, in real milliseconds whatever its clock does."""

from collections import Counter
from math import ceil, log

FINEST_MS = 0.01
"""Anything below counts as this."""
STEP = 1.02
"""Ratio of neighbouring buckets: a percentile is at most two percent too high."""


class Lateness:
    """A histogram with buckets of equal ratio, so small and so cheap that every moment is counted."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.max_ms = 0.0

    def note(self, late_s: float) -> None:
        """Count one due moment that was noticed `late_s` after it."""
        late_ms = late_s * 1000
        self.max_ms = max(self.max_ms, late_ms)
        self._counts[ceil(log(max(late_ms, FINEST_MS) / FINEST_MS, STEP))] += 1

    def forget(self) -> None:
        """Begin a new window."""
        self._counts.clear()
        self.max_ms = 0.0

    def percentile_ms(self, share: float) -> float:
        """Upper bound of the bucket that holds this share of the moments; 0 when there were none."""
        wanted = share * self._counts.total()
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return round(min(FINEST_MS * STEP**bucket, max(self.max_ms, FINEST_MS)), 3)
        return 0.0

    def row(self) -> dict[str, float | int]:
        """As JSON."""
        return {
            "count": self._counts.total(),
            "p50_ms": self.percentile_ms(0.5),
            "p99_ms": self.percentile_ms(0.99),
            "max_ms": round(self.max_ms, 3),
        }
