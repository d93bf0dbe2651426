"""Reports of a search for the knee: a table, a page with curves, JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table
from rich.text import Text

from load.format import format_moment, format_ms
from load.knee import FIGURE, Knee, Point, Step
from load.report import drawing
from load.report.drawing import DIRECT, FAULT, GATEWAY, Plot, draw
from load.report.html import render

_COLOURS: Final = (GATEWAY, DIRECT, FAULT)
_STYLES: Final[dict[Step, str]] = {"held": "green", "broke": "bold red", "void": "yellow"}
HEADS: Final = (
    "sessions",
    "talking",
    "of a core",
    "CPU / session-s",
    "added p50",
    "added p99",
    "p50",
    "p99",
)


@dataclass(frozen=True, slots=True)
class KneeFiles:
    """Paths of the reports."""

    values: Path
    page: Path


def show_knee(console: Console, knee: Knee) -> None:
    """Print a table of the search, and what was found."""
    table = Table(title=f"{knee.chunk_ms}-ms chunks, {FIGURE}", title_justify="left")
    table.add_column("")
    for head in HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for point in _sorted(knee):
        table.add_row(Text(point.step, style=_STYLES[point.step]), *cells(point))
    console.print(table)
    console.print(Text(knee.headline, style="bold"), soft_wrap=True)


def write_knees(folder: Path, knees: Sequence[Knee], environment: Mapping[str, str], started_at: str) -> KneeFiles:
    """Write `knee.json` and `knee.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = KneeFiles(folder / "knee.json", folder / "knee.html")
    values = {
        "started_at": started_at,
        "environment": dict(environment),
        "knees": [knee.to_json() for knee in knees],
    }
    files.values.write_text(json.dumps(values, indent=1) + "\n")
    files.page.write_text(knee_page(knees, environment, started_at))
    return files


def knee_page(knees: Sequence[Knee], environment: Mapping[str, str], started_at: str) -> str:
    """Return a page with the curves and every run of the search."""
    return render(
        "knee.html.j2",
        knees=knees,
        tables=[(knee, [(point, cells(point)) for point in _sorted(knee)]) for knee in knees],
        plots=_plots(knees),
        heads=HEADS,
        figure=FIGURE,
        environment=environment,
        started=format_moment(started_at),
    )


def cells(point: Point) -> list[str]:
    """Return the cells of a run under `HEADS`."""
    cpu = point.cpu_ms_per_session_s
    return [
        str(point.sessions),
        f"{point.talking:.0f}",
        "" if point.core_share is None else f"{point.core_share:.0%}",
        "" if cpu is None else f"{cpu:.2f} ms",
        _milliseconds(point.added_p50_ms),
        _milliseconds(point.added_p99_ms),
        format_ms(point.p50_ms),
        format_ms(point.p99_ms),
    ]


def _milliseconds(value_ms: float | None) -> str:
    if value_ms is None:
        return ""
    return f"{'-' if value_ms < 0 else ''}{format_ms(abs(value_ms))}"


def _sorted(knee: Knee) -> list[Point]:
    return sorted(knee.points, key=lambda point: (point.sessions, point.talking))


def _plots(knees: Sequence[Knee]) -> list[Plot]:
    knees = [knee for knee in knees if knee.points]
    if not knees:
        return []

    def against_talking(title: str, curves: Sequence[_Curve], *, times: bool) -> Plot:
        def paint(axes: Axes) -> None:
            values: list[float] = []
            for knee, colour in zip(knees, _COLOURS, strict=False):
                for curve in curves:
                    found = [(point.talking, curve.of(point)) for point in _believed(knee)]
                    known = sorted((talking, value) for talking, value in found if value is not None)
                    if known:
                        values += [value for _, value in known]
                        axes.plot(
                            [talking for talking, _ in known],
                            [max(value, _LEAST_MS) if times else value for _, value in known],
                            color=colour,
                            linestyle=curve.style,
                            marker=".",
                            label=f"{knee.chunk_ms} ms{curve.name}",
                        )
                if knee.best is not None:
                    axes.axvline(knee.best.talking, color=colour, linewidth=1.0, linestyle=(0, (3, 2)))
            if values and times:
                drawing.room_for(axes, [max(value, _LEAST_MS) for value in values])
                drawing.milliseconds(axes)
            else:
                axes.set_ylim(bottom=0)
            axes.set_xlim(left=0)

        words = [
            f"with {knee.chunk_ms}-ms chunks "
            + ", ".join(
                f"{point.talking:.0f} talking{curve.name} {curve.say(value)}"
                for point in _believed(knee)
                for curve in curves[-1:]
                if (value := curve.of(point)) is not None
            )
            for knee in knees
        ]
        return draw(title, paint, alt=f"{title}: {'; '.join(words)}.")

    return [
        against_talking(
            "Latency added by the gateway, by sessions that talk at once",
            (
                _Curve(" p50", ":", lambda point: point.added_p50_ms, format_ms),
                _Curve(" p99", "-", lambda point: point.added_p99_ms, format_ms),
            ),
            times=True,
        ),
        against_talking(
            "Gateway CPU, percent of one core, by sessions that talk at once",
            (_Curve("", "-", _percent_of_core, lambda value: f"{value:.0f} percent"),),
            times=False,
        ),
    ]


_LEAST_MS: Final = 0.1


@dataclass(frozen=True, slots=True)
class _Curve:
    name: str
    style: str
    of: Callable[[Point], float | None]
    say: Callable[[float], str]


def _percent_of_core(point: Point) -> float | None:
    return None if point.core_share is None else 100 * point.core_share


def _believed(knee: Knee) -> list[Point]:
    """Return the better point for each number of sessions, as the search counts it."""
    best: dict[int, Point] = {}
    for point in _sorted(knee):
        if point.sessions not in best or point.p99_ms < best[point.sessions].p99_ms:
            best[point.sessions] = point
    return [point for point in best.values() if point.step != "void"]
