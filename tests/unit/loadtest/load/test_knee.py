"""The knee finder: it finds a simulated system's knee, and never takes the generator's for it."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from load.figures import Recorder
from load.knee import Knee, Search, SearchRange, find_knee
from load.objectives import ScenarioObjectives, parse_objectives
from load.report.knee import knee_page, show_knee, write_knees
from load.result import GeneratorHealth, RunResult, Sample
from testkit.simulated_run import HEALTHY, simulated

_GAVE_OUT = GeneratorHealth(lag_p99_ms=200, lag_max_ms=500, cpu_share=0.99, core_steal=0.0)


@pytest.fixture(scope="module")
def objectives() -> ScenarioObjectives:
    return parse_objectives(
        '[[scenarios.ci.objectives]]\nname = "speech arrives at once"\n'
        'why = "Users wait through each millisecond."\n'
        'kind = "latency"\nfigure = "first packet upstream"\nat_most_ms_over_direct = 50.0\n'
    ).of("ci")


class _System:
    """A gateway on one core: CPU grows with its sessions, and latency with what is left of the core."""

    def __init__(self, *, per_session: float, generator_most: int = 10_000, bad_luck: int = 0) -> None:
        self.per_session = per_session
        self.generator_most = generator_most
        self.bad_luck = bad_luck
        self.asked: list[int] = []

    def run(self, sessions: int, chunk_ms: int) -> RunResult:
        self.asked.append(sessions)
        busy = min(0.999, sessions * self.per_session * 20 / chunk_ms)
        added_s = 0.0005 / (1 - busy) ** 2
        if self.bad_luck:
            self.bad_luck -= 1
            added_s += 1.0
        chance, recorder = random.Random(sessions), Recorder(0.0)
        for number in range(300):
            own_s = 0.001 * chance.lognormvariate(0, 0.3)
            recorder.record("direct", "first packet upstream", own_s, at_mono_s=number / 10)
            recorder.record("gateway", "first packet upstream", own_s + added_s, at_mono_s=number / 10)
        samples = [
            Sample(
                at_s=float(at_s),
                cpu_s=at_s * busy,
                rss_bytes=100_000_000,
                threads=10,
                open_files=2 * sessions,
                talking=round(sessions * min(1.0, at_s / 5)),
            )
            for at_s in range(31)
        ]
        generator = _GAVE_OUT if sessions > self.generator_most else HEALTHY
        return replace(simulated(duration_s=0.0), measured=recorder, samples=samples, generator=generator)


def _knee(system: _System, objectives: ScenarioObjectives, **where: object) -> Knee:
    return find_knee(system.run, objectives=objectives, chunk_ms=20, where=SearchRange(**where))  # type: ignore[arg-type]


def test_the_knee_of_a_system_is_found_within_the_resolution(objectives):
    # 50 ms are added at 90 % of the core: at 270 sessions of 1/300 each.
    knee = _knee(_System(per_session=1 / 300), objectives)
    assert knee.limit == "objective"
    assert 270 * 0.9 <= knee.talking_per_core <= 270
    assert knee.best.core_share == pytest.approx(knee.best.sessions / 300, rel=0.05)
    assert knee.best.cpu_ms_per_session_s == pytest.approx(1000 / 300, rel=0.15)
    assert knee.best.added_p99_ms < 50 < knee.broke.added_p99_ms
    assert "speech arrives at once: first packet upstream p99 is" in knee.headline


def test_larger_chunks_of_such_a_system_have_a_knee_five_times_as_far(objectives):
    system = _System(per_session=1 / 300)
    knee = find_knee(system.run, objectives=objectives, chunk_ms=100)
    assert knee.talking_per_core == pytest.approx(5 * 270, rel=0.1)


def test_the_generators_end_is_not_the_gateways_knee(objectives):
    knee = _knee(_System(per_session=1 / 300, generator_most=120), objectives)
    assert knee.limit == "generator"
    assert knee.best.sessions <= 120
    assert "the generator gave out, so the knee lies above" in knee.headline
    assert "200 ms late at p99" in knee.headline


def test_one_unlucky_run_does_not_move_the_knee(objectives):
    system = _System(per_session=1 / 300, bad_luck=1)
    knee = _knee(system, objectives)
    assert system.asked[:2] == [25, 25]
    assert knee.talking_per_core == pytest.approx(256, abs=20)


def test_a_system_stronger_than_the_range_has_no_knee_in_it(objectives):
    knee = _knee(_System(per_session=1 / 3000), objectives, most=200)
    assert knee.limit == "range"
    assert knee.best.sessions == 200
    assert "nothing broke" in knee.headline


def test_a_system_that_never_holds_is_searched_downwards(objectives):
    weak = _knee(_System(per_session=1 / 10), objectives)
    assert weak.best.sessions in {8, 9}
    hopeless = _knee(_System(per_session=1.0), objectives)
    assert hopeless.best is None
    assert hopeless.talking_per_core == 0
    assert "not even the first step held" in hopeless.headline


def test_without_samples_nothing_is_claimed_about_cpu(objectives):
    system = _System(per_session=1 / 300)
    knee = find_knee(
        lambda *asked: replace(system.run(*asked), samples=[]), objectives=objectives, chunk_ms=20,
        where=SearchRange(most=30),
    )  # fmt: skip
    assert knee.best.core_share is None
    assert knee.best.cpu_ms_per_session_s is None


@settings(deadline=None)
@given(
    true_knee=st.integers(0, 3000),
    start=st.integers(1, 500),
    growth=st.floats(1.05, 4),
    resolution=st.floats(0.01, 0.5),
    attempts=st.integers(1, 3),
)
def test_every_search_ends_next_to_the_knee_and_never_asks_for_more_than_it_may(
    true_knee, start, growth, resolution, attempts
):
    where = SearchRange(start=start, most=2000, growth=growth, resolution=resolution, attempts=attempts)
    search, tried = Search(where), 0
    while (sessions := search.next()) is not None:
        assert 1 <= sessions <= 2000
        search.tried("held" if sessions <= true_knee else "broke")
        tried += 1
        assert tried < 500
    assert search.held <= true_knee
    if true_knee >= 2000:
        assert (search.held, search.limit) == (2000, "range")
    else:
        assert search.beyond > true_knee
        assert search.beyond - search.held <= max(1, resolution * search.held)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"start": 0}, "start is 0"), ({"start": 9, "most": 8}, "start is 9"), ({"growth": 1.0}, "growth must be")],
)
def test_a_range_that_would_search_for_ever_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        SearchRange(**wrong)


def test_the_outputs_have_every_run_and_what_was_found(objectives, tmp_path: Path):
    system = _System(per_session=1 / 300)
    knees = [
        _knee(system, objectives),
        find_knee(system.run, objectives=objectives, chunk_ms=100, where=SearchRange(most=500)),
    ]
    console = Console(width=200)
    with console.capture() as shown:
        for knee in knees:
            show_knee(console, knee)
    files = write_knees(tmp_path / "knee", knees, {"grpcio": "1.85.0"}, "2026-11-20T09:30:00+00:00")
    row = json.loads(files.values.read_text())
    assert [one["chunk_ms"] for one in row["knees"]] == [20, 100]
    assert len(row["knees"][0]["points"]) == len(knees[0].points)
    for knee in knees:
        assert knee.headline in shown.get()
        assert f"{knee.talking_per_core:.0f}" in files.page.read_text()
    assert files.page.read_text().count("<svg") == 2


def test_a_search_in_which_nothing_held_has_outputs_too(objectives):
    page = knee_page([_knee(_System(per_session=1.0), objectives)], {}, "2026-11-20T09:30:00+00:00")
    assert "not even the first step held" in page
