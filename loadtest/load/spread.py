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
    """Distinct values in milliseconds, ascending, with their counts."""

    values_ms: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, histograms: Iterable[HdrHistogram]) -> Self:
        """Add histograms up. A value stands for its bucket's upper end, as HdrHistogram's percentiles do."""
        values_us, counts = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for histogram in histograms:
            recorded = np.ctypeslib.as_array(histogram.counts)
            buckets = np.flatnonzero(recorded)
            values_us.append(_upper_ends_us(histogram.sub_bucket_half_count_magnitude, buckets))
            counts.append(recorded[buckets].astype(np.int64))
        distinct, places = np.unique(np.concatenate(values_us), return_inverse=True)
        totals = np.zeros(len(distinct), dtype=np.int64)
        np.add.at(totals, places, np.concatenate(counts))
        return cls(distinct / 1000, totals)

    @property
    def count(self) -> int:
        """Values recorded."""
        return int(self.counts.sum())

    def percentile_ms(self, rank: float) -> float:
        """Return the value that `rank` percent stay at or below; NaN without values."""
        if not self.count:
            return float("nan")
        target = max(1, int(rank * self.count / 100 + 0.5))
        return float(self.values_ms[np.searchsorted(np.cumsum(self.counts), target)])

    def curve(self, tail_values: int = 3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return shares at or below, and values in milliseconds, until fewer than `tail_values` values remain."""
        if not self.count:
            return np.array([]), np.array([])
        shares = np.cumsum(self.counts) / self.count
        known = shares <= 1 - min(1.0, tail_values / self.count)
        return shares[known], self.values_ms[known]


def _upper_ends_us(half_magnitude: int, buckets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the largest value of each bucket of a histogram whose smallest value is 1.

    The library's own iterator returns the same, a hundred times more slowly. The layout is HdrHistogram's: a first
    block of buckets one apart, then half blocks, each twice as coarse as the one before.
    """
    half = 1 << half_magnitude
    exponents = np.maximum((buckets >> half_magnitude) - 1, 0)
    places = (buckets & (half - 1)) + np.where(buckets < half, 0, half)
    ends: NDArray[np.int64] = ((places + 1) << exponents) - 1
    return ends


def spread_of(series: Series | None, keep: Callable[[float], bool] | None = None) -> Spread:
    """Return a series' values: of the whole run, or of the windows whose start in seconds `keep` accepts."""
    if series is None:
        return Spread.of(())
    if keep is None:
        return Spread.of((series.whole,))
    return Spread.of(one for window, one in series.by_window.items() if keep(window * WINDOW_S))


def percentiles_over_time(series: Series | None, ranks: Iterable[float]) -> dict[int, tuple[float, ...]]:
    """Return the percentiles in milliseconds of each window that has values, by window."""
    if series is None:
        return {}
    ranks = tuple(ranks)
    found = {}
    for window in sorted(series.by_window):
        spread = Spread.of((series.by_window[window],))
        if spread.count:
            found[window] = tuple(spread.percentile_ms(rank) for rank in ranks)
    return found
