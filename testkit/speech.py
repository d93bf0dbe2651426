"""Sound to speak in tests, and sources that deliver it at their own pace."""

import asyncio
import time
from dataclasses import dataclass

import numpy as np

BYTE_RATE = 48_000
CHUNK_S = 0.02
CHUNK_BYTES = int(BYTE_RATE * CHUNK_S)


def sound(seconds: float, seed: int = 1) -> bytes:
    """Noise of 24 kHz mono s16le: every sample differs, so any loss, repeat or swap shows."""
    rng = np.random.default_rng(seed)
    return rng.integers(-20_000, 20_000, round(seconds * BYTE_RATE / 2), dtype=np.int16).tobytes()


@dataclass(frozen=True)
class Step:
    """Some audio at some time."""

    at_s: float
    size: int


def real_time(size: int) -> list[Step]:
    """20 ms chunks, each when its first sample is due."""
    return [Step(start / BYTE_RATE, min(CHUNK_BYTES, size - start)) for start in range(0, size, CHUNK_BYTES)]


def stuttering(size: int, gaps: list[tuple[float, float]]) -> list[Step]:
    """20 ms chunks in real time but for gaps `(from, to)`, after which all that is owed comes as one chunk."""
    steps: list[Step] = []
    for step in real_time(size):
        held = next((end for start, end in gaps if start <= step.at_s < end), None)
        if held is not None and steps and steps[-1].at_s == held:
            steps[-1] = Step(held, steps[-1].size + step.size)
        else:
            steps.append(Step(step.at_s if held is None else held, step.size))
    return steps


@dataclass(frozen=True)
class Dryness:
    """Underruns of an ideal player, and their distance from the limit."""

    count: int
    clearance_s: float
    """The smallest time by which a gap was survived or not survived."""


def ideal_player(steps: list[Step], *, first_s: float = 0.4, start_delay_s: float = 0.2) -> Dryness:
    """Play each byte as soon as it is there: what no sender on earth can improve on."""
    gathered, begin_s = 0, 0.0
    for step in steps:
        gathered += step.size
        if gathered >= first_s * BYTE_RATE:
            begin_s = step.at_s + start_delay_s
            break
    dry_at_s, count, clearance_s, before_s = begin_s, 0, float("inf"), 0.0
    for step in steps:
        if step.at_s > max(begin_s, before_s):
            clearance_s = min(clearance_s, abs(step.at_s - dry_at_s))
            if step.at_s > dry_at_s:
                count += 1
                dry_at_s = step.at_s
        dry_at_s += step.size / BYTE_RATE
        before_s = step.at_s
    return Dryness(count, clearance_s)


async def play_out(steps: list[Step], pcm: bytes, send) -> float:
    """Send `pcm` as the steps say, on an absolute schedule; returns the worst lateness in seconds."""
    began_s, sent, worst_s = time.monotonic(), 0, 0.0
    for step in steps:
        wait_s = began_s + step.at_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        worst_s = max(worst_s, time.monotonic() - began_s - step.at_s)
        await send(pcm[sent : sent + step.size])
        sent += step.size
    return worst_s
