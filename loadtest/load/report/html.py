"""The verdict as one HTML page with plots: no script, no font, no file beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from load.comparison import Comparison
from load.format import format_moment, format_ms
from load.report import compared, plots
from load.report.drawing import Plot
from load.report.tables import (
    RANKS,
    counter_rows,
    error_rows,
    figure_rows,
    has_direct,
    highlights,
    tenant_rows,
)
from load.result import RunResult
from load.verdict import Verdict, count_statuses

_TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Section:
    """Plots under one heading."""

    title: str
    intro: str
    plots: list[Plot]


def html_report(result: RunResult, verdict: Verdict, comparison: Comparison | None = None) -> str:
    """Write the page."""
    rows = figure_rows(result)
    sections = [
        Section(
            "Latency over time",
            "Each point is five seconds of the run. Times count from when something should have begun, so a stall "
            "is seen by everybody it delayed. Time scales are logarithmic.",
            plots.latency_over_time(result, verdict),
        ),
        Section(
            "Latency by percentile",
            "How many percent were at least this fast. Each further nine takes as much room as the one before; "
            "curves end where fewer than three values are left.",
            plots.percentile_curves(result),
        ),
        Section("Throughput", "", plots.throughput(result)),
        Section("The gateway's process", "", plots.process(result)),
    ]
    return render(
        "report.html.j2",
        result=result,
        started=format_moment(result.started_at),
        verdict=verdict,
        statuses=count_statuses(verdict.outcomes),
        highlights=highlights(result),
        sections=[section for section in sections if section.plots],
        rows=rows,
        direct=has_direct(rows),
        ranks=RANKS,
        tenants=tenant_rows(result),
        counters=counter_rows(result),
        errors=error_rows(result),
        error_plots=plots.errors_over_time(result),
        comparison=comparison,
        compared_rows=compared.rows(comparison) if comparison else (),
        compared_explanation=compared.explanation(comparison) if comparison else "",
        compared_class=compared.CLASSES[comparison.change] if comparison else "",
    )


def render(template: str, **values: Any) -> str:
    """Fill one of the templates; all text is escaped, plots are not."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ms"] = format_ms
    environment.filters["drawing"] = Markup
    return environment.get_template(template).render(**values)
