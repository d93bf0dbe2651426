"""The plots of one run."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from load.figures import FIGURES, WINDOW_S, System
from load.format import format_ms
from load.report import drawing
from load.report.drawing import DIRECT, GATEWAY, LIMIT, Plot, draw
from load.result import RunResult
from load.spread import Spread, percentiles_over_time, spread_of
from load.usage import cpu_share_over_time
from load.verdict import Verdict

PLOTTED: Final = (
    "first packet upstream",
    "started",
    "interrupt to silence",
    "session open",
    "ack delay",
    "attach",
)
"""Users' own first."""
_COLOURS: Final[dict[System, str]] = {"gateway": GATEWAY, "direct": DIRECT}
_CURVE_POINTS: Final = 150
_LEAST_SAMPLES: Final = 3
_MEDIAN: Final = 50.0
_USUAL_PERCENTILE: Final = 99.0
"""Percentile that is drawn of a figure that no objective judges."""


def latency_over_time(result: RunResult, verdict: Verdict) -> list[Plot]:
    """Plot the median and the judged percentiles of each figure in each window, beside the direct users'."""
    return [_over_time(result, verdict, name) for name in _with_values(result)]


def percentile_curves(result: RunResult) -> list[Plot]:
    """Plot each figure's whole distribution on an axis that gives every further nine the same room."""
    return [_curves(result, name) for name in _with_values(result)]


def throughput(result: RunResult) -> list[Plot]:
    """Plot talking sessions, utterances and bytes per second."""
    plots = []
    if result.samples:
        times, talking = [one.at_s for one in result.samples], [one.talking for one in result.samples]
        plots.append(
            _line(
                result,
                "Sessions talking at once",
                times,
                talking,
                alt=f"Sessions talking at once: up to {max(talking)}, "
                f"{sum(talking) / len(talking):.1f} on average.",
            )
        )
    for title, counter, scale, unit in (
        ("Utterances begun per second", "utterances", 1.0, ""),
        ("Speech written per second", "audio bytes", 1000.0, " kB"),
    ):
        windows = result.measured.over_time.get(("gateway", counter), {})
        if windows:
            last = max(1, min(max(windows), int(result.duration_s // WINDOW_S)))
            rates = [windows.get(window, 0) / WINDOW_S / scale for window in range(last + 1)]
            plots.append(
                _line(
                    result,
                    title + (f",{unit}" if unit else ""),
                    [(window + 0.5) * WINDOW_S for window in range(last + 1)],
                    rates,
                    alt=f"{title}: up to {max(rates):.3g}{unit}, {sum(rates) / len(rates):.3g}{unit} on average.",
                )
            )
    return plots


def process(result: RunResult) -> list[Plot]:
    """Plot CPU, memory, threads and open files of the gateway's process."""
    samples = result.samples
    if len(samples) < _LEAST_SAMPLES:
        return []
    times = [one.at_s for one in samples]
    cpu_times, shares = cpu_share_over_time(samples)
    percents = [100 * share for share in _smooth(shares)]
    memory = [one.rss_bytes / 1024**2 for one in samples]
    files = [one.open_files for one in samples]
    threads = [one.threads for one in samples]

    def paint_files(axes: Axes) -> None:
        axes.plot(times, files, color=GATEWAY, label="open files")
        axes.plot(times, threads, color=DIRECT, label="threads")
        axes.set_ylim(0, max(*files, *threads) * 1.15)
        _timeline(axes, result)

    return [
        _line(
            result,
            "Gateway CPU, percent of one core",
            cpu_times,
            percents,
            alt=f"Gateway CPU: {sum(percents) / len(percents):.0f} percent of one core on average, "
            f"up to {max(percents):.0f}.",
        ),
        _line(
            result,
            "Gateway memory, MiB resident",
            times,
            memory,
            from_zero=False,
            alt=f"Gateway memory: {memory[0]:.0f} MiB at the start, {memory[-1]:.0f} at the end, "
            f"{max(memory):.0f} at most.",
        ),
        draw(
            "Gateway open files and threads",
            paint_files,
            alt=f"Open files: {files[0]} at the start, {files[-1]} at the end, {max(files)} at most. "
            f"Threads: {threads[0]}, {threads[-1]} and {max(threads)}.",
        ),
    ]


def errors_over_time(result: RunResult) -> list[Plot]:
    """Plot errors over time; return no plot without errors."""
    windows = result.measured.over_time.get(("gateway", "errors"), {})
    if not windows:
        return []

    def paint(axes: Axes) -> None:
        middles = [(window + 0.5) * WINDOW_S for window in windows]
        axes.bar(middles, list(windows.values()), width=WINDOW_S * 0.8, color=LIMIT)
        _timeline(axes, result)

    total = sum(windows.values())
    return [draw(f"Errors per {WINDOW_S} s", paint, alt=f"Errors over time: {total} in {len(windows)} windows.")]


def _over_time(result: RunResult, verdict: Verdict, name: str) -> Plot:
    series = result.measured.series
    limits = _limits(verdict, name)
    # Only the judged percentile is drawn: a p99 beside the limit of a p95 would look like a breach.
    ranks = sorted({percentile for percentile, _ in limits}) or [_USUAL_PERCENTILE]
    mine = percentiles_over_time(series.get(("gateway", name)), (_MEDIAN, *ranks))
    direct = percentiles_over_time(series.get(("direct", name)), (ranks[-1],))
    lines = [] if _MEDIAN in ranks else [(mine, 0, GATEWAY, ":", "p50")]
    lines += [(mine, number, GATEWAY, "-", f"p{rank:g}") for number, rank in enumerate(ranks, 1)]
    lines += [(direct, 0, DIRECT, "-", f"direct p{ranks[-1]:g}")]

    def paint(axes: Axes) -> None:
        values = []
        for windows, column, colour, style, words in lines:
            if windows:
                column_values = [one[column] for one in windows.values()]
                values += column_values
                xs, ys = drawing.gaps(windows, column_values)
                axes.plot(
                    [(x + 0.5) * WINDOW_S for x in xs],
                    ys,
                    color=colour,
                    linestyle=style,
                    # A point between two holes has no line.
                    marker="." if len(xs) > len(windows) else None,
                    markersize=3,
                    linewidth=1.2 if colour == DIRECT else 1.6,
                    label=words,
                )
        for percentile, limit_ms in limits:
            drawing.mark_limit(axes, limit_ms, f"p{percentile:g} limit {format_ms(limit_ms)}")
            values.append(limit_ms)
        drawing.room_for(axes, values)
        drawing.milliseconds(axes)
        _timeline(axes, result)

    highest = [one[-1] for one in mine.values()]
    alt = (
        f"{name} over time: p{ranks[-1]:g} per {WINDOW_S} s between {format_ms(min(highest))} and "
        f"{format_ms(max(highest))}, median {format_ms(float(np.median([one[0] for one in mine.values()])))}"
        + "".join(f"; limit of p{percentile:g} {format_ms(limit_ms)}" for percentile, limit_ms in limits)
        + "."
    )
    return draw(_capital(name), paint, alt=alt, note=_capital(FIGURES[name].meaning.replace("`", "")))


def _curves(result: RunResult, name: str) -> Plot:
    spreads: list[tuple[System, Spread]] = [
        (system, spread)
        for system in _COLOURS
        if (spread := spread_of(result.measured.series.get((system, name)))).count > 1
    ]

    def paint(axes: Axes) -> None:
        farthest, values = 2.0, []
        for system, spread in spreads:
            shares, values_ms = _thinned(*spread.curve())
            if not len(shares):
                continue
            nines = -np.log10(1 - shares)
            farthest = max(farthest, float(nines[-1]))
            values += [float(values_ms[0]), float(values_ms[-1])]
            axes.plot(nines, values_ms, color=_COLOURS[system], label=system)
        if values:
            drawing.room_for(axes, values)
        drawing.milliseconds(axes)
        axes.set_xlim(0, farthest * 1.02)
        ticks = [0.0, -math.log10(0.5), *range(1, math.floor(farthest) + 1)]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda nines, _: _percent(nines)))

    words = []
    for system, spread in spreads:
        at = ", ".join(f"p{rank:g} {format_ms(spread.percentile_ms(rank))}" for rank in (50, 90, 99))
        words.append(f"{system} {at} of {spread.count:,} values")
    return draw(_capital(name), paint, alt=f"{name}, percentile curve: {'; '.join(words)}.")


def _line(
    result: RunResult,
    title: str,
    times: Sequence[float],
    values: Sequence[float],
    *,
    alt: str,
    from_zero: bool = True,
) -> Plot:
    def paint(axes: Axes) -> None:
        axes.plot(times, values, color=GATEWAY)
        if from_zero:
            axes.fill_between(times, values, color=GATEWAY, alpha=0.12, linewidth=0)
            axes.set_ylim(0, max(*values, 1e-9) * 1.15)
        else:
            middle, half = (max(values) + min(values)) / 2, max(1.0, (max(values) - min(values)) * 0.7)
            axes.set_ylim(middle - half, middle + half)
        _timeline(axes, result)

    return draw(title, paint, alt=alt)


def _timeline(axes: Axes, result: RunResult) -> None:
    drawing.seconds(axes, result.duration_s)
    drawing.mark_faults(axes, [float(fault["at_s"]) for fault in result.faults])


def _with_values(result: RunResult) -> list[str]:
    series = result.measured.series
    return [name for name in PLOTTED if ("gateway", name) in series and series["gateway", name].count > 1]


def _limits(verdict: Verdict, figure: str) -> list[tuple[float, float]]:
    """Return the judged percentiles of a figure, each with its limit in milliseconds."""
    return [
        (one.percentile, one.limit)
        for one in verdict.outcomes
        if one.kind == "latency" and one.figure == figure and one.limit is not None and one.percentile is not None
    ]


def _thinned(
    shares: NDArray[np.float64], values_ms: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most `_CURVE_POINTS` points, as dense at the many nines as at the median."""
    if len(shares) <= _CURVE_POINTS:
        return shares, values_ms
    nines = -np.log10(1 - shares)
    wanted = np.linspace(nines[0], nines[-1], _CURVE_POINTS)
    picked = np.unique(np.searchsorted(nines, wanted).clip(0, len(nines) - 1))
    return shares[picked], values_ms[picked]


def _smooth(values: Sequence[float], width: int = 5) -> list[float]:
    """Return means over neighbours, because ticks of the kernel's CPU clock are coarse."""
    if len(values) < 3 * width:
        return list(values)
    padded = np.pad(np.asarray(values, dtype=float), width // 2, mode="edge")
    return [float(value) for value in np.convolve(padded, np.ones(width) / width, mode="valid")]


def _percent(nines: float) -> str:
    if nines <= 0:
        return "0 %"
    share = 100 * (1 - 10**-nines)
    return f"{share:.{max(0, math.ceil(nines) - 2)}f} %"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
