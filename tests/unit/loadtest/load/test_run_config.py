"""The seam between the command line and the generator: what one writes the other reads."""

from pathlib import Path

import pytest

from load.figures import Recorder
from load.run_config import Began, InvalidRunConfig, Report, RunConfig, discard_previous


def test_an_order_survives_the_environment():
    config = RunConfig(
        scenario="spike", target="h:1", emulator="http://e", one_clock=True, users=7, seconds=1.5, rate=0.5
    )
    assert RunConfig.from_environment(config.to_environment()) == config


def test_a_missing_or_empty_variable_is_the_default():
    assert RunConfig.from_environment({"LOAD_USERS": "", "HOME": "/"}) == RunConfig()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("LOAD_USERS", "many", "LOAD_USERS is 'many'; it must be a whole number"),
        ("LOAD_SECONDS", "2m", "LOAD_SECONDS is '2m'; it must be a number"),
        ("LOAD_ONE_CLOCK", "maybe", "LOAD_ONE_CLOCK is 'maybe'; it must be 1 or 0"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_variable(name: str, text: str, says: str):
    with pytest.raises(InvalidRunConfig, match=says):
        RunConfig.from_environment({name: text})


def test_a_report_survives_its_file(tmp_path: Path):
    recorder = Recorder(0.0)
    recorder.record("gateway", "session open", 0.25, at_mono_s=1.0)
    recorder.failed("direct", "UNAVAILABLE")
    report = Report(
        measured=recorder,
        started_at="2026-01-01T00:00:00+00:00",
        started_mono_s=5.0,
        duration_s=120.0,
        lag_p99_ms=1.0,
        lag_max_ms=2.0,
        cpu_share=0.5,
        workers=2,
    )
    report.save(tmp_path / "deep" / "report.json")
    read = Report.load(tmp_path / "deep" / "report.json")
    assert read.measured.to_json() == recorder.to_json()
    assert (read.started_mono_s, read.duration_s, read.workers) == (5.0, 120.0, 2)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.json"]


def test_the_beginning_is_told_beside_the_report(tmp_path: Path):
    config = RunConfig(report=str(tmp_path / "measured.json"))
    assert Began.load(config) is None
    began = Began(started_at="2026-01-01T00:00:00+00:00", started_mono_s=5.0, seconds=120.0)
    began.save(config)
    assert Began.load(config) == began


def test_what_an_earlier_run_left_is_discarded(tmp_path: Path):
    config = RunConfig(report=str(tmp_path / "measured.json"))
    other = tmp_path / "result.json"
    for path in (Began.path(config), Path(config.report), other):
        path.write_text("{}")
    for _ in range(2):
        discard_previous(config)
        assert Began.load(config) is None
        assert not Path(config.report).exists()
    assert other.exists()
