"""Plot of a simulation as SVG: the use of slots, the queue, and how long opening takes."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from liveavatar_gateway.pool.simulation_result import Point, SimulationResult, percentile

_WIDTH: Final = 960
_LEFT: Final = 56
_RIGHT: Final = 20
_TOP: Final = 34
_GAP: Final = 62
_HEIGHTS: Final = (220, 120, 160)
_TICKS: Final = 4
_STEPS_S: Final = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21600, 86400)
_STYLE: Final = """
svg{font:12px system-ui,sans-serif;background:#fff;color:#1b1f24}
text{fill:currentColor}.muted{fill:#59636e}.grid{stroke:#d1d9e0}.axis{stroke:#59636e}
.callers{fill:#2a6fdb}.settling{fill:#a8b4c2}.warm{fill:#e08a1e}.waiting{fill:#c0392b}
.limit{stroke:#c0392b;stroke-dasharray:5 3}.line{fill:none;stroke-width:1.8;stroke:#2a6fdb}.before{stroke:#a8b4c2}
@media(prefers-color-scheme:dark){svg{background:#0d1117;color:#e6edf3}.muted{fill:#9198a1}.grid{stroke:#3d444d}}
"""

_Value = Callable[[Point], float]


def plot(
    result: SimulationResult,
    *,
    title: str,
    begins_at_s: float = 0.0,
    before: SimulationResult | None = None,
) -> str:
    """Return an SVG document of its own, without scripts.

    Args:
        result: Simulation to draw.
        title: Heading.
        begins_at_s: Time of day at which the trace's time is 0.
        before: Simulation without warm sessions, whose times to open are drawn beside those of `result`.
    """
    height = _TOP + sum(_HEIGHTS) + len(_HEIGHTS) * _GAP
    total = result.total
    alt = f"{title}: {total.served} of {total.arrivals} callers were served"
    if total.waits_s:
        median_s, high_s = percentile(total.waits_s, 50), percentile(total.waits_s, 95)
        alt += f"; median wait {median_s:.1f} s, 95th percentile {high_s:.1f} s"
    tops = [_TOP + sum(_HEIGHTS[:number]) + number * _GAP + 18 for number in range(len(_HEIGHTS))]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(alt)}</title><style>{_STYLE}</style>",
        _text(_LEFT, 20, title, size=15),
        _slots(result, _Panel(tops[0], _HEIGHTS[0]), begins_at_s),
        _queue(result, _Panel(tops[1], _HEIGHTS[1]), begins_at_s),
        _openings(result, before, _Panel(tops[2], _HEIGHTS[2])),
        "</svg>\n",
    ]
    return "\n".join(parts)


class _Panel:
    """Axes of one drawing: turns values into places on the page."""

    def __init__(self, top: int, height: int) -> None:
        self.top = top
        self._height = height
        self._x = (0.0, 1.0)
        self._most = 1.0

    def scale(self, from_x: float, until_x: float, most: float) -> "_Panel":
        """Set the range of both axes; the upright one begins at 0."""
        self._x = (from_x, max(until_x, from_x + 1e-9))
        # A most of which a quarter is a round number, too.
        power = 10.0 ** math.floor(math.log10(max(most, 1e-6)))
        self._most = next(
            step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= most - 1e-9
        )
        return self

    def x(self, value: float) -> float:
        """Return the place of a value on the level axis."""
        low, high = self._x
        return round(_LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        """Return the place of a value on the upright axis."""
        return round(self.top + self._height * (1 - min(value / self._most, 1.0)), 1)

    def frame(self, heading: str, ticks: Sequence[tuple[float, str]]) -> str:
        """Return the heading, the grid and the marks of the level axis."""
        parts = [_text(_LEFT, self.top - 8, heading)]
        for number in range(_TICKS + 1):
            value = self._most * number / _TICKS
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
            parts.append(_text(_LEFT - 6, y + 4, f"{value:.3g}", anchor="end", muted=True))
        for value, words in ticks:
            parts.append(_text(self.x(value), self.top + self._height + 16, words, anchor="middle", muted=True))
        return "".join(parts)

    def area(self, kind: str, points: Sequence[Point], low: _Value, high: _Value, end_s: float) -> str:
        """Return the area between two step curves."""
        if not points:
            return ""
        edges = [point.at_s for point in points[1:]] + [end_s]
        upper = "".join(
            f"L{self.x(point.at_s)} {self.y(high(point))}H{self.x(edge)}"
            for point, edge in zip(points, edges, strict=True)
        )
        lower = "".join(
            f"L{self.x(edge)} {self.y(low(point))}H{self.x(point.at_s)}"
            for point, edge in reversed(list(zip(points, edges, strict=True)))
        )
        return f'<path class="{kind}" d="M{upper[1:]}{lower}Z"/>'


def _slots(result: SimulationResult, panel: _Panel, begins_at_s: float) -> str:
    points, (begin_s, end_s) = result.timeline, _span(result)
    panel.scale(begin_s, end_s, max(result.slots, 1))
    y = panel.y(result.slots)
    return "".join(
        (
            panel.frame("Slots in use", _clock_ticks(begin_s, end_s, begins_at_s)),
            panel.area("callers", points, lambda _: 0.0, lambda point: point.callers, end_s),
            panel.area(
                "settling",
                points,
                lambda point: point.callers,
                lambda point: point.callers + point.settling,
                end_s,
            ),
            panel.area(
                "warm",
                points,
                lambda point: point.callers + point.settling,
                lambda point: point.callers + point.settling + point.warm,
                end_s,
            ),
            f'<path class="limit" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>',
            _legend(panel.top - 8, ("callers", "settling", "warm")),
        )
    )


def _queue(result: SimulationResult, panel: _Panel, begins_at_s: float) -> str:
    points, (begin_s, end_s) = result.timeline, _span(result)
    panel.scale(begin_s, end_s, max((point.waiting for point in points), default=0) or 4)
    return "".join(
        (
            panel.frame("Callers in the queue, at most", _clock_ticks(begin_s, end_s, begins_at_s)),
            panel.area("waiting", points, lambda _: 0.0, lambda point: point.waiting, end_s),
        )
    )


def _openings(result: SimulationResult, before: SimulationResult | None, panel: _Panel) -> str:
    """Draw which share of the served callers has a session after which time."""
    mine, theirs = sorted(result.total.openings_s), sorted(before.total.openings_s) if before else []
    longest_s = max([*mine[-1:], *theirs[-1:], 1.0])
    panel.scale(0.0, longest_s, 100.0)
    ticks = [(longest_s * number / 6, f"{longest_s * number / 6:.3g} s") for number in range(7)]
    heading = "Share of served callers whose session is ready after so many seconds, %"
    if theirs:
        heading += " (grey: without warm sessions)"
    return "".join(
        (
            panel.frame(heading, ticks),
            _shares(panel, theirs, longest_s, "line before"),
            _shares(panel, mine, longest_s, "line"),
        )
    )


def _shares(panel: _Panel, ordered: Sequence[float], longest_s: float, kind: str) -> str:
    if not ordered:
        return ""
    step = max(1, len(ordered) // 400)
    path = "".join(
        f"H{panel.x(ordered[index])}V{panel.y(100 * (index + 1) / len(ordered))}"
        for index in [*range(0, len(ordered), step), len(ordered) - 1]
    )
    return f'<path class="{kind}" d="M{panel.x(0)} {panel.y(0)}{path}H{panel.x(longest_s)}"/>'


def _span(result: SimulationResult) -> tuple[float, float]:
    begin_s = result.timeline[0].at_s if result.timeline else 0.0
    return begin_s, begin_s + max(result.seconds, 1.0)


def _clock_ticks(begin_s: float, end_s: float, begins_at_s: float) -> list[tuple[float, str]]:
    step_s = next((step for step in _STEPS_S if (end_s - begin_s) / step <= 10), 86400)
    first_s = -(-(begin_s + begins_at_s) // step_s) * step_s - begins_at_s
    times_s = [first_s + step_s * number for number in range(int((end_s - begin_s) // step_s) + 1)]
    return [(at_s, _clock(at_s + begins_at_s)) for at_s in times_s if at_s <= end_s]


def _clock(at_s: float) -> str:
    """Return a time of day; hours beyond the first day are counted further."""
    minutes, seconds = divmod(round(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}" + (f":{seconds:02}" if seconds else "")


def _legend(y: float, kinds: Sequence[str]) -> str:
    parts, x = [], _WIDTH - _RIGHT - 100 * len(kinds)
    for number, kind in enumerate(kinds):
        left = x + 100 * number
        parts.append(f'<rect class="{kind}" x="{left}" y="{y - 9}" width="10" height="10"/>')
        parts.append(_text(left + 15, y, kind))
    return "".join(parts)


def _text(x: float, y: float, words: str, *, size: int = 12, anchor: str = "start", muted: bool = False) -> str:
    kind = ' class="muted"' if muted else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'
