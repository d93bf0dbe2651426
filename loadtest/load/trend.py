"""Whether something grows: the slope of a straight line, with a band that knows how little noisy samples say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

_LEAST_SAMPLES: Final = 8
_HIGHEST_CORRELATION: Final = 0.98


@dataclass(frozen=True, slots=True)
class Trend:
    """Growth per second, and the band that holds the truth with the confidence asked for."""

    per_s: float
    low_per_s: float
    high_per_s: float
    effective_samples: float
    """How many independent samples the noisy ones are worth."""


def trend(times_s: Sequence[float], values: Sequence[float], *, confidence: float = 0.95) -> Trend | None:
    """Fit a line by least squares; None when there are too few samples, or all at one moment.

    Neighbouring samples of a process resemble each other: memory moves in stairs. The band is widened as if only
    n(1 - r)/(1 + r) samples had been taken, r being the residuals' correlation with their neighbours, the usual
    correction for first-order autocorrelation.
    """
    if len(times_s) < _LEAST_SAMPLES:
        return None
    times, measured = np.asarray(times_s, dtype=float), np.asarray(values, dtype=float)
    centred = times - times.mean()
    spread = float(centred @ centred)
    if not spread:
        return None
    slope = float(centred @ measured) / spread
    residuals = measured - measured.mean() - slope * centred
    squares = float(residuals @ residuals)
    if not squares:
        return Trend(slope, slope, slope, float(len(times)))
    seen = float(residuals[1:] @ residuals[:-1]) / squares
    # Residuals of a fitted line look less correlated than they are, the more so the fewer: Kendall's correction.
    correlation = min(_HIGHEST_CORRELATION, max(0.0, seen + (2 + 4 * seen) / len(times)))
    effective = max(4.0, len(times) * (1 - correlation) / (1 + correlation))
    error = math.sqrt(squares / (len(times) - 2) / spread) * math.sqrt(len(times) / effective)
    half = error * _student(0.5 + confidence / 2, effective - 2)
    return Trend(slope, slope - half, slope + half, effective)


def _student(probability: float, freedom: float) -> float:
    """Quantile of Student's distribution, by the Cornish-Fisher expansion (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
