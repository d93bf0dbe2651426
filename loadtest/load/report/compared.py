"""A comparison in words: rows for the page, a table for terminals, Markdown for a job's summary."""

from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from load.comparison import CONFIDENCE, Change, Comparison, Difference
from load.format import format_ms

CLASSES: Final[dict[Change, str]] = {
    "regressed": "fail",
    "improved": "pass",
    "no difference shown": "skipped",
    "not comparable": "void",
}
"""The page's colour for each."""
_STYLES: Final[dict[Change, str]] = {
    "regressed": "bold red",
    "improved": "green",
    "no difference shown": "dim",
    "not comparable": "yellow",
}


@dataclass(frozen=True, slots=True)
class Row:
    """Row of a difference."""

    status: str
    change: Change
    what: str
    before: str
    now: str
    difference: str
    interval: str
    basis: str


def explanation(comparison: Comparison) -> str:
    """Return an explanation of the intervals."""
    return (
        f"Intervals come from {comparison.resamples:,} resamples of five-second windows (seed {comparison.seed}); "
        f"with {CONFIDENCE:.0%} confidence all of them hold together. Where direct users were measured in both "
        "runs, their own difference is taken off, so that a slower machine is not taken for a slower gateway. "
        "Chance between two days is in no interval: repeat before you blame a change."
    )


def rows(comparison: Comparison) -> list[Row]:
    """Return a row for each difference, the most important first."""
    order: tuple[Change, ...] = ("regressed", "improved", "no difference shown", "not comparable")
    return [_row(one) for one in sorted(comparison.differences, key=lambda one: order.index(one.change))]


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print it, the verdict last."""
    if comparison.differences:
        table = Table(title="against the earlier run", title_justify="left")
        for head in ("", "figure", "before", "now", "difference", "interval", "judged"):
            table.add_column(head, justify="right" if head in {"before", "now", "difference"} else "left")
        for row in rows(comparison):
            table.add_row(
                Text(row.change, style=_STYLES[row.change]),
                row.what,
                row.before,
                row.now,
                row.difference,
                row.interval,
                row.basis,
            )
        console.print(table)
        console.print(explanation(comparison), style="dim")
    for warning in comparison.warnings:
        console.print(f"not the same: {warning}", style="yellow", markup=False)
    headline = Text(f"{comparison.change.upper()}  {comparison.headline}", style=_STYLES[comparison.change])
    console.print(headline, soft_wrap=True)


def comparison_markdown(comparison: Comparison) -> str:
    """Return the comparison as a block of the summary."""
    lines = [f"### Against the earlier run: {comparison.change}", "", f"**{comparison.headline}**", ""]
    if comparison.differences:
        lines += ["| | Figure | Before | Now | Difference | Interval | Judged |", "|---|---|---|---|---|---|---|"]
        lines += [
            f"| {row.change} | {row.what} | {row.before} | {row.now} "
            f"| {row.difference} | {row.interval} | {row.basis} |"
            for row in rows(comparison)
        ]
        lines += ["", explanation(comparison)]
    lines += [f"> not the same: {warning}" for warning in comparison.warnings]
    return "\n".join(lines)


def _row(one: Difference) -> Row:
    return Row(
        status=CLASSES[one.change],
        change=one.change,
        what=one.what,
        before=format_ms(one.before_ms),
        now=format_ms(one.now_ms),
        difference=_signed(one.difference_ms),
        interval=f"{_signed(one.low_ms)} to {_signed(one.high_ms)}",
        basis="less direct's difference" if one.controlled else "the gateway alone",
    )


def _signed(value_ms: float) -> str:
    return f"{'-' if value_ms < 0 else '+'}{format_ms(abs(value_ms))}"
