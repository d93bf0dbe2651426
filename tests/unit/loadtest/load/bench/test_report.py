"""The report shows ratio and spread, says aloud what is void, and names broken budgets."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from load.bench.loads import LOADS, BenchSettings
from load.bench.ratios import FLOOR, GATEWAY, LoadResult, Quantiles, Window
from load.bench.report import as_json, breaches, show
from stage.cores import Cores

_WINDOW = Window(
    audio_s=100.0,
    seconds=10.0,
    cpu_s=0.1,
    core_busy=0.03,
    load_share=0.3,
    load_core_busy=0.4,
    stolen=0.01,
    lateness=Quantiles(0.5, 2.0, 5000),
    first_packets=Quantiles(1.0, 3.0, 240),
    packets=260,
    underruns=0,
)


def _settings(**changes) -> BenchSettings:
    return BenchSettings(loads=tuple(LOADS.values()), cores=Cores(measured=0, load=1), **changes)


def _result(*, cpu_s: float = 0.25, **changes) -> LoadResult:
    gateway = [replace(_WINDOW, cpu_s=cpu_s, **changes), replace(_WINDOW, cpu_s=2 * cpu_s)]
    return LoadResult("15 s", {FLOOR: [_WINDOW, _WINDOW], GATEWAY: gateway})


def _shown(result: LoadResult) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(console, [result])
    text: str = console.file.getvalue()
    return text


def test_the_table_has_a_row_per_server_with_ratio_and_spread():
    text = _shown(_result())
    assert "3.75 (2.50 to 5.00)" in text
    assert "void" not in text


def test_a_late_generator_is_said_aloud():
    text = _shown(_result(lateness=Quantiles(5.0, 21.0, 10)))
    assert "void: gateway, round 1: chunks were 21.0 ms late at p99" in text


def test_only_a_broken_budget_is_a_breach():
    settings = _settings(budget_ratio=3.8, budget_first_ms=3.0)
    assert breaches(settings, [_result()]) == []
    (ratio,) = breaches(settings, [_result(cpu_s=0.26)])
    assert ratio == "15 s: ratio to the floor is 3.90, the budget is 3.8"
    late = Quantiles(1.0, 30.0, 240)
    (first,) = breaches(settings, [_result(first_packets=late)])
    assert first == "15 s: first packets took 16.5 ms at p99, the budget is 3 ms"


def test_json_is_valid_also_when_something_could_not_be_measured():
    none = Quantiles(float("nan"), float("nan"), 0)
    text = as_json(_settings(budget_ratio=1.0), [_result(first_packets=none)])
    document = json.loads(text, parse_constant=pytest.fail)
    (result,) = document["results"]
    window = result["servers"][GATEWAY]["windows"][0]
    assert window["first_packets"] == {"p50_ms": None, "p99_ms": None, "count": 0}
    assert window["cpu_ms_per_audio_s"] == 2.5
    assert result["servers"][GATEWAY]["ratio"] == {"median": 3.75, "low": 2.5, "high": 5.0}
    assert document["settings"]["rounds"] == 3
    assert len(document["breaches"]) == 1
