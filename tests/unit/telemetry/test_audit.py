"""The audit log: whole JSON lines, whatever their values, and never a fault for the act that they report."""

import json
import os
import stat
import time
from datetime import UTC, datetime

import pytest

from liveavatar_gateway.telemetry.audit import OK, AuditLog, open_file

NOW = datetime(2026, 11, 30, 12, 0, 0, 5000, tzinfo=UTC)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(file):
    return AuditLog(open_file(file), now=lambda: NOW)


def test_a_line_has_time_event_outcome_and_the_fields_that_are_known(log, file):
    log.write("session.open", OK, {"session": "s-1", "request_id": "", "tenant": None, "grace_s": 0.0})
    log.write("call.refused", "ROLE_MISSING", {})
    log.close()
    time_ = "2026-11-30T12:00:00.005Z"
    assert lines(file) == [
        {"time": time_, "event": "session.open", "outcome": "OK", "session": "s-1", "grace_s": 0.0},
        {"time": time_, "event": "call.refused", "outcome": "ROLE_MISSING"},
    ]


@pytest.mark.parametrize("text", ["a\nb", "\u2028", "\u202eevil", "\x1b[2J", '"}', "\ud800"])
def test_no_text_leaves_its_line(log, file, text):
    log.write("session.end", OK, {"session": text})
    log.close()
    assert file.read_text().isascii()
    assert file.read_text().count("\n") == 1
    assert lines(file)[0]["session"] == text


def test_long_texts_are_cut(log, file):
    log.write("session.end", OK, {"session": "x" * 1000})
    log.close()
    assert lines(file)[0]["session"] == "x" * 300 + "..."


def test_a_value_that_cannot_be_shown_costs_its_line_only(log, file):
    class Unshowable:
        def __str__(self):
            raise ZeroDivisionError

    log.write("session.end", OK, {"session": Unshowable()})
    log.write("session.end", OK, {})
    log.close()
    assert [line["event"] for line in lines(file)] == ["session.end"]
    assert log.dropped_count == 1


def test_a_disk_that_refuses_is_counted_and_raises_nothing():
    log = AuditLog(os.open("/dev/full", os.O_WRONLY))
    for _ in range(10):
        log.write("session.end", OK, {})
    log.close()
    assert log.dropped_count == 10


def test_a_stuck_disk_delays_nobody_and_takes_no_endless_memory():
    reader, writer = os.pipe()
    log = AuditLog(writer)
    began_s = time.monotonic()
    while not log.dropped_count:
        log.write("session.end", OK, {"session": "x" * 300})
        assert time.monotonic() < began_s + 15
    os.close(reader)
    log.close()


def test_a_file_is_appended_to_and_is_not_for_everybody(file):
    for event in ("a", "b"):
        log = AuditLog.open(str(file))
        log.write(event, OK, {})
        log.close()
    assert [line["event"] for line in lines(file)] == ["a", "b"]
    assert stat.S_IMODE(file.stat().st_mode) & 0o007 == 0


def test_after_a_rotation_lines_go_to_the_new_file(log, file):
    log.write("a", OK, {})
    log.close()
    moved = file.rename(file.with_suffix(".1"))
    assert log.use(open_file(file))
    log.write("b", OK, {})
    log.close()
    assert ([line["event"] for line in lines(moved)], [line["event"] for line in lines(file)]) == (["a"], ["b"])


def test_a_file_that_cannot_be_opened_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing/audit.jsonl", "pipe", "."):
        with pytest.raises(ValueError, match=str(tmp_path)):
            open_file(tmp_path / name)


def test_a_dash_means_standard_output(capfd):
    log = AuditLog.open("-")
    log.write("a", OK, {})
    log.close()
    assert json.loads(capfd.readouterr().out)["event"] == "a"
