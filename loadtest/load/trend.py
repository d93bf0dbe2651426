"""Slope of a straight line through noisy samples, with its confidence band."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

_LEAST_SAMPLES: Final = 8
_MOST_BLOCKS: Final = 40
_HIGHEST_CORRELATION: Final = 0.98
_LEAST_FREEDOM: Final = 2.0


@dataclass(frozen=True, slots=True)
class Trend:
    """Growth per second, and the band that holds the truth with the confidence asked for."""

    per_s: float
    low_per_s: float
    high_per_s: float
    effective_samples: float
    """Number of independent samples that the noisy samples are worth."""


def trend(
    times_s: Sequence[float],
    values: Sequence[float],
    *,
    loads: Sequence[float] | None = None,
    confidence: float = 0.95,
) -> Trend | None:
    """Fit a line by least squares; None when there are too few samples, or all at one moment.

    What the load explains is no growth: a run whose last minutes happen to be busier than its first has a slope
    that no leak made. So the line is fitted together with a share of each sample's load.

    Neighbouring samples of a process resemble each other: they see the same sessions, and memory moves in stairs.
    So many samples are averaged in blocks first, since what flickers from one to the next would hide how long the
    rest lasts. Then the band is widened as if only n(1 - r)/(1 + r) blocks had been seen, r being the residuals'
    correlation with their neighbours, the usual correction for first-order autocorrelation.

    Args:
        times_s: When the samples were taken.
        values: What grows or does not, in any unit.
        loads: How much the process had to do at each sample, in any unit.
        confidence: How sure the band is to hold the truth.
    """
    if len(times_s) < _LEAST_SAMPLES:
        return None
    times, measured = _averaged(times_s), _averaged(values)
    centred = times - times.mean()
    if not centred.any():
        return None
    load = np.zeros_like(times) if loads is None else _averaged(loads)
    load = load - load.mean()
    if load.any():
        # A part of the load that is itself a straight line over time looks like growth; it counts as growth only
        # as far as the values do not follow the rest of the load.
        explained = np.column_stack((np.ones_like(times), centred, load))
    else:
        explained = np.column_stack((np.ones_like(times), centred))
    factors = np.linalg.lstsq(explained, measured, rcond=None)[0]
    slope = float(factors[1])
    residuals = measured - explained @ factors
    count, known = explained.shape
    squares = float(residuals @ residuals)
    if squares <= 1e-18 * float(measured @ measured):
        return Trend(slope, slope, slope, float(count))
    seen = float(residuals[1:] @ residuals[:-1]) / squares
    # Residuals of a fitted line look less correlated than they are, the more so the fewer: Kendall's correction.
    correlation = min(_HIGHEST_CORRELATION, max(0.0, seen + (2 + 4 * seen) / count))
    effective = max(known + _LEAST_FREEDOM, count * (1 - correlation) / (1 + correlation))
    spread = float(np.linalg.pinv(explained.T @ explained)[1, 1])
    error = math.sqrt(squares / (count - known) * spread * count / effective)
    half = error * _student(0.5 + confidence / 2, effective - known)
    return Trend(slope, slope - half, slope + half, effective)


def _averaged(samples: Sequence[float]) -> NDArray[np.float64]:
    """Return the samples, or the means of enough blocks of neighbours to tell a line from noise."""
    whole = np.asarray(samples, dtype=float)
    return np.array([block.mean() for block in np.array_split(whole, min(len(whole), _MOST_BLOCKS))])


def _student(probability: float, freedom: float) -> float:
    """Quantile of Student's distribution, by the Cornish-Fisher expansion (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
