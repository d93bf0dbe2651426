"""The benchmark's small parts: settings, cuts, result files, core times, budgets and the report."""

import io
import json
import os
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bench.direct import cuts_ms
from bench.measure import Figures, Quantiles
from bench.report import as_json, breaches, show
from bench.settings import BenchError, BenchSettings
from bench.speech import Spoken, SpokenSession, Write, noise
from stage.cores import Cores, CoreTimes, on_cores, process_cpu_s
from stage.errors import StageError

_CORES = Cores(measured=0, load=1)
_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="clocks and cores of the Linux kernel")


def _figures(**changes) -> Figures:
    found = Figures(
        name="gateway, 20 ms",
        sessions=60,
        chunk_ms=20,
        audio_s=720.0,
        cpu_ms_per_audio_s=4.0,
        core_share=0.24,
        first_packets=Quantiles(1.0, 3.0, 240),
        all_packets=Quantiles(10.0, 21.0, 3600),
        packet_ms=200.0,
        packets_per_s=300.0,
        underruns=0,
        lateness=Quantiles(0.5, 2.0, 36_000),
        generator_share=0.3,
        generator_core_busy=0.4,
        emulator_share=0.06,
        measured_core_busy=0.25,
        measured_core_steal=0.01,
        load_core_steal=0.02,
    )
    return replace(found, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chunks_ms": (20, 70)}, "10000 ms is no whole number of 70-ms chunks"),
        ({"budgets": {50: 1.0}}, "50-ms chunks, which are not measured"),
        ({"utterance_ms": 400}, "longer than its first packet"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(changes, said):
    with pytest.raises(BenchError, match=said):
        BenchSettings(cores=_CORES, **changes)


@pytest.mark.parametrize(
    ("utterance_ms", "packet_ms", "cuts"),
    [(3000, 1000, [400, 1000, 1000, 600]), (1000, 200, [400, 200, 200, 200]), (300, 200, [300])],
)
def test_an_utterance_is_cut_into_a_first_packet_others_and_the_rest(utterance_ms, packet_ms, cuts):
    assert cuts_ms(utterance_ms=utterance_ms, first_ms=400, packet_ms=packet_ms) == cuts


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 10_000), st.integers(1, 1000), st.integers(1, 1000))
def test_cuts_make_the_whole_utterance(utterance_ms, first_ms, packet_ms):
    cuts = cuts_ms(utterance_ms=utterance_ms, first_ms=first_ms, packet_ms=packet_ms)
    assert sum(cuts) == utterance_ms
    assert min(cuts) > 0


def test_noise_has_the_length_of_its_time_and_is_the_same_each_time():
    assert len(noise(20)) == 960
    assert noise(20) == noise(20)


def test_what_was_spoken_survives_its_file(tmp_path):
    spoken = Spoken([SpokenSession("a", [Write(0, 960, 1.5, 1.5001)]), SpokenSession("b")], ["it broke"])
    spoken.save(tmp_path / "spoken.json")
    assert Spoken.load(tmp_path / "spoken.json") == spoken


_STAT = "cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 10 0 10 70 10 0 0 0 0 0\ncpu1 100 5 50 800 20 5 10 10 0 0\nintr 5\n"


def test_core_times_are_read_from_the_cores_own_line():
    assert CoreTimes.parse(_STAT, 0) == CoreTimes(total=100, idle=80, steal=0)
    assert CoreTimes.parse(_STAT, 1) == CoreTimes(total=1000, idle=820, steal=10)
    with pytest.raises(StageError, match="no core 7"):
        CoreTimes.parse(_STAT, 7)


def test_busy_and_stolen_are_shares_of_the_time_between():
    before, after = CoreTimes(1000, 800, 10), CoreTimes(1200, 850, 40)
    assert after.busy_since(before) == pytest.approx(0.75)
    assert after.stolen_since(before) == pytest.approx(0.15)
    assert after.stolen_since(after) == 0.0


@_on_linux
def test_the_cpu_clock_of_a_process_is_the_kernels():
    before_s = time.process_time()
    seen_s = process_cpu_s(os.getpid())
    assert before_s <= seen_s <= time.process_time()


@_on_linux
def test_cores_are_given_back():
    allowed = os.sched_getaffinity(0)
    with on_cores([min(allowed)]):
        assert os.sched_getaffinity(0) == {min(allowed)}
    assert os.sched_getaffinity(0) == allowed


def test_only_a_broken_budget_is_a_breach():
    settings = BenchSettings(cores=_CORES, budgets={20: 4.5, 100: 2.2})
    in_budget = _figures(chunk_ms=100, cpu_ms_per_audio_s=2.2)
    held = [_figures(), in_budget, _figures(chunk_ms=None, cpu_ms_per_audio_s=9.0)]
    assert breaches(settings, held) == []
    (said,) = breaches(settings, [*held, _figures(cpu_ms_per_audio_s=4.51)])
    assert said == "gateway, 20 ms: 4.51 ms of CPU per second of audio, the budget is 4.5 ms"


def test_late_first_packets_of_the_gateway_are_a_breach_too():
    settings = BenchSettings(cores=_CORES, budget_first_ms=25.0)
    late = Quantiles(1.0, 25.1, 240)
    assert breaches(settings, [_figures(), _figures(chunk_ms=None, first_packets=late)]) == []
    (said,) = breaches(settings, [_figures(first_packets=late)])
    assert said == "gateway, 20 ms: first packets took 25.1 ms at p99, the budget is 25 ms"


def _shown(*results: Figures) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(console, BenchSettings(cores=_CORES), results)
    text: str = console.file.getvalue()
    return text


def test_the_table_has_a_column_for_each_measurement():
    text = _shown(_figures(), _figures(name="direct", chunk_ms=None, cpu_ms_per_audio_s=0.7))
    assert "60 sessions talking in real time" in text
    assert "4.00 ms" in text
    assert "0.70 ms" in text
    assert "bottleneck" not in text


def test_a_bottleneck_is_said_out_loud():
    text = _shown(_figures(lateness=Quantiles(5.0, 21.0, 10)))
    assert "gateway, 20 ms: the generator was the bottleneck, figures are not the gateway's" in text
    assert "late by 21.0 ms at p99" in text


def test_json_is_valid_also_when_something_could_not_be_measured():
    none = Quantiles(float("nan"), float("nan"), 0)
    settings = BenchSettings(cores=_CORES, budgets={20: 1.0})
    document = json.loads(as_json(settings, [_figures(first_packets=none)]), parse_constant=pytest.fail)
    (result,) = document["results"]
    assert result["first_packets"] == {"p50_ms": None, "p99_ms": None, "count": 0}
    assert result["generator_was_bottleneck"] is False
    assert document["settings"]["sessions"] == 60
    assert len(document["breaches"]) == 1
    assert "none" in _shown(_figures(first_packets=none))
