"""Measurements of a process: none is lost on the way to the recorder and to Locust's tables."""

import random

import pytest

from load.figures import WINDOW_S, Recorder
from load.recorder import LoadRecorder


@pytest.fixture
def recorder() -> LoadRecorder:
    return LoadRecorder(Recorder(0.0), lambda reason, at_s: reason == "DRILL" and at_s > 0)


def test_lateness_that_gathered_is_counted_in_full_and_to_a_hair(recorder: LoadRecorder):
    rng = random.Random(1)
    values = [rng.expovariate(1 / 0.004) for _ in range(5000)]
    late = recorder.lateness_of("gateway")
    late.extend(values[:3000])
    recorder.flush()
    late.extend(values[3000:])
    recorder.flush()
    recorder.flush()
    series = recorder.measured.series["gateway", "chunk lateness"]
    assert series.count == 5000
    scenario_of = sorted(values)
    assert series.percentile_ms(50) == pytest.approx(1000 * scenario_of[2500], abs=0.02, rel=0.01)
    assert series.percentile_ms(99) == pytest.approx(1000 * scenario_of[4950], abs=0.02, rel=0.01)
    shown = [row for row in recorder.for_locust if row.name == "chunk lateness, worst"]
    assert len(shown) == 2
    assert max(row.took_ms for row in shown) == pytest.approx(1000 * max(values))


def test_sessions_may_hold_on_to_where_they_note_lateness(recorder: LoadRecorder):
    late = recorder.lateness_of("direct")
    late.append(0.001)
    recorder.flush()
    late.append(0.002)
    recorder.flush()
    assert recorder.measured.series["direct", "chunk lateness"].count == 2


def test_errors_that_a_drill_provokes_are_told_apart(recorder: LoadRecorder):
    recorder.failed("gateway", "DRILL", took_s=1.0)
    recorder.failed("gateway", "UNAVAILABLE", took_s=2.0)
    assert recorder.measured.expected_errors == {("gateway", "DRILL"): 1}
    assert recorder.measured.errors == {("gateway", "UNAVAILABLE"): 1}
    assert [(row.name, row.reason) for row in recorder.for_locust] == [
        ("session", "DRILL"),
        ("session", "UNAVAILABLE"),
    ]


def test_locust_sees_latencies_as_such_and_lifetimes_apart(recorder: LoadRecorder):
    recorder.record("gateway", "session open", 0.25)
    recorder.record("gateway", "session lifetime", 30.0)
    recorder.record("gateway", "started, closed loop", 0.1)
    assert [(row.name, row.latency) for row in recorder.for_locust] == [
        ("session open", True),
        ("session lifetime", False),
    ]


def test_the_same_value_many_times_is_as_many_values():
    once, often = Recorder(0.0), Recorder(0.0)
    for _ in range(7):
        once.record("gateway", "attach", 0.003, at_mono_s=WINDOW_S * 2.5)
    often.record("gateway", "attach", 0.003, at_mono_s=WINDOW_S * 2.5, times=7)
    assert once.to_json() == often.to_json()


def test_the_share_of_a_tenant_is_part_of_the_whole(recorder: LoadRecorder):
    mine, other = recorder.of_tenant("a"), recorder.of_tenant("b")
    mine.record("gateway", "attach", 0.003)
    other.record("gateway", "attach", 0.004)
    mine.count("gateway", "sessions")
    mine.failed("gateway", "QUOTA_EXCEEDED", took_s=0.0)
    mine.note_integrity_failure("gateway", "session s")
    measured = recorder.measured
    assert measured.series["gateway", "attach"].count == 2
    assert measured.tenants["a"].series["gateway", "attach"].count == 1
    assert measured.tenants["a"].counters == measured.counters
    assert measured.counters["gateway", "quota refusals"] == 1
    assert measured.tenants["a"].errors == measured.errors == {("gateway", "QUOTA_EXCEEDED"): 1}
    assert measured.tenants["a"].integrity_failures == measured.integrity_failures
    assert measured.tenants["b"].counters == {}
