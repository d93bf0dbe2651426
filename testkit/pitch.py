"""Sentences that tell how far they were heard: a scale that climbs a step each 100 ms.

Whatever a busy machine loses, repeats or stretches on the way, the last step that was heard says where it ended.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
from livekit import rtc

FRAME_S = 0.02
STEP_S = 0.1
STEP_HZ = 50
"""Resolution of a frame of 20 ms."""
LOUD = 1_000
"""Root mean square above which a frame is not silence; the scales have 7 000."""
_CLEAR_FRAMES = 3
"""Frames of a step, of five, that must be heard for it to count."""


@dataclass(frozen=True)
class Scale:
    """A sentence. Those that are to be told apart share no pitch."""

    first_hz: int
    seconds: float

    @property
    def steps(self) -> int:
        return round(self.seconds / STEP_S)


async def voice(scale: Scale, *, head_start_s: float, rate_hz: int = 22_050) -> AsyncIterator[rtc.AudioFrame]:
    """Yield a scale in frames of 20 ms: some at once, the rest in real time, as a synthesised voice comes."""
    began_s, size = time.monotonic(), round(rate_hz * FRAME_S)
    for number in range(round(scale.seconds / FRAME_S)):
        await asyncio.sleep(max(0.0, began_s + number * FRAME_S - head_start_s - time.monotonic()))
        pitch_hz = scale.first_hz + number * round(FRAME_S * 1000) // round(STEP_S * 1000) * STEP_HZ
        turns = np.arange(number * size, (number + 1) * size) * pitch_hz / rate_hz
        samples = (np.sin(2 * np.pi * turns) * 10_000).astype(np.int16)
        yield rtc.AudioFrame(samples.tobytes(), rate_hz, 1, size)


def pitches(pcm: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return the pitch of each whole frame of 20 ms, to the nearest step; 0 for silence."""
    size = round(rate_hz * FRAME_S)
    frames = pcm[: len(pcm) // size * size].reshape(-1, size).astype(np.float64)
    loudness = np.sqrt(np.mean(frames**2, axis=1))
    peaks = np.argmax(np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)), axis=1) / FRAME_S
    return np.where(loudness > LOUD, peaks, 0)


def heard_until_s(scale: Scale, heard: np.ndarray) -> float:
    """Return the second at which the last clear step of a scale ends; 0 when no step was heard."""
    steps = (heard - scale.first_hz) / STEP_HZ
    counted = np.bincount(steps[(steps >= 0) & (steps < scale.steps)].astype(np.int64), minlength=1)
    clear = np.flatnonzero(counted >= _CLEAR_FRAMES)
    return 0.0 if len(clear) == 0 else (int(clear[-1]) + 1) * STEP_S
