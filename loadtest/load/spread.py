"""Histograms as arrays: percentiles of any choice of windows, fast enough to resample them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from load.figures import WINDOW_S, Series


@dataclass(frozen=True, slots=True)
class Spread:
    """Distinct values in milliseconds, ascending, and how often each came."""

    values_ms: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, histograms: Iterable[HdrHistogram]) -> Self:
        """Add histograms up. A value stands for its bucket's upper end, as HdrHistogram's percentiles do."""
        counts: dict[int, int] = {}
        for histogram in histograms:
            for step in histogram.get_recorded_iterator():
                value_us = step.value_iterated_to
                counts[value_us] = counts.get(value_us, 0) + step.count_added_in_this_iter_step
        values = sorted(counts)
        return cls(np.array(values, dtype=float) / 1000, np.array([counts[value] for value in values], dtype=int))

    @property
    def count(self) -> int:
        """Values recorded."""
        return int(self.counts.sum())

    def percentile_ms(self, rank: float) -> float:
        """The value that `rank` percent stay at or below; NaN when there are none."""
        if not self.count:
            return float("nan")
        target = max(1, int(rank * self.count / 100 + 0.5))
        return float(self.values_ms[np.searchsorted(np.cumsum(self.counts), target)])

    def curve(self, tail_values: int = 3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shares at or below, and values in milliseconds, up to where fewer than `tail_values` values decide."""
        if not self.count:
            return np.array([]), np.array([])
        shares = np.cumsum(self.counts) / self.count
        known = shares <= 1 - min(1.0, tail_values / self.count)
        return shares[known], self.values_ms[known]


def spread_of(series: Series | None, keep: Callable[[float], bool] | None = None) -> Spread:
    """A series' values: of the whole run, or of the windows whose start in seconds `keep` accepts."""
    if series is None:
        return Spread.of(())
    if keep is None:
        return Spread.of((series.whole,))
    return Spread.of(one for window, one in series.by_window.items() if keep(window * WINDOW_S))


def percentiles_over_time(series: Series | None, ranks: Iterable[float]) -> dict[int, tuple[float, ...]]:
    """Percentiles in milliseconds of each window that has values, by window."""
    if series is None:
        return {}
    ranks = tuple(ranks)
    found = {}
    for window in sorted(series.by_window):
        spread = Spread.of((series.by_window[window],))
        if spread.count:
            found[window] = tuple(spread.percentile_ms(rank) for rank in ranks)
    return found
