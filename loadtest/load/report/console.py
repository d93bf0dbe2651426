"""The verdict on a terminal."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from load.format import format_ms
from load.report.tables import (
    RANKS,
    FigureRow,
    TenantRow,
    counts_of,
    error_rows,
    figure_rows,
    has_direct,
    tenant_rows,
)
from load.result import RunResult
from load.verdict import Status, Verdict, count_statuses

_STYLES: Final[dict[Status, str]] = {"held": "green", "broken": "bold red", "void": "yellow", "skipped": "dim"}
_HEADLINES: Final = {"pass": "bold green", "fail": "bold red", "void": "bold yellow"}


def show(console: Console, result: RunResult, verdict: Verdict) -> None:
    """Print figures, objectives and the verdict, the most important last, where the eye is."""
    console.print(_figures(result))
    if tenants := tenant_rows(result):
        console.print(_tenants(tenants))
        for row in tenants:
            console.print(f"{row.tenant}: {counts_of(row)}", markup=False, highlight=False)
    for error in error_rows(result):
        whose = " (provoked by a fault)" if error.provoked else ""
        line = f"{error.count} {error.reason}, {error.system}{whose}"
        console.print(line, style="dim" if error.provoked else "red", markup=False)
    console.print(_objectives(verdict))
    for note in verdict.notes:
        console.print(note, style="yellow", markup=False)
    console.print(
        Text(f"{verdict.result.upper()}  {verdict.headline}", style=_HEADLINES[verdict.result]),
        Text(f"  [{verdict.scenario}: {count_statuses(verdict.outcomes)}]", style="dim"),
        sep="",
        soft_wrap=True,
    )


def _figures(result: RunResult) -> Table:
    rows = figure_rows(result)
    table = Table(
        title=Text(f"{result.scenario}, {result.duration_s:.0f} s against {result.target}"), title_justify="left"
    )
    table.add_column("figure")
    table.add_column("values", justify="right")
    for rank in RANKS:
        table.add_column(f"p{rank:g}", justify="right", no_wrap=True)
    table.add_column("max", justify="right", no_wrap=True)
    if has_direct(rows):
        table.add_column("direct p50 / p99", justify="right", no_wrap=True)
    for row in rows:
        if row.gateway is not None:
            cells = [
                row.figure.name,
                f"{row.gateway.count:,}",
                *map(format_ms, row.gateway.percentiles_ms),
                format_ms(row.gateway.max_ms),
            ]
            table.add_row(*cells, *([_direct(row)] if has_direct(rows) else []))
    return table


def _tenants(rows: Sequence[TenantRow]) -> Table:
    table = Table(title="tenants", title_justify="left")
    for heading in ("tenant", "figure"):
        table.add_column(heading)
    for heading in ("values", *(f"p{rank:g}" for rank in RANKS), "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        for number, (figure, values) in enumerate(row.figures):
            table.add_row(
                Text(row.tenant if number == 0 else ""),
                figure.name,
                f"{values.count:,}",
                *map(format_ms, values.percentiles_ms),
                format_ms(values.max_ms),
            )
        table.add_section()
    return table


def _direct(row: FigureRow) -> str:
    if row.direct is None:
        return ""
    p50, p99 = (format_ms(row.direct.percentiles_ms[RANKS.index(rank)]) for rank in (50.0, 99.0))
    return f"{p50} / {p99}"


def _objectives(verdict: Verdict) -> Table:
    table = Table(title="objectives", title_justify="left")
    table.add_column("")
    table.add_column("objective")
    table.add_column("what was found")
    for outcome in verdict.outcomes:
        table.add_row(
            Text(outcome.status, style=_STYLES[outcome.status]), Text(outcome.objective), Text(outcome.message)
        )
    return table
