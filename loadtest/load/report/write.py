"""All reports of a run, written into a folder."""

import json
from dataclasses import dataclass
from pathlib import Path

from load.comparison import Comparison
from load.report.compared import comparison_markdown
from load.report.html import html_report
from load.report.junit import junit_xml
from load.report.markdown import markdown_summary
from load.result import RunResult
from load.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Written:
    """Paths of the reports."""

    result: Path
    """All measurements: `report`, `compare` and `run --baseline` read it."""
    verdict: Path
    junit: Path
    summary: Path
    page: Path


def write_all(folder: Path, result: RunResult, verdict: Verdict, comparison: Comparison | None = None) -> Written:
    """Write `result.json`, `verdict.json`, `junit.xml`, `summary.md` and `report.html`, replacing earlier ones."""
    written = Written(
        folder / "result.json",
        folder / "verdict.json",
        folder / "junit.xml",
        folder / "summary.md",
        folder / "report.html",
    )
    folder.mkdir(parents=True, exist_ok=True)
    # The result comes first, so that a mistake in a report never loses a run.
    result.save(written.result)
    row = verdict.to_json()
    if comparison is not None:
        row["comparison"] = comparison.to_json()
    written.verdict.write_text(json.dumps(row, indent=1) + "\n")
    written.junit.write_text(junit_xml(result, verdict))
    extra = [comparison_markdown(comparison)] if comparison is not None else []
    written.summary.write_text(markdown_summary(result, verdict, extra=extra))
    written.page.write_text(html_report(result, verdict, comparison))
    return written
