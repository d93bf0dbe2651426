"""Figures of windows, and the ratio of a gateway's CPU to the floor's. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

LATE_S: Final = 0.015
"""A generator later than this at its 99th percentile no longer talks in real time."""
BUSY: Final = 0.9
"""A generator's core busier than this has nothing left for punctuality."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median and 99th percentile of a set of times, milliseconds; not a number when there are none."""

    p50_ms: float
    p99_ms: float
    count: int

    @classmethod
    def of(cls, values_s: Sequence[float]) -> Self:
        """Return those of times in seconds."""
        ordered = sorted(values_s)
        return cls(1000 * percentile(ordered, 50), 1000 * percentile(ordered, 99), len(ordered))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Figures of one server in one window."""

    audio_s: float
    """Audio written, all sessions together."""
    seconds: float
    cpu_s: float
    """CPU time of the server."""
    core_busy: float
    """Share of the server's core that all processes took, 0 to 1."""
    load_share: float
    """Share of the other core that generator and sink took together."""
    load_core_busy: float
    stolen: float
    """Share of the busier core's time that the hypervisor gave to others."""
    lateness: Quantiles
    """Delay of the generator's own writes."""
    first_packets: Quantiles
    """From the write of the chunk that completes a first packet to the packet's arrival upstream."""
    packets: int
    underruns: int

    @property
    def cpu_ms_per_audio_s(self) -> float:
        """CPU per second of audio."""
        return 1000 * self.cpu_s / self.audio_s

    @property
    def problem(self) -> str:
        """Reason why the window says nothing of the server; empty when it does."""
        if self.lateness.p99_ms > 1000 * LATE_S:
            return f"chunks were {self.lateness.p99_ms:.1f} ms late at p99, limit {1000 * LATE_S:g} ms"
        if self.load_core_busy > BUSY:
            return f"the generator's core was {self.load_core_busy:.0%} busy, limit {BUSY:.0%}"
        return ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ratio of two servers' CPU per second of audio over alternating windows: median, lowest and highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, windows: Sequence[Window], floor: Sequence[Window]) -> Self:
        """Return that of pairs of neighbouring windows."""
        ratios = [
            one.cpu_ms_per_audio_s / base.cpu_ms_per_audio_s for one, base in zip(windows, floor, strict=True)
        ]
        return cls(statistics.median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Windows of all servers under one load, by the server's name, in the order in which they were measured."""

    title: str
    windows: dict[str, list[Window]] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Return the reasons why the load is void."""
        return [
            f"{name}, round {number}: {window.problem}"
            for name, windows in self.windows.items()
            for number, window in enumerate(windows, 1)
            if window.problem
        ]

    def ratio(self, name: str) -> Ratio:
        """Return a server's ratio to the floor."""
        return Ratio.of(self.windows[name], self.windows[FLOOR])


FLOOR: Final = "floor"
"""Name of the bare server."""
GATEWAY: Final = "gateway"
"""Name of this checkout's gateway."""


def percentile(ordered: Sequence[float], rank: float) -> float:
    """Return the nearest-rank percentile of values in ascending order; not a number when there are none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * rank / 100) - 1)]
