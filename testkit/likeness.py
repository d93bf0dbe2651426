"""Likeness of what was heard to what was said: of waveforms, of loudness, and the places where they meet."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from testkit.watcher import best_match

WINDOW_S: Final = 0.5
_DRIFT_S: Final = 0.15
"""Farthest that a jitter buffer moves the sound from one window to the next."""
_QUIET: Final = 0.1
"""Loudness, relative to the whole, below which a window holds no speech to compare."""
_ENVELOPE_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Comparison of a sentence with a recording of it."""

    windows: tuple[float, ...]
    """Correlation of each window of half a second that holds speech, aligned on its own."""
    envelope: float
    """Correlation of the loudness, in steps of 20 ms."""
    starts: tuple[tuple[int, int], ...]
    """Sample of the sentence and sample of the recording at which each window begins."""

    @property
    def median(self) -> float:
        """Median correlation of the windows; 0 without any."""
        return float(np.median(self.windows)) if self.windows else 0.0


def likeness(heard: np.ndarray, said: np.ndarray, rate_hz: int) -> Likeness:
    """Find a sentence in a recording of the same rate, and compare the two window by window.

    Args:
        heard: Recording, longer than the sentence.
        said: Sentence.
        rate_hz: Samples per second of both.
    """
    if len(heard) < len(said):
        return Likeness(windows=(), envelope=0.0, starts=())
    place, _ = best_match(heard, said)
    size, drift = round(WINDOW_S * rate_hz), round(_DRIFT_S * rate_hz)
    loud = _QUIET * float(np.sqrt(np.mean(said**2)))
    windows, starts, shift = [], [], 0
    for first in range(0, len(said) - size + 1, size):
        window = said[first : first + size]
        if float(np.sqrt(np.mean(window**2))) < loud:
            continue
        near = max(0, place + first + shift - drift)
        area = heard[near : place + first + shift + size + drift]
        if len(area) < size:
            windows.append(0.0)
            continue
        found, alike = best_match(area, window)
        shift = near + found - place - first
        windows.append(alike)
        starts.append((first, near + found))
    envelope = _correlation(_envelope(said, rate_hz), _envelope(heard[place : place + len(said)], rate_hz))
    return Likeness(windows=tuple(windows), envelope=envelope, starts=tuple(starts))


def _envelope(sound: np.ndarray, rate_hz: int) -> np.ndarray:
    size = round(_ENVELOPE_S * rate_hz)
    return np.sqrt(np.mean(sound[: len(sound) // size * size].reshape(-1, size) ** 2, axis=1))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    count = min(len(one), len(other))
    one, other = one[:count] - one[:count].mean(), other[:count] - other[:count].mean()
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm else 0.0
