"""The verdict as Markdown, short enough for a job's summary page."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from liveavatar_gateway.escaping import escaped
from load.format import format_moment, format_ms
from load.report.tables import (
    RANKS,
    counts_of,
    error_rows,
    figure_rows,
    has_direct,
    highlights,
    tenant_rows,
)
from load.result import RunResult
from load.verdict import Status, Verdict, count_statuses

_MARKS: Final[dict[Status, str]] = {"held": "✅", "broken": "❌", "void": "⚠️", "skipped": "⏭️"}
_MARKUP: Final = re.compile(r"[|`\[\]*!]")
_HEADLINES: Final = {"pass": "✅ pass", "fail": "❌ fail", "void": "⚠️ void"}


def markdown_summary(result: RunResult, verdict: Verdict, *, extra: Sequence[str] = ()) -> str:
    """Write it; `extra` are blocks for its end, such as a comparison."""
    rows = figure_rows(result)
    direct = has_direct(rows)
    blocks = [
        f"## Load test {_cell(verdict.scenario)}: {_HEADLINES[verdict.result]}",
        f"**{_cell(verdict.headline)}**",
        f"{count_statuses(verdict.outcomes)} · {result.duration_s:.0f} s · {format_moment(result.started_at)}",
        _table(("", "Value", "Against"), highlights(result)),
        "### Objectives",
        _table(
            ("", "Objective", "What was found"),
            (
                (f"{_MARKS[outcome.status]} {outcome.status}", outcome.objective, outcome.message)
                for outcome in verdict.outcomes
            ),
        ),
        "### Latency, from the intended time",
        _table(
            (
                "Figure",
                "Values",
                *(f"p{rank:g}" for rank in RANKS),
                "Max",
                *(("Direct p50 / p99",) if direct else ()),
            ),
            (
                (
                    row.figure.name,
                    f"{row.gateway.count:,}",
                    *map(format_ms, row.gateway.percentiles_ms),
                    format_ms(row.gateway.max_ms),
                    *((_pair(row.direct.percentiles_ms) if row.direct else "",) if direct else ()),
                )
                for row in rows
                if row.gateway is not None and row.figure.phase != "lifetime"
            ),
        ),
    ]
    if tenants := tenant_rows(result):
        blocks += [
            "### Tenants",
            _table(
                ("Tenant", "Figure", "Values", *(f"p{rank:g}" for rank in RANKS), "Max"),
                (
                    (
                        row.tenant,
                        figure.name,
                        f"{values.count:,}",
                        *map(format_ms, values.percentiles_ms),
                        format_ms(values.max_ms),
                    )
                    for row in tenants
                    for figure, values in row.figures
                ),
            ),
            "\n".join(f"- {_cell(row.tenant)}: {counts_of(row)}" for row in tenants),
        ]
    if errors := error_rows(result):
        blocks += [
            "### Errors",
            _table(
                ("Reason", "Count", "System", "Provoked by a fault"),
                ((row.reason, str(row.count), row.system, "yes" if row.provoked else "no") for row in errors),
            ),
        ]
    if result.faults:
        blocks += [
            "### Faults",
            "\n".join(f"- {fault['at_s']:.0f} s: {_cell(str(fault['what']))}" for fault in result.faults),
        ]
    blocks += [f"> {_cell(note)}" for note in verdict.notes]
    blocks += extra
    environment = _table(("", ""), result.environment.items())
    blocks.append(f"<details><summary>Environment</summary>\n\n{environment}\n\n</details>")
    return "\n\n".join(blocks) + "\n"


def _pair(percentiles_ms: Sequence[float]) -> str:
    return f"{format_ms(percentiles_ms[0])} / {format_ms(percentiles_ms[RANKS.index(99.0)])}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """No text of a run may end a cell, or be taken for markup, a link or an image."""
    shown = escaped(text.replace("\n", " ")).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKUP.sub(r"\\\g<0>", shown)
