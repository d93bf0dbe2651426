"""Results of the benchmark: tables for people, JSON for programs, and broken budgets."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from load.bench.loads import BenchSettings
from load.bench.ratios import FLOOR, GATEWAY, LoadResult, Quantiles, Window
from load.machine import description

_COLUMNS: Final[Sequence[tuple[str, Callable[[Sequence[Window]], str]]]] = (
    ("CPU ms/s", lambda all_: f"{_middle(all_, lambda one: one.cpu_ms_per_audio_s):.2f}"),
    ("core", lambda all_: f"{_middle(all_, lambda one: one.cpu_s / one.seconds):.0%}"),
    ("first packets", lambda all_: _quantiles([one.first_packets for one in all_])),
    ("packets/s", lambda all_: f"{_middle(all_, lambda one: one.packets / one.seconds):.0f}"),
    ("underruns", lambda all_: str(sum(one.underruns for one in all_))),
    ("load core", lambda all_: f"{_middle(all_, lambda one: one.load_share):.0%}"),
    ("late", lambda all_: f"{max(one.lateness.p99_ms for one in all_):.1f} ms"),
    ("stolen", lambda all_: f"{max(one.stolen for one in all_):.0%}"),
)


_LEGEND: Final = (
    "CPU ms/s: the server's CPU per second of audio. Ratio: median, lowest and highest of the rounds' ratios. "
    "First packets: from the write of the chunk that completes one to its arrival upstream, p50 / p99. Load core: "
    "share that generator and LiveAvatar's side took. Late: the generator's own delay, p99 of the worst round."
)


def show(console: Console, results: Sequence[LoadResult]) -> None:
    """Print a table per load, with the ratio of each gateway to the floor and its spread over the rounds."""
    for result in results:
        table = Table(title=result.title, title_justify="left")
        table.add_column("")
        table.add_column("ratio to the floor", justify="right")
        for title, _ in _COLUMNS:
            table.add_column(title, justify="right")
        for name, windows in result.windows.items():
            ratio = result.ratio(name)
            spread = "1" if name == FLOOR else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
            table.add_row(name, spread, *(cell(windows) for _, cell in _COLUMNS))
        console.print(table)
        for problem in result.problems():
            console.print(f"void: {problem}", style="bold red", markup=False, highlight=False)
    console.print(_LEGEND, style="dim")


def breaches(settings: BenchSettings, results: Sequence[LoadResult]) -> list[str]:
    """Return the budgets that this checkout's gateway broke."""
    broken = []
    for result in results:
        ratio = result.ratio(GATEWAY).median
        if settings.budget_ratio is not None and ratio > settings.budget_ratio:
            broken.append(
                f"{result.title}: ratio to the floor is {ratio:.2f}, the budget is {settings.budget_ratio:g}"
            )
        first_ms = median(window.first_packets.p99_ms for window in result.windows[GATEWAY])
        if settings.budget_first_ms is not None and first_ms > settings.budget_first_ms:
            broken.append(
                f"{result.title}: first packets took {first_ms:.1f} ms at p99, "
                f"the budget is {settings.budget_first_ms:g} ms"
            )
    return broken


def as_json(settings: BenchSettings, results: Sequence[LoadResult]) -> str:
    """Return all settings and figures. Figures without values are null."""
    return json.dumps(
        {
            "machine": description(),
            "settings": asdict(settings),
            "results": [
                {
                    "load": result.title,
                    "problems": result.problems(),
                    "servers": {
                        name: {
                            "ratio": asdict(result.ratio(name)),
                            "windows": [
                                {
                                    **asdict(window, dict_factory=_without_nan),
                                    "cpu_ms_per_audio_s": window.cpu_ms_per_audio_s,
                                }
                                for window in windows
                            ],
                        }
                        for name, windows in result.windows.items()
                    },
                }
                for result in results
            ],
            "breaches": breaches(settings, results),
        },
        indent=2,
        default=str,
    )


def _without_nan(items: list[tuple[str, object]]) -> dict[str, object]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in items}


def _middle(windows: Sequence[Window], value: Callable[[Window], float]) -> float:
    return median(value(window) for window in windows)


def _quantiles(all_: Sequence[Quantiles]) -> str:
    measured = [one for one in all_ if one.count]
    if not measured:
        return "none"
    return f"{median(one.p50_ms for one in measured):.1f} / {median(one.p99_ms for one in measured):.1f} ms"
