"""The tables of every output: figures of both systems side by side, shares of tenants, errors, counters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from load.figures import COUNTERS, FIGURES, Figure, Recorder, Series, System
from load.format import format_bytes, format_ms
from load.result import RunResult
from load.usage import AUDIO_BYTES_PER_S, cpu_s, talking_s

RANKS: Final = (50.0, 90.0, 99.0, 99.9)
SYSTEMS: Final[tuple[System, ...]] = ("gateway", "direct")
TENANT_FIGURES: Final = (
    "session open",
    "attach",
    "first packet upstream",
    "started",
    "unary call",
    "interrupt to silence",
)
"""Figures that are shown for each tenant."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Figure of one system; times in milliseconds."""

    count: int
    percentiles_ms: tuple[float, ...]
    """At `RANKS`."""
    max_ms: float


@dataclass(frozen=True, slots=True)
class FigureRow:
    """Figure through the gateway and without it."""

    figure: Figure
    gateway: Measured | None
    direct: Measured | None

    def added_ms(self, rank: float) -> float | None:
        """Return the milliseconds that the gateway adds at a percentile; None unless both were measured."""
        if self.gateway is None or self.direct is None:
            return None
        at = RANKS.index(rank)
        return self.gateway.percentiles_ms[at] - self.direct.percentiles_ms[at]


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Errors of one reason."""

    system: System
    reason: str
    count: int
    provoked: bool
    """By a fault of the run's own timeline."""


@dataclass(frozen=True, slots=True)
class TenantRow:
    """Share of a tenant."""

    tenant: str
    sessions: int
    utterances: int
    accepted: int
    """Calls of a flood that the gateway accepted."""
    refused: int
    """Calls and sessions that the gateway refused because of a quota."""
    errors: int
    """Unexplained errors, refusals of sessions included."""
    figures: tuple[tuple[Figure, Measured], ...]


def tenant_rows(result: RunResult) -> list[TenantRow]:
    """Return the shares of tenants; none unless there are several."""
    tenants = result.measured.tenants
    return [_tenant_row(tenant, share) for tenant, share in sorted(tenants.items())] if len(tenants) > 1 else []


def counts_of(row: TenantRow) -> str:
    """Return the counts of a tenant in words."""
    parts = [f"{row.sessions:,} sessions", f"{row.utterances:,} utterances"]
    if row.accepted:
        parts.append(f"{row.accepted:,} calls accepted")
    parts += [f"{row.refused:,} refused by quotas", f"{row.errors:,} errors"]
    return ", ".join(parts)


def _tenant_row(tenant: str, share: Recorder) -> TenantRow:
    def number(counter: str) -> int:
        return share.counters.get(("gateway", counter), 0)

    measured = ((FIGURES[name], _measured(share.series.get(("gateway", name)))) for name in TENANT_FIGURES)
    return TenantRow(
        tenant,
        sessions=number("sessions"),
        utterances=number("utterances"),
        accepted=number("calls accepted"),
        refused=number("quota refusals"),
        errors=sum(share.errors.values()),
        figures=tuple((figure, values) for figure, values in measured if values is not None),
    )


def figure_rows(result: RunResult) -> list[FigureRow]:
    """Return the figures that have values, in the order of `FIGURES`."""
    rows = [
        FigureRow(
            figure,
            _measured(result.measured.series.get(("gateway", figure.name))),
            _measured(result.measured.series.get(("direct", figure.name))),
        )
        for figure in FIGURES.values()
    ]
    return [row for row in rows if row.gateway or row.direct]


def error_rows(result: RunResult) -> list[ErrorRow]:
    """Return the errors, unexplained before provoked, then by frequency."""
    rows = [
        ErrorRow(system, reason, count, provoked)
        for provoked, errors in ((False, result.measured.errors), (True, result.measured.expected_errors))
        for (system, reason), count in errors.items()
    ]
    return sorted(rows, key=lambda row: (row.provoked, -row.count, row.reason))


def counter_rows(result: RunResult) -> list[tuple[str, str, tuple[str, str]]]:
    """Return the counters that are not zero: name, meaning, and each system's number."""
    rows = []
    for name, meaning in COUNTERS.items():
        numbers = [result.measured.counters.get((system, name), 0) for system in SYSTEMS]
        if any(numbers):
            shown = [format_bytes(number) if name.endswith("bytes") else f"{number:,}" for number in numbers]
            rows.append((name, meaning, (shown[0], shown[1])))
    return rows


def highlights(result: RunResult) -> list[tuple[str, str, str]]:
    """Return the most important numbers: label, value, and reference value."""
    measured, rows = result.measured, {row.figure.name: row for row in figure_rows(result)}
    shown = [
        (
            "utterances spoken",
            f"{measured.counters.get(('gateway', 'utterances'), 0):,}",
            f"in {measured.counters.get(('gateway', 'sessions'), 0):,} sessions",
        )
    ]
    if result.samples:
        talking = [sample.talking for sample in result.samples]
        shown.append(("talking at once", f"{max(talking)}", f"{sum(talking) / len(talking):.1f} on average"))
    for name in ("first packet upstream", "started", "interrupt to silence"):
        row = rows.get(name)
        if row is None or row.gateway is None:
            continue
        added = row.added_ms(99.0)
        against = f"p50 {format_ms(row.gateway.percentiles_ms[0])}"
        if added is not None:
            against += f", direct p99 {format_ms(row.gateway.percentiles_ms[2] - added)}"
        shown.append((f"{name}, p99", format_ms(row.gateway.percentiles_ms[2]), against))
    if (cost := cost_line(result)) is not None:
        shown.append(cost)
    checked = measured.counters.get(("gateway", "utterances checked"), 0)
    if checked:
        broken = len(measured.integrity_failures)
        shown.append(
            ("utterances intact", f"{checked - broken:,} of {checked:,}", "compared byte for byte upstream")
        )
    else:
        shown.append(("utterances intact", "not checked", "no recording could be compared"))
    errors = sum(number for (system, _), number in measured.errors.items() if system == "gateway")
    provoked = sum(measured.expected_errors.values())
    shown.append(
        ("unexplained errors", f"{errors:,}", f"{provoked:,} provoked by faults" if provoked else "no faults")
    )
    return shown


def cost_line(result: RunResult) -> tuple[str, str, str] | None:
    """Return the gateway's CPU per second of audio; None when it was not sampled."""
    used_s = cpu_s(result.samples)
    audio_s = result.measured.counters.get(("gateway", "audio bytes"), 0) / AUDIO_BYTES_PER_S
    if used_s is None or not audio_s:
        return None
    talked_s = talking_s(result.samples)
    against = f"{1000 * used_s / talked_s:.2f} ms per session-second" if talked_s else "of the gateway's process"
    return ("CPU per second of audio", f"{1000 * used_s / audio_s:.2f} ms", against)


def has_direct(rows: Sequence[FigureRow]) -> bool:
    """Return whether any figure was measured without the gateway."""
    return any(row.direct for row in rows)


def _measured(series: Series | None) -> Measured | None:
    if series is None or not series.count:
        return None
    return Measured(series.count, tuple(series.percentile_ms(rank) for rank in RANKS), series.max_ms())
