"""Figures of a run: names, meanings and recorded values.

A new figure is one entry in `FIGURES`, one call of `Recorder.took` where it happens, and, if it is to be judged,
one line in `objectives.toml`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from hdrh.histogram import HdrHistogram

System = Literal["gateway", "direct"]
"""System under load: the gateway, or LiveAvatar's own REST and socket as the baseline of the same run."""

_HIGHEST_US: Final = 3_600_000_000
_DIGITS: Final = 3
WINDOW_S: Final = 5
"""A histogram over time has steps of this many seconds, coarser ones of two digits: at three digits and a second
each, ten minutes would take gigabytes."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A time that is measured many times in a run."""

    name: str
    """Name in Locust's tables, objectives and reports."""
    meaning: str
    """Start and end of the measured time."""
    phase: Literal["lifetime", "session", "utterance", "message"]
    """Object of one value. Lifetimes never mix with latencies: a stream's length says nothing of its speed."""


FIGURES: Final = {
    figure.name: figure
    for figure in (
        Figure("session open", "arrival's intended time to a session that can speak", "session"),
        Figure(
            "queue wait",
            "the gateway's first word of a position in the queue to `opened`, of the callers that had to wait",
            "session",
        ),
        Figure("attach", "audio header written to `ready`", "session"),
        Figure(
            "first packet upstream",
            "intended time of the chunk that completes the first packet to its arrival upstream",
            "utterance",
        ),
        Figure("started", "intended time of the first chunk to `started`", "utterance"),
        Figure(
            "ack delay",
            "intended time of the newest chunk that an ack covers to that ack, while more chunks follow",
            "message",
        ),
        Figure(
            "interrupt to silence",
            "intended time of the interrupt to the moment the avatar falls silent",
            "utterance",
        ),
        Figure("unary call", "look-up of an open session sent to its answer", "message"),
        Figure("chunk lateness", "intended time of a chunk to its write: the generator's own delay", "message"),
        Figure("deferred", "how late an arrival began because every user was busy", "session"),
        Figure("session lifetime", "arrival to the end of its session", "lifetime"),
        Figure("stream lifetime", "audio stream opened to closed", "lifetime"),
        Figure(
            "session open, closed loop",
            "the same from when it really began, as generators count that wait their turn: for comparison only",
            "session",
        ),
        Figure(
            "started, closed loop",
            "the same from when the first chunk was really written: for comparison only",
            "utterance",
        ),
    )
}

CLOSED_LOOP: Final = ", closed loop"
"""Suffix of figures that count as a closed loop does, for comparison; no objective judges them."""

COUNTERS: Final = {
    "arrivals": "arrivals of the schedule that began",
    "arrivals missed": "arrivals that were due and never began",
    "sessions": "sessions that could speak",
    "utterances": "utterances begun",
    "completed": "utterances spoken to their end",
    "interrupted": "utterances cut by an interrupt",
    "underruns": "times the avatar ran dry inside an utterance, as the emulator saw it",
    "calls accepted": "calls of a flood that the gateway accepted",
    "quota refusals": "calls and sessions that the gateway refused because of a quota of their tenant",
    "audio bytes": "speech written, bytes of 24 kHz mono s16le",
    "utterances checked": "utterances whose bytes upstream were compared with what was spoken",
    "integrity failures": "utterances that lost, repeated or reordered a byte on their way",
}


@dataclass(slots=True)
class Series:
    """All values of one figure: a histogram of the whole run and one per window of it. Values are seconds."""

    whole: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, _HIGHEST_US, _DIGITS))
    by_window: dict[int, HdrHistogram] = field(default_factory=dict)
    """Keyed by how many times `WINDOW_S` seconds have passed since the run's start."""

    def add(self, value_s: float, window: int, times: int = 1) -> None:
        """Record one value, or the same one several times."""
        value_us = min(_HIGHEST_US, max(1, round(value_s * 1_000_000)))
        self.whole.record_value(value_us, times)
        if window not in self.by_window:
            self.by_window[window] = _coarse()
        self.by_window[window].record_value(value_us, times)

    @property
    def count(self) -> int:
        """Values recorded."""
        return int(self.whole.get_total_count())

    def percentile_ms(self, rank: float) -> float:
        """Return the value that `rank` percent stay at or below, milliseconds; 0 without values."""
        return float(self.whole.get_value_at_percentile(rank)) / 1000 if self.count else 0.0

    def max_ms(self) -> float:
        """Return the largest value, milliseconds; 0 without values."""
        return float(self.whole.get_max_value()) / 1000 if self.count else 0.0

    def merge(self, other: Self) -> None:
        """Add another series' values."""
        self.whole.add(other.whole)
        for window, histogram in other.by_window.items():
            if window in self.by_window:
                self.by_window[window].add(histogram)
            else:
                self.by_window[window] = histogram

    def to_json(self) -> dict[str, Any]:
        """Return plain values for workers' reports and result files."""
        return {
            "whole": self.whole.encode().decode(),
            "by_window": {str(window): one.encode().decode() for window, one in self.by_window.items()},
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """Read the values of `to_json`."""
        series = cls()
        series.whole.decode_and_add(row["whole"].encode())
        for window, text in row["by_window"].items():
            histogram = _coarse()
            histogram.decode_and_add(text.encode())
            series.by_window[int(window)] = histogram
        return series


class Recorder:
    """Measurements of a generator process. `merge` adds those of another one; not thread-safe."""

    def __init__(self, started_mono_s: float | None = None) -> None:
        self.started_mono_s = time.monotonic() if started_mono_s is None else started_mono_s
        self.series: dict[tuple[System, str], Series] = {}
        self.counters: dict[tuple[System, str], int] = {}
        self.errors: dict[tuple[System, str], int] = {}
        self.expected_errors: dict[tuple[System, str], int] = {}
        self.over_time: dict[tuple[System, str], dict[int, int]] = {}
        """Counters by window, as in `Series.by_window`; all errors of a window are under "errors"."""
        self.integrity_failures: list[str] = []
        self.tenants: dict[str, Recorder] = {}
        """The share of each tenant, by its name; empty when callers show at most one credential."""

    def record(self, system: System, figure: str, value_s: float, *, at_mono_s: float, times: int = 1) -> None:
        """Record one value of a figure, or the same one several times, that belongs to the moment `at_mono_s`.

        Raises:
            KeyError: no figure has that name.
        """
        series = self.series.get((system, figure))
        if series is None:
            # `setdefault` would make a new series, 200 kB of zeros, with each value.
            series = self.series[system, FIGURES[figure].name] = Series()
        series.add(value_s, self._window(at_mono_s), times)

    def count(self, system: System, counter: str, by: int = 1, *, at_mono_s: float | None = None) -> None:
        """Add to a counter, at the moment `at_mono_s`: now, if none is given.

        Raises:
            KeyError: no counter has that name.
        """
        if counter not in COUNTERS:
            raise KeyError(counter)
        key = (system, counter)
        self.counters[key] = self.counters.get(key, 0) + by
        self._count_in_window(key, by, at_mono_s)

    def failed(
        self, system: System, reason: str, *, expected: bool = False, at_mono_s: float | None = None
    ) -> None:
        """Count an error by its reason. An expected one was provoked by a fault of the run's own timeline."""
        errors = self.expected_errors if expected else self.errors
        errors[system, reason] = errors.get((system, reason), 0) + 1
        self._count_in_window((system, "errors"), 1, at_mono_s)

    def note_integrity_failure(self, system: System, what: str) -> None:
        """Record an utterance whose bytes upstream differ from those that were sent."""
        self.count(system, "integrity failures")
        self.integrity_failures.append(what)

    def merge(self, other: Self) -> None:
        """Add another process's measurements."""
        for key, series in other.series.items():
            if key in self.series:
                self.series[key].merge(series)
            else:
                self.series[key] = series
        for mine, theirs in (
            (self.counters, other.counters),
            (self.errors, other.errors),
            (self.expected_errors, other.expected_errors),
        ):
            for name, number in theirs.items():
                mine[name] = mine.get(name, 0) + number
        for key, windows in other.over_time.items():
            for window, number in windows.items():
                self._add_to_window(key, window, number)
        self.integrity_failures += other.integrity_failures
        for tenant, share in other.tenants.items():
            self.of_tenant(tenant).merge(share)

    def of_tenant(self, tenant: str) -> "Recorder":
        """Return the share of a tenant."""
        if tenant not in self.tenants:
            self.tenants[tenant] = Recorder(self.started_mono_s)
        return self.tenants[tenant]

    def rename_tenants(self, names: Mapping[str, str]) -> None:
        """Give tenants other names; shares that get the same name are added up."""
        shares, self.tenants = self.tenants, {}
        for tenant, share in shares.items():
            self.of_tenant(names.get(tenant, tenant)).merge(share)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for workers' reports and result files."""
        return {
            "series": [
                {"system": system, "figure": figure, **series.to_json()}
                for (system, figure), series in sorted(self.series.items())
            ],
            "counters": _rows(self.counters),
            "errors": _rows(self.errors),
            "expected_errors": _rows(self.expected_errors),
            "over_time": [
                [system, name, sorted(windows.items())]
                for (system, name), windows in sorted(self.over_time.items())
            ],
            "integrity_failures": self.integrity_failures,
            "tenants": {tenant: share.to_json() for tenant, share in sorted(self.tenants.items())},
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """Read the values of `to_json`."""
        recorder = cls(0.0)
        recorder.series = {(one["system"], one["figure"]): Series.from_json(one) for one in row["series"]}
        recorder.counters = {(system, name): number for system, name, number in row["counters"]}
        recorder.errors = {(system, name): number for system, name, number in row["errors"]}
        recorder.expected_errors = {(system, name): number for system, name, number in row["expected_errors"]}
        recorder.over_time = {(system, name): dict(windows) for system, name, windows in row["over_time"]}
        recorder.integrity_failures = list(row["integrity_failures"])
        # Results of earlier versions have no tenants.
        recorder.tenants = {tenant: cls.from_json(share) for tenant, share in row.get("tenants", {}).items()}
        return recorder

    def _window(self, at_mono_s: float) -> int:
        return max(0, int((at_mono_s - self.started_mono_s) / WINDOW_S))

    def _count_in_window(self, key: tuple[System, str], by: int, at_mono_s: float | None) -> None:
        self._add_to_window(key, self._window(time.monotonic() if at_mono_s is None else at_mono_s), by)

    def _add_to_window(self, key: tuple[System, str], window: int, by: int) -> None:
        windows = self.over_time.setdefault(key, {})
        windows[window] = windows.get(window, 0) + by


def _coarse() -> HdrHistogram:
    return HdrHistogram(1, _HIGHEST_US, 2)


def _rows(numbers: dict[tuple[System, str], int]) -> list[tuple[str, str, int]]:
    return [(system, name, number) for (system, name), number in sorted(numbers.items())]
