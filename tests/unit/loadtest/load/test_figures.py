"""Measurements of a run: none is lost between processes or in a file, and each value keeps its time."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.figures import WINDOW_S, Recorder


def _recorder(started_s: float = 100.0) -> Recorder:
    return Recorder(started_s)


def test_values_and_counts_fall_into_the_window_of_their_moment():
    recorder = _recorder()
    recorder.record("gateway", "started", 0.4, at_mono_s=100 + 2 * WINDOW_S + 0.1)
    recorder.count("gateway", "utterances", 3, at_mono_s=100 + WINDOW_S + 0.1)
    recorder.failed("gateway", "UPSTREAM_LOST", expected=True, at_mono_s=100.5)
    recorder.failed("gateway", "AUDIO_GAP", at_mono_s=100.7)
    assert list(recorder.series["gateway", "started"].by_window) == [2]
    assert recorder.over_time == {("gateway", "utterances"): {1: 3}, ("gateway", "errors"): {0: 2}}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 600), st.booleans()), max_size=40))
def test_a_merge_of_two_processes_is_as_if_one_had_seen_all(values):
    parts, whole = (_recorder(), _recorder()), _recorder()
    for value_s, after_s, which in values:
        for recorder in (parts[which], whole):
            recorder.record("direct", "ack delay", value_s, at_mono_s=100 + after_s)
            recorder.count("direct", "arrivals", at_mono_s=100 + after_s)
    parts[0].merge(parts[1])
    merged = Recorder.from_json(json.loads(json.dumps(parts[0].to_json())))
    assert merged.counters == whole.counters
    assert merged.over_time == whole.over_time
    for key, series in whole.series.items():
        assert merged.series[key].percentile_ms(50) == series.percentile_ms(50)
        assert merged.series[key].max_ms() == series.max_ms()
        counts = {window: one.get_total_count() for window, one in merged.series[key].by_window.items()}
        assert counts == {window: one.get_total_count() for window, one in series.by_window.items()}


@pytest.mark.parametrize(
    "use", [lambda r: r.record("gateway", "starts", 1, at_mono_s=1), lambda r: r.count("gateway", "x")]
)
def test_a_figure_or_counter_that_nobody_declared_is_an_error(use):
    with pytest.raises(KeyError):
        use(_recorder())


def test_shares_of_tenants_survive_files_are_added_up_and_get_names():
    first, second = Recorder(0.0), Recorder(0.0)
    for recorder, keys in ((first, ("k1", "k2")), (second, ("k1",))):
        for key in keys:
            recorder.of_tenant(key).record("gateway", "attach", 0.01, at_mono_s=1.0)
            recorder.of_tenant(key).count("gateway", "sessions", at_mono_s=1.0)
    first = Recorder.from_json(json.loads(json.dumps(first.to_json())))
    first.merge(second)
    assert [first.tenants[key].counters["gateway", "sessions"] for key in ("k1", "k2")] == [2, 1]
    first.rename_tenants({"k1": "acme", "k2": "acme"})
    assert list(first.tenants) == ["acme"]
    assert first.tenants["acme"].series["gateway", "attach"].count == 3


def test_a_result_of_an_earlier_version_has_no_tenants():
    row = Recorder(0.0).to_json()
    del row["tenants"]
    assert Recorder.from_json(row).tenants == {}
