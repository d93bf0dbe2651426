"""Animation of the face: it speaks with the audio, listens, blinks, looks around and sways. Pure.

Time and audio come in, an expression comes out. Equal seeds and inputs give equal expressions.
"""

import math
import random

import numpy as np
from numpy.typing import NDArray

from liveavatar_emulator.avatar.face import Expression
from liveavatar_emulator.protocol import Pose

SILENCE_DB, LOUD_DB = -46.0, -14.0
"""Levels, relative to full scale, of a closed mouth and of a wide open one."""
ROUND_CROSSINGS, WIDE_CROSSINGS = 0.03, 0.17
"""Sign changes per sample of sounds as dark as o, and as bright as e; hissing has more."""
HISS_CROSSINGS = 0.25

_BLINK_S = 0.18


def opening(pcm: bytes) -> float:
    """Return the opening of a mouth that makes this sound, from 0 to 1: its loudness, less for hissing."""
    samples = np.frombuffer(pcm, dtype=np.int16).astype(np.float32)
    power = float(np.mean(samples * samples)) / 32768**2
    level = (10 * math.log10(power + 1e-12) - SILENCE_DB) / (LOUD_DB - SILENCE_DB)
    loud = math.pow(min(1.0, max(0.0, level)), 1.5)
    return loud * 0.45 if _crossings(samples) > HISS_CROSSINGS else loud


def spread(pcm: bytes) -> float:
    """Return the distance of the corners of the mouth for this sound: 0 for dark, 1 for bright sounds."""
    crossings = _crossings(np.frombuffer(pcm, dtype=np.int16))
    return min(1.0, max(0.0, (crossings - ROUND_CROSSINGS) / (WIDE_CROSSINGS - ROUND_CROSSINGS)))


def _crossings(samples: NDArray[np.generic]) -> float:
    if len(samples) == 0:
        return 0.0
    return int(np.count_nonzero(np.diff(np.signbit(samples)))) / len(samples)


class Animation:
    """Animation of one avatar. Invariant: each part of an expression moves smoothly; only blinks are quick."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - when to blink is no secret
        self._at_s = 0.0
        self._mouth = 0.0
        self._spread = 0.5
        self._stress = 0.0
        self._lean = 0.0
        self._attention = 0.0
        self._gaze = (0.0, 0.0)
        self._gaze_target = (0.0, 0.0)
        self._look_at_s = 1.5
        self._blink_at_s = self._random.uniform(1.0, 3.0)

    def at(self, at_s: float, *, pose: Pose, opening: float = 0.0, spread: float = 0.5) -> Expression:
        """Return the expression `at_s` seconds after the avatar appeared; times never decrease."""
        passed_s = at_s - self._at_s
        self._at_s = at_s
        listening = pose is Pose.LISTENING
        self._mouth = _nearer(self._mouth, opening, passed_s, 0.035 if opening > self._mouth else 0.070)
        self._spread = _nearer(self._spread, spread if opening > 0.05 else 0.5, passed_s, 0.080)
        self._stress = _nearer(self._stress, opening, passed_s, 0.250)
        self._lean = _nearer(self._lean, 1.0 if listening else 0.0, passed_s, 0.220)
        self._attention = _nearer(self._attention, 0.45 if listening else 0.0, passed_s, 0.150)
        self._look(at_s, passed_s, still=listening)
        return Expression(
            mouth=0.0 if self._mouth < 0.02 else self._mouth,
            spread=self._spread,
            eyelids=self._blink(at_s),
            gaze=self._gaze,
            brows=min(1.0, self._attention + 0.7 * self._stress),
            sway=(
                0.0050 * _wave(at_s, 5.7) + 0.0028 * _wave(at_s, 3.1),
                0.0026 * _wave(at_s, 4.3) + 0.0060 * self._stress,
            ),
            lean=self._lean * (1 + 0.04 * _wave(at_s, 3.7)),
        )

    def _blink(self, at_s: float) -> float:
        since_s = at_s - self._blink_at_s
        if since_s < 0:
            return 0.0
        if since_s >= _BLINK_S:
            soon = self._random.random() < 0.15
            self._blink_at_s = at_s + (0.15 if soon else self._random.uniform(2.2, 5.5))
            return 0.0
        # Closing takes a third of the blink.
        share = since_s / _BLINK_S
        return share * 3 if share < 1 / 3 else min(1.0, (1 - share) * 1.8)

    def _look(self, at_s: float, passed_s: float, *, still: bool) -> None:
        if at_s >= self._look_at_s:
            self._look_at_s = at_s + self._random.uniform(1.2, 3.5)
            away = (self._random.uniform(-0.6, 0.6), self._random.uniform(-0.3, 0.4))
            self._gaze_target = away if self._random.random() < 0.45 else (0.0, 0.0)
        target = (0.0, 0.0) if still else self._gaze_target
        self._gaze = (
            _nearer(self._gaze[0], target[0], passed_s, 0.050),
            _nearer(self._gaze[1], target[1], passed_s, 0.050),
        )


def _nearer(value: float, target: float, passed_s: float, within_s: float) -> float:
    """Return the value moved towards the target, by two thirds of the distance within `within_s`."""
    return target + (value - target) * math.exp(-max(0.0, passed_s) / within_s)


def _wave(at_s: float, period_s: float) -> float:
    return math.sin(2 * math.pi * at_s / period_s)
