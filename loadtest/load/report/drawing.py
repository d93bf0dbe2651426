"""Plots as inline SVG: small, without fonts or scripts of their own, in the page's colours, light or dark."""

import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullFormatter, NullLocator

from load.format import format_ms

# Placeholder colours; the page replaces each by a CSS variable, so that a drawing serves both themes.
INK: Final = "#010101"
MUTED: Final = "#020202"
GRID: Final = "#030303"
GATEWAY: Final = "#040404"
DIRECT: Final = "#050505"
LIMIT: Final = "#060606"
FAULT: Final = "#070707"
_VARIABLES: Final = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    GATEWAY: "--gateway",
    DIRECT: "--direct",
    LIMIT: "--limit",
    FAULT: "--fault",
}
_STEPS_S: Final = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_WIDTH_IN: Final = 5.6
_HEIGHT_IN: Final = 2.35
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "load",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.6,
    "ytick.major.size": 0,
    "text.color": INK,
    "lines.linewidth": 1.6,
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.0,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """Drawing with its title, and its description in words."""

    title: str
    svg: str
    alt: str
    note: str = ""


def draw(title: str, paint: Callable[[Axes], None], *, alt: str, note: str = "") -> Plot:
    """Let `paint` draw on fresh axes and turn them into a plot."""
    with mpl.rc_context(_STYLE):
        # Fixed margins: plots line up with each other, and a layout engine would draw each one twice.
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN))
        axes = figure.add_subplot()
        paint(axes)
        # The numbers of faults stand above the axes, and the legend above them.
        numbers, legend = 0.07 if axes.texts else 0.0, 0.09 if axes.get_legend_handles_labels()[0] else 0.0
        figure.subplots_adjust(left=0.105, right=0.965, bottom=0.11, top=0.97 - numbers - legend)
        if legend:
            axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.02 + numbers), ncols=5, columnspacing=1.4)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Plot(title, _inline(text.getvalue(), alt), alt, note)


def milliseconds(axes: Axes) -> None:
    """Make the axis logarithmic, with times as people write them."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = 10 ** round(_decades(low, high))
    axes.yaxis.set_major_locator(
        LogLocator(base=10, subs=(1.0,) if decades > 1000 else (1.0, 3.0) if decades > 30 else (1.0, 2.0, 5.0))
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_ms(value)))


def seconds(axes: Axes, duration_s: float) -> None:
    """Make the axis one of the run's time."""
    axes.set_xlim(0, max(duration_s, 1.0))
    step_s = next((step for step in _STEPS_S if duration_s / step <= 8), _STEPS_S[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step_s))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value)))


def mark_faults(axes: Axes, at_s: Sequence[float]) -> None:
    """Draw a line for each fault, numbered as in the page's list of faults."""
    for number, moment_s in enumerate(at_s, start=1):
        axes.axvline(moment_s, color=FAULT, linewidth=1.0, linestyle=(0, (3, 2)))
        axes.annotate(
            str(number),
            (moment_s, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=FAULT,
            fontweight="bold",
        )


def mark_limit(axes: Axes, limit: float, words: str) -> None:
    """Draw the line of a limit."""
    axes.axhline(limit, color=LIMIT, linewidth=1.1, linestyle=(0, (5, 2)), label=words)


def gaps(windows: Iterable[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    """Put a hole into a line where windows are missing, so that it claims nothing about them."""
    xs: list[int] = []
    ys: list[float] = []
    for window, value in zip(windows, values, strict=True):
        if xs and window > xs[-1] + 1:
            xs.append(xs[-1] + 1)
            ys.append(float("nan"))
        xs.append(window)
        ys.append(value)
    return xs, ys


def room_for(axes: Axes, values: Sequence[float]) -> None:
    """Give a logarithmic axis some air around its values, and never less than a factor of three."""
    least, most = min(values), max(values)
    if most / least < 3:
        middle = math.sqrt(most * least)
        least, most = middle / 1.9, middle * 1.9
    axes.set_ylim(least / 1.25, most * 1.35)


def _decades(low: float, high: float) -> float:
    return math.log10(high / low) if low > 0 else 3.0


def _short_ms(value_ms: float) -> str:
    if value_ms >= 1000:
        return f"{value_ms / 1000:g} s"
    return f"{value_ms:g} ms" if value_ms >= 0.001 else format_ms(value_ms)


def _clock(value_s: float) -> str:
    minutes, rest = divmod(round(value_s), 60)
    return f"{minutes}:{rest:02d}"


def _inline(svg: str, alt: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]+"', svg)
    opening = f'<svg {box.group(0) if box else ""} role="img" aria-label="{escape(alt, quote=True)}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: f"{opening}<title>{escape(alt)}</title>", svg, count=1)
    svg = re.sub(r"font: ([^;\"]*?)([\d.]+px) [^;\"]*", r"font: \1\2 var(--font)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    # Six decimals of a point are a thousandth of a pixel.
    return re.sub(r"(\d+\.\d{2})\d+", r"\1", svg)
