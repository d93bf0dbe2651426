"""CPU and talking sessions, from samples of the gateway's process."""

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np

from load.result import Sample

AUDIO_BYTES_PER_S: Final = 48_000
"""24 kHz mono s16le."""


def cpu_s(samples: Sequence[Sample]) -> float | None:
    """Return the CPU seconds between the first and the last sample; None with fewer than two samples."""
    return samples[-1].cpu_s - samples[0].cpu_s if len(samples) > 1 else None


def cpu_share_over_time(samples: Sequence[Sample]) -> tuple[list[float], list[float]]:
    """Return times in seconds, and the share of one core taken since the sample before."""
    times, shares = [], []
    for before, after in itertools.pairwise(samples):
        if (passed_s := after.at_s - before.at_s) > 0:
            times.append(after.at_s)
            shares.append((after.cpu_s - before.cpu_s) / passed_s)
    return times, shares


def talking_s(samples: Sequence[Sample]) -> float:
    """Return the session-seconds of talking: the area under the samples of talking sessions."""
    if len(samples) < 2:
        return 0.0
    return float(np.trapezoid([sample.talking for sample in samples], [sample.at_s for sample in samples]))
