"""Sentences that can be told apart by ear: each is one steady tone, so what was heard of it can be measured."""

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
from livekit import rtc

FRAME_S = 0.02
LOUD = 1_000
"""Root mean square above which a frame is not silence; the tones have 7 000."""


async def tone(
    pitch_hz: int, seconds: float, *, head_start_s: float, rate_hz: int = 22_050
) -> AsyncIterator[rtc.AudioFrame]:
    """A tone in frames of 20 ms: some at once, the rest in real time, as a voice that is synthesised."""
    began_s = time.monotonic()
    size = round(rate_hz * FRAME_S)
    for number in range(round(seconds / FRAME_S)):
        await asyncio.sleep(max(0.0, began_s + number * FRAME_S - head_start_s - time.monotonic()))
        turns = np.arange(number * size, (number + 1) * size) * pitch_hz / rate_hz
        samples = (np.sin(2 * np.pi * turns) * 10_000).astype(np.int16)
        yield rtc.AudioFrame(samples.tobytes(), rate_hz, 1, size)


def pitches(pcm: np.ndarray, rate_hz: int) -> np.ndarray:
    """The pitch of each whole frame of 20 ms, to the nearest 50 Hz; 0 where it is silent."""
    size = round(rate_hz * FRAME_S)
    frames = pcm[: len(pcm) // size * size].reshape(-1, size).astype(np.float64)
    loudness = np.sqrt(np.mean(frames**2, axis=1))
    peaks = np.argmax(np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)), axis=1) / FRAME_S
    return np.where(loudness > LOUD, peaks, 0)


def seconds_of(pitch_hz: int, heard: np.ndarray) -> float:
    """How much of a pitch there is. A pause in it, as a busy machine may make, does not count."""
    return int(np.count_nonzero(heard == pitch_hz)) * FRAME_S
