"""The event log."""

import json
from pathlib import Path

import pytest
import structlog

from liveavatar_emulator import eventlog
from liveavatar_emulator.clock import ManualClock
from liveavatar_emulator.config import InvalidSetting
from liveavatar_emulator.eventlog import EventLog


async def test_lines_are_numbered_and_carry_emulator_time(tmp_path):
    clock = ManualClock()
    log = EventLog(clock, tmp_path / "log")
    log.append("one", session=1, reason=None)
    await clock.advance(0.25)
    log.append("two")
    lines = [json.loads(line) for line in log.lines().splitlines()]
    assert lines == [{"n": 1, "at_s": 0.0, "what": "one", "session": 1}, {"n": 2, "at_s": 0.25, "what": "two"}]
    assert (tmp_path / "log").read_bytes() == log.lines()
    log.close()


@pytest.mark.parametrize(("after", "numbers"), [(0, [1, 2, 3]), (2, [3]), (9, [])])
def test_lines_after_a_number_can_be_asked_for(after, numbers):
    log = EventLog(ManualClock())
    for what in "abc":
        log.append(what)
    assert [json.loads(line)["n"] for line in log.lines(after).splitlines()] == numbers


def test_memory_keeps_the_newest_and_the_file_keeps_all(tmp_path, monkeypatch):
    monkeypatch.setattr(eventlog, "KEPT_LINES", 2)
    log = EventLog(ManualClock(), tmp_path / "log")
    for what in "abc":
        log.append(what)
    assert [json.loads(line)["what"] for line in log.lines(after=1).splitlines()] == ["b", "c"]
    assert len((tmp_path / "log").read_bytes().splitlines()) == 3
    log.close()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InvalidSetting, match=r"event_log.*cannot be written: No such file"):
        EventLog(ManualClock(), tmp_path / "missing" / "log")


def test_a_file_that_cannot_be_written_any_more_costs_the_file_only():
    log = EventLog(ManualClock(), Path("/dev/full"))
    with structlog.testing.capture_logs() as logs:
        log.append("one")
        log.append("two")
    assert [json.loads(line)["what"] for line in log.lines().splitlines()] == ["one", "two"]
    assert [entry["log_level"] for entry in logs] == ["error"]
