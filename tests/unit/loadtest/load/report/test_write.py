"""Outputs: every objective is in each of them, and none of them needs or trusts anything from elsewhere."""

import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from rich.console import Console

from load.comparison import compare
from load.judging import judge
from load.objectives import read_objectives
from load.report.console import show
from load.report.html import html_report
from load.report.junit import GENERATOR_CASE, junit_xml
from load.report.markdown import markdown_summary
from load.report.plots import latency_over_time, throughput
from load.report.write import write_all
from load.result import GeneratorHealth, NoResult, RunResult
from load.run import _SECRET
from load.verdict import Verdict
from testkit.simulated_run import simulated

EVIL = 'dropped <script>alert("x")</script> | & all'


@pytest.fixture(scope="module")
def run() -> tuple[RunResult, Verdict]:
    """A run with something of everything."""
    result = simulated(
        packet_path_s=0.1,
        faults=((40.0, "sockets dropped"), (80.0, EVIL)),
        errors=(("AUDIO_GAP", 2),),
        lost_utterances=1,
    )
    result = replace(result, embedded=False, left_upstream=None)
    return result, judge(result, read_objectives().of("ci"))


@pytest.fixture(scope="module")
def page(run) -> str:
    result, verdict = run
    return html_report(result, verdict, compare(simulated(seed=2), result, resamples=200))


class _Page(HTMLParser):
    """Tags that stay open or close what is not open, and everything that would be fetched."""

    _VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.fetched += [value for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_fetches_nothing(page):
    parsed = _Page()
    parsed.feed(page)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert all(target.startswith("#") for target in parsed.fetched)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", page)


def test_text_of_a_run_cannot_become_markup(page, run):
    assert "<script>" not in page
    assert "dropped &lt;script&gt;" in page
    summary = markdown_summary(*run)
    assert "<script>" not in summary
    assert "\\| &amp; all" in summary


def test_no_text_of_a_stored_result_acts_on_a_terminal_or_makes_a_link(tmp_path: Path):
    path = tmp_path / "result.json"
    hostile = "[x](http://evil)`\x1b[2J\u202e"
    simulated(errors=((hostile, 1),)).save(path)
    result = RunResult.load(path)
    verdict = judge(result, read_objectives().of("ci"))
    console = Console(record=True, width=200, file=io.StringIO())
    show(console, result, verdict)
    outputs = [console.export_text(), markdown_summary(result, verdict), junit_xml(result, verdict)]
    for output in [*outputs, html_report(result, verdict)]:
        assert r"\x1b" in output
        assert "\x1b" not in output
        assert "\u202e" not in output
    assert "[x](http://evil)" not in outputs[1]
    ET.fromstring(outputs[2])


def test_each_plot_says_in_words_what_it_shows_and_has_the_pages_colours(page):
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) >= 15
    for drawing in drawings:
        root = ET.fromstring(drawing.replace("xlink:href", "href"))
        assert re.search(r"\d", root.attrib["aria-label"])
        assert root.attrib["role"] == "img"
        assert "var(--" in drawing
        assert not re.search(r"#0[1-7]0[1-7]0[1-7]\b", drawing)
        assert "DejaVu" not in drawing


def test_the_page_is_small_enough_to_send(page):
    assert len(page) < 400_000


def test_the_same_run_gives_the_same_drawing(run):
    assert throughput(run[0]) == throughput(run[0])


def test_every_output_has_every_objective_and_what_was_found(page, run):
    result, verdict = run
    console = Console(width=400)
    with console.capture() as shown:
        show(console, result, verdict)
    outputs = {
        "console": shown.get(),
        "markdown": unescape(markdown_summary(result, verdict).replace("\\|", "|")),
        "junit": unescape(junit_xml(result, verdict)),
        "page": unescape(page),
    }
    for name, text in outputs.items():
        for outcome in verdict.outcomes:
            assert outcome.objective in text, name
            assert outcome.message in text, name
        if name != "junit":
            assert "leaks not checked" in text, name


def test_junit_tells_broken_void_and_skipped_apart(run):
    result, verdict = run
    cases = {case.name: case for suite in JUnitXml.fromstring(junit_xml(result, verdict)) for case in suite}
    kinds = {"broken": Failure, "void": Error, "skipped": Skipped}
    assert {outcome.status for outcome in verdict.outcomes} >= {"held", "broken", "skipped"}
    for outcome in verdict.outcomes:
        found = cases[outcome.objective].result
        expected = kinds.get(outcome.status)
        assert ([type(one) for one in found] == [expected]) if expected else found == []
    assert cases[GENERATOR_CASE].result == []


def test_junit_has_an_error_for_a_saturated_generator():
    result = simulated(generator=GeneratorHealth(lag_p99_ms=300, lag_max_ms=900, cpu_share=0.99, core_steal=0))
    verdict = judge(result, read_objectives().of("ci"))
    xml = JUnitXml.fromstring(junit_xml(result, verdict))
    (generator,) = [case for suite in xml for case in suite if case.name == GENERATOR_CASE]
    assert "300 ms late" in generator.result[0].message
    assert xml.failures == 0
    assert xml.errors > 1


def test_all_outputs_are_written_and_the_result_can_be_read_again(tmp_path: Path, run):
    result, verdict = run
    written = write_all(tmp_path / "new" / "folder", result, verdict)
    row = json.loads(written.verdict.read_text())
    assert (row["verdict"], row["exit_code"]) == ("fail", 1)
    assert {one["objective"] for one in row["objectives"]} == {one.objective for one in verdict.outcomes}
    again = RunResult.load(written.result)
    assert judge(again, read_objectives().of("ci")) == verdict
    for path in (written.junit, written.summary, written.page):
        assert path.stat().st_size > 1000


def test_a_run_without_any_value_has_outputs_too(tmp_path: Path):
    empty = replace(simulated(duration_s=0.0), samples=[])
    write_all(tmp_path, empty, judge(empty, read_objectives().of("ci")))
    assert "void" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"verdict": "pass"}', '{"measured": {"series": 3}}'])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text):
    path = tmp_path / "verdict.json"
    path.write_text(text)
    with pytest.raises(NoResult, match=r"verdict\.json is no result of a run"):
        RunResult.load(path)


def test_a_result_of_a_later_version_is_refused_and_not_read_in_part(tmp_path: Path, run):
    path = tmp_path / "result.json"
    run[0].save(path)
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "colour": "red"}))
    with pytest.raises(NoResult, match="colour"):
        RunResult.load(path)


def test_the_line_beside_a_limit_is_the_percentile_that_is_judged(run):
    result, verdict = run
    judged = {one.figure: one for one in verdict.outcomes if one.kind == "latency" and one.limit is not None}
    plots = {plot.title.lower(): plot for plot in latency_over_time(result, verdict)}
    assert judged
    for figure, outcome in judged.items():
        assert f"p{outcome.percentile:g} per" in plots[figure].alt, figure
        assert f"limit of p{outcome.percentile:g}" in plots[figure].alt, figure


@pytest.mark.parametrize("name", ["GATEWAY_LIVEKIT_SECRET", "GATEWAY_REGISTRY_KEY", "GATEWAY_ADMIN_TOKEN"])
def test_a_secret_of_the_settings_is_not_in_the_report(name):
    assert _SECRET.search(name)


def _of_tenants(*names: str) -> RunResult:
    result = simulated(duration_s=10.0)
    for name in names:
        share = result.measured.of_tenant(name)
        share.record("gateway", "unary call", 0.0123, at_mono_s=1.0)
        share.count("gateway", "calls accepted", 31, at_mono_s=1.0)
        share.count("gateway", "quota refusals", 4711, at_mono_s=1.0)
    return replace(result, noisy=[(5.0, 10.0)])


def _outputs(result: RunResult) -> dict[str, str]:
    verdict = judge(result, read_objectives().of("ci"))
    console = Console(width=400)
    with console.capture() as shown:
        show(console, result, verdict)
    return {
        "console": shown.get(),
        "markdown": markdown_summary(result, verdict),
        "page": html_report(result, verdict),
    }


def test_several_tenants_have_a_table_in_every_output_and_in_the_stored_result(tmp_path: Path):
    result = _of_tenants("acme", "<b>eta")
    for name, text in _outputs(result).items():
        for wanted in ("acme", "4,711", "31", "12.3 ms"):
            assert wanted in text, name
        assert ("<b>eta" in text) == (name == "console"), name
    result.save(tmp_path / "result.json")
    again = RunResult.load(tmp_path / "result.json")
    assert again.noisy == result.noisy
    assert _outputs(again) == _outputs(result)


@pytest.mark.parametrize("names", [(), ("acme",)])
def test_a_single_tenant_has_no_table_of_its_own(names):
    for name, text in _outputs(_of_tenants(*names)).items():
        assert "enants" not in text, name
