"""Timelines of faults are played against a real emulator, told, and undone."""

import time
from pathlib import Path

import pytest

from liveavatar_demo.emulator_control import EmulatorControl, EmulatorUnreachable
from load.fault_player import FaultPlayer
from load.timeline import Timeline
from stage.errors import StageError
from testkit import processes

_FILES = sorted((Path(__file__).parents[2] / "loadtest/faults").glob("*.toml"))


@pytest.fixture
def control():
    with processes.emulator() as emulator:
        yield emulator


def _wait_played(player: FaultPlayer, count: int) -> None:
    give_up_s = time.monotonic() + 20
    while len(player.played) < count and not player.problem:
        assert time.monotonic() < give_up_s, f"only {len(player.played)} of {count} were played"
        time.sleep(0.02)


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_the_emulator_takes_every_fault_of_the_timelines_that_are_shipped(control: EmulatorControl, path: Path):
    timeline = Timeline.read(str(path))
    with FaultPlayer(timeline, control) as player:
        player.begin(time.monotonic() - 3600)
        _wait_played(player, len(timeline.events))
    assert player.problem == ""
    assert [one["what"] for one in player.played] == [one.what for one in timeline.events]


def test_a_setting_is_changed_for_its_time_and_put_back(control: EmulatorControl):
    timeline = Timeline.parse(
        '[[at]]\nat_s = 0.1\nfor_s = 3\nwhat = "late interrupts"\nsettings = { interrupt_ack_ms = 900 }'
    )
    with FaultPlayer(timeline, control) as player:
        player.begin(time.monotonic())
        _wait_played(player, 1)
        assert control.settings()["interrupt_ack_ms"] == 900
        give_up_s = time.monotonic() + 20
        while control.settings()["interrupt_ack_ms"] != 190:
            assert time.monotonic() < give_up_s
            time.sleep(0.05)
    assert player.problem == ""


def test_a_run_that_ends_early_puts_back_what_it_changed_and_does_nothing_new(control: EmulatorControl):
    timeline = Timeline.parse(
        '[[at]]\nat_s = 0\nfor_s = 600\nwhat = "late interrupts"\nsettings = { interrupt_ack_ms = 900 }\n'
        '[[at]]\nat_s = 300\nwhat = "no starts"\nfault = { endpoint = "start", status = 503 }'
    )
    with FaultPlayer(timeline, control) as player:
        player.begin(time.monotonic())
        _wait_played(player, 1)
    assert control.settings()["interrupt_ack_ms"] == 190
    assert control.state()["faults"]["armed"] == 0
    assert [one["what"] for one in player.played] == ["late interrupts"]


def test_a_fault_that_the_emulator_does_not_know_is_told_with_its_answer(control: EmulatorControl):
    timeline = Timeline.parse('[[at]]\nat_s = 0\nwhat = "nonsense"\nfault = { endpoint = "moon" }')
    with FaultPlayer(timeline, control) as player:
        player.begin(time.monotonic())
        _wait_played(player, 1)
    assert "the emulator refuses POST /_emulator/faults" in player.problem


def test_faults_without_an_emulator_are_refused_before_anything_runs():
    timeline = Timeline.parse("[[at]]\nat_s = 0\nwhat = 'a restart'\nrestart = {}")
    with pytest.raises(StageError, match="say where it is with --emulator"):
        FaultPlayer(timeline, None)


def test_an_emulator_that_does_not_answer_is_named():
    with (
        EmulatorControl("http://127.0.0.1:9") as control,
        pytest.raises(EmulatorUnreachable, match=r"http://127\.0\.0\.1:9"),
    ):
        control.active()
