"""Judgement of single objectives: a function per kind, whose message has the figure, its value and the limit."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Final

from load.figures import WINDOW_S, System
from load.format import format_ms
from load.objectives import (
    Count,
    Cpu,
    Errors,
    Growth,
    Integrity,
    Latency,
    Leaks,
    Objective,
    Recovery,
    Sharing,
)
from load.result import RunResult, Sample
from load.spread import percentiles_over_time, spread_of
from load.trend import trend
from load.usage import AUDIO_BYTES_PER_S, cpu_s
from load.verdict import Status

_MIB: Final = 1024 * 1024
_HOUR_S: Final = 3600
_DETAILS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Result of one objective."""

    status: Status
    message: str
    value: float | None = None
    limit: float | None = None
    unit: str = ""


@singledispatch
def find(objective: Objective, result: RunResult) -> Finding:
    """Judge one objective, whatever the generator's state.

    Raises:
        NotImplementedError: its kind has no function here.
    """
    raise NotImplementedError(type(objective).__name__)


@find.register
def _latency(objective: Latency, result: RunResult) -> Finding:
    keep = _kept_windows(objective, result)
    series = result.measured.series
    mine = spread_of(series.get(("gateway", objective.figure)), keep)
    what = f"{objective.figure} p{objective.percentile:g}"
    if objective.settle_s and result.faults:
        what += f" (without the {objective.settle_s:g} s after each fault)"
    if mine.count < objective.at_least_values:
        return Finding(
            status="void",
            message=f"{what} cannot be judged by {mine.count} values, {objective.at_least_values} are needed",
            unit="ms",
        )
    value = mine.percentile_ms(objective.percentile)
    limit, derivation = objective.at_most_ms, ""
    if limit is None:
        direct = spread_of(series.get(("direct", objective.figure)), keep)
        if direct.count < objective.at_least_values:
            return Finding(
                status="void",
                message=f"{what} is {format_ms(value)}, but the direct users have only {direct.count} values "
                f"to compare with, {objective.at_least_values} are needed",
                value=value,
                unit="ms",
            )
        limit, derivation = _relative_limit(objective, direct.percentile_ms(objective.percentile))
    return Finding(
        status="held" if value <= limit else "broken",
        message=f"{what} is {format_ms(value)}, limit {format_ms(limit)}{derivation}",
        value=value,
        limit=limit,
        unit="ms",
    )


def _relative_limit(objective: Latency, direct_ms: float) -> tuple[float, str]:
    choices = []
    if (ratio := objective.at_most_ratio_of_direct) is not None:
        choices.append((ratio * direct_ms, f" ({ratio:g} times direct's {format_ms(direct_ms)})"))
    if (over := objective.at_most_ms_over_direct) is not None:
        choices.append((direct_ms + over, f" (direct's {format_ms(direct_ms)} + {format_ms(over)})"))
    return max(choices)


def _kept_windows(objective: Latency, result: RunResult) -> Callable[[float], bool] | None:
    faults = [float(fault["at_s"]) for fault in result.faults] if objective.settle_s else []
    if not objective.after_s and not faults:
        return None

    def keep(start_s: float) -> bool:
        settling = any(at_s - WINDOW_S < start_s < at_s + objective.settle_s for at_s in faults)
        return start_s >= objective.after_s and not settling

    return keep


@find.register
def _sharing(objective: Sharing, result: RunResult) -> Finding:
    share = result.measured.tenants.get(objective.tenant)
    series = None if share is None else share.series.get(("gateway", objective.figure))
    end_s = max((to_s for _, to_s in result.noisy), default=0.0)

    def is_noisy(start_s: float) -> bool:
        return any(from_s <= start_s < to_s for from_s, to_s in result.noisy)

    alone = spread_of(series, lambda start_s: objective.after_s <= start_s < end_s and not is_noisy(start_s))
    beside = spread_of(series, is_noisy)
    what = f"{objective.figure} p{objective.percentile:g} of {objective.tenant}"
    count = min(alone.count, beside.count)
    if count < objective.at_least_values:
        return Finding(
            status="void",
            message=f"{what} cannot be judged by {alone.count} values alone and {beside.count} beside the flood, "
            f"{objective.at_least_values} of each are needed",
            unit="ms",
        )
    alone_ms, value = (spread.percentile_ms(objective.percentile) for spread in (alone, beside))
    limit = max(objective.at_most_ratio_of_alone * alone_ms, alone_ms + objective.at_most_ms_over_alone)
    return Finding(
        status="held" if value <= limit else "broken",
        message=f"{what} is {format_ms(value)} beside the flood, {format_ms(alone_ms)} alone "
        f"({value / alone_ms:.2f} times, of {beside.count} and {alone.count} values), limit {format_ms(limit)}",
        value=value,
        limit=limit,
        unit="ms",
    )


@find.register
def _count(objective: Count, result: RunResult) -> Finding:
    what = objective.counter if objective.per is None else f"{objective.counter} per {objective.per}"
    if objective.tenant is not None:
        what += f" of {objective.tenant}"
    value, direct = (_quotient(result, system, objective) for system in ("gateway", "direct"))
    if value is None:
        return Finding(status="void", message=f"{what}: there were no {objective.per}")
    limits = []
    if objective.at_most is not None:
        limits.append((value <= objective.at_most, objective.at_most, f"at most {objective.at_most:g}"))
    if objective.at_least is not None:
        limits.append((value >= objective.at_least, objective.at_least, f"at least {objective.at_least:g}"))
    if (over := objective.at_most_over_direct) is not None:
        if direct is None:
            return Finding(
                status="void", message=f"{what} is {value:.4g}, but no direct user has any to compare with"
            )
        limits.append((value <= direct + over, direct + over, f"at most direct's {direct:.4g} + {over:g}"))
    _, limit, words = next((one for one in limits if not one[0]), limits[0])
    return Finding(
        status="held" if all(holds for holds, *_ in limits) else "broken",
        message=f"{what} is {value:.4g}, {words}",
        value=value,
        limit=limit,
    )


def _quotient(result: RunResult, system: System, objective: Count) -> float | None:
    counters = result.measured.counters
    if objective.tenant is not None:
        share = result.measured.tenants.get(objective.tenant)
        counters = {} if share is None else share.counters
    number = float(counters.get((system, objective.counter), 0))
    if objective.per is None:
        return number
    divisor = counters.get((system, objective.per), 0)
    return number / divisor if divisor else None


@find.register
def _errors(objective: Errors, result: RunResult) -> Finding:
    measured = result.measured
    found: dict[str, int] = {}
    for errors in (measured.errors, *((measured.expected_errors,) if objective.provoked else ())):
        for (system, reason), number in errors.items():
            wanted = reason in objective.reasons if objective.reasons else reason not in objective.besides
            if system == "gateway" and wanted:
                found[reason] = found.get(reason, 0) + number
    value, arrivals = sum(found.values()), _number(result, "arrivals")
    limit: float = objective.at_most
    words = f"at most {objective.at_most}"
    if (share := objective.at_most_share_of_arrivals) is not None:
        limit, words = share * arrivals, f"at most {share:.2%} of {arrivals} arrivals"
    if not arrivals and not value:
        return Finding(status="void", message="no arrival began, so nothing could go wrong")
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(found.items(), key=lambda one: -one[1]))
    return Finding(
        status="held" if value <= limit else "broken",
        message=f"{value} errors{f' ({reasons})' if reasons else ''}, {words}",
        value=value,
        limit=limit,
    )


@find.register
def _integrity(objective: Integrity, result: RunResult) -> Finding:
    failures = result.measured.integrity_failures
    number = max(
        len(failures), sum(_number(result, "integrity failures", system) for system in ("gateway", "direct"))
    )
    ended = _number(result, "completed") + _number(result, "interrupted")
    checked = _number(result, "utterances checked")
    if number:
        shown = "; ".join(failures[:_DETAILS_SHOWN])
        more = f"; and {number - _DETAILS_SHOWN} more" if number > _DETAILS_SHOWN else ""
        return Finding(
            status="broken",
            message=f"{number} of {checked} utterances checked lost, repeated or reordered bytes, at most 0: "
            f"{shown}{more}",
            value=number,
            limit=0,
        )
    if not checked:
        if not ended:
            return Finding(status="void", message="no utterance ended, so no bytes could be compared")
        if not result.embedded:
            return Finding(
                status="skipped", message=f"integrity not checked: none of {ended} utterances was compared"
            )
    if checked < objective.checked_share_at_least * ended:
        return Finding(
            status="broken",
            message=f"only {checked} of {ended} utterances were compared, "
            f"at least {objective.checked_share_at_least:.0%} must be: the others are unaccounted for",
            value=checked,
            limit=objective.checked_share_at_least * ended,
        )
    return Finding(
        status="held", message=f"{checked} utterances came upstream byte for byte, 0 did not", value=0, limit=0
    )


@find.register
def _leaks(objective: Leaks, result: RunResult) -> Finding:
    left = result.left_upstream
    if left is None:
        return Finding(
            status="void" if result.embedded else "skipped",
            message="leaks not checked: no emulator could be asked for the sessions left upstream",
        )
    return Finding(
        status="held" if left <= objective.at_most else "broken",
        message=f"{left} sessions left active upstream after the run, at most {objective.at_most}",
        value=left,
        limit=objective.at_most,
    )


@find.register
def _cpu(objective: Cpu, result: RunResult) -> Finding:
    if not result.samples:
        return _unsampled(result)
    audio_s = _number(result, "audio bytes") / AUDIO_BYTES_PER_S
    used_s = cpu_s(result.samples)
    if not audio_s or used_s is None:
        return Finding(status="void", message="no audio was spoken, so its cost is unknown")
    value, limit = 1000 * used_s / audio_s, objective.at_most_ms_per_audio_s
    message = f"the gateway took {value:.2f} ms of CPU per second of audio"
    floor_ms = None if result.floor is None else result.floor.ms_per_audio_s
    if floor_ms is not None and (reference_ms := objective.floor_ms_per_audio_s) is not None:
        # CPU seconds are longer on a machine that is slower, or shares its cores.
        value *= reference_ms / floor_ms
        message += f" and a bare server {floor_ms:.2f} ms: {value:.2f} ms where that takes {reference_ms:.2f} ms"
    return Finding(
        status="held" if value <= limit else "broken",
        message=f"{message}, limit {limit:.2f} ms",
        value=value,
        limit=limit,
        unit="ms/s",
    )


@find.register
def _growth(objective: Growth, result: RunResult) -> Finding:
    if not result.samples:
        return _unsampled(result)
    after_s = objective.after_share * result.duration_s
    until_s = _arrivals_end_s(result)
    judged = [sample for sample in result.samples if after_s <= sample.at_s < until_s]
    known = [(sample, size) for sample in judged if (size := _size(sample, objective)) is not None]
    unit = "MiB/h" if objective.of == "memory" else f"{objective.of}/h"
    found = trend(
        [sample.at_s for sample, _ in known],
        [size for _, size in known],
        loads=[sample.talking for sample, _ in known],
    )
    if found is None:
        return Finding(
            status="void",
            message=f"{objective.of} cannot be judged by {len(known)} samples after {after_s:g} s",
            unit=unit,
        )
    slope, low = found.per_s * _HOUR_S, found.low_per_s * _HOUR_S
    noise, allowed = slope - low, objective.at_most_per_hour
    message = (
        f"{objective.of} changes by {slope:+.1f} {unit}, noise ±{noise:.1f}, at most {allowed:g} beyond noise"
    )
    status: Status = "held" if low <= allowed else "broken"
    most_noise = objective.noise_at_most_per_hour
    if status == "held" and most_noise is not None and noise > most_noise:
        status = "void"
        message += f"; noise above {most_noise:g} could hide a leak: a longer run says more"
    return Finding(status=status, message=message, value=slope, limit=allowed + noise, unit=unit)


def _arrivals_end_s(result: RunResult) -> float:
    """Return the end of the arrivals. Load falls from then on, while memory stays allocated."""
    came = result.measured.over_time.get(("gateway", "arrivals"))
    return (max(came) + 1) * WINDOW_S if came else math.inf


def _size(sample: Sample, objective: Growth) -> float | None:
    return {
        "memory": sample.rss_bytes / _MIB,
        "threads": float(sample.threads),
        "open files": float(sample.open_files),
        "tasks": None if sample.tasks is None else float(sample.tasks),
    }[objective.of]


@find.register
def _recovery(objective: Recovery, result: RunResult) -> Finding:
    faults = sorted(result.faults, key=lambda fault: float(fault["at_s"]))
    if not faults:
        return Finding(status="skipped", message="no fault was played")
    by_window = percentiles_over_time(
        result.measured.series.get(("gateway", objective.figure)), (objective.percentile,)
    )
    good = {window: values[0] <= objective.at_most_ms for window, values in by_window.items()}
    came = result.measured.over_time.get(("gateway", "arrivals"), {})
    if came:
        # Windows without arrivals count as good: no session was kept from getting through.
        calm = (window for window in range(max(came)) if window not in came)
        good = {**dict.fromkeys(calm, True), **good}
    limit = f"{objective.figure} p{objective.percentile:g} under {format_ms(objective.at_most_ms)}"
    worst_s, worst = 0.0, str(faults[0]["what"])
    for fault, until_s in zip(
        faults, [*(float(fault["at_s"]) for fault in faults[1:]), result.duration_s], strict=True
    ):
        at_s = float(fault["at_s"])
        took_s = _recovered_after_s(good, at_s=at_s, until_s=until_s, for_s=objective.for_s)
        if took_s is None:
            return Finding(
                status="broken",
                message=f"after '{fault['what']}' at {at_s:.0f} s: {limit} never again, "
                f"though due within {objective.within_s:g} s",
                limit=objective.within_s,
                unit="s",
            )
        if took_s >= worst_s:
            worst_s, worst = took_s, str(fault["what"])
    return Finding(
        status="held" if worst_s <= objective.within_s else "broken",
        message=f"{limit} again {worst_s:.1f} s after '{worst}', the slowest of {len(faults)}, "
        f"limit {objective.within_s:g} s",
        value=worst_s,
        limit=objective.within_s,
        unit="s",
    )


def _recovered_after_s(good: dict[int, bool], *, at_s: float, until_s: float, for_s: float) -> float | None:
    """Return the time from a fault until the limit holds for `for_s`, or until the next fault.

    A window without values is bad, because no session got through, unless none follows: then the run is over.
    """
    first = int(at_s // WINDOW_S)
    last = max((window for window in good if window * WINDOW_S < until_s), default=-1)
    needed = max(1, round(for_s / WINDOW_S))
    for window in range(first, last + 1):
        ahead = range(window, min(window + needed, last + 1))
        if all(good.get(one, False) for one in ahead):
            return max(0.0, window * WINDOW_S - at_s)
    return None


def _unsampled(result: RunResult) -> Finding:
    return Finding(
        status="void" if result.embedded else "skipped",
        message="not measured: the gateway's process is not on this machine"
        if not result.embedded
        else "not measured: the gateway's process was not sampled",
    )


def _number(result: RunResult, counter: str, system: System = "gateway") -> int:
    return result.measured.counters.get((system, counter), 0)
