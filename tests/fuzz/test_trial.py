"""The verdict of a run: what it sees, and what it lets pass."""

import json

import pytest

from fuzz.cases import make
from fuzz.player import Tally
from fuzz.trial import GONE, MAX_GROWTH_BYTES, LogReader, Result

TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "/anywhere/server/liveavatar_gateway/rpc/call.py", line 7, in call\n'
    "    raise ValueError(1)\n"
    "ValueError: 1"
)


def result(**values) -> Result:
    return Result(**{"seed": 1, "duration_s": 1.0, "tally": Tally(), "tracebacks": 0, **values})


def test_a_gateway_that_stands_everything_has_no_problems():
    assert result().problems() == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"is_alive": False}, GONE),
        ({"left": ("session a",)}, "left behind: session a"),
        ({"last_bytes": MAX_GROWTH_BYTES + 2**20}, "memory grew by 97 MB"),
    ],
)
def test_what_must_not_be_is_a_problem(values, problem):
    assert result(**values).problems() == [problem]


def test_a_finding_is_noted_once_with_its_cases_and_counted_each_time():
    tally, case = Tally(), make(1, "unary", 0)
    tally.find("a fault", "first", case)
    tally.find("a fault", "second")
    (finding,) = tally.findings
    assert (finding.detail, finding.cases) == ("first", (case,))
    assert tally.statuses["FINDING a fault"] == 2
    assert result(tally=tally).problems() == ["a fault: first"]


@pytest.mark.parametrize(
    "line", [json.dumps({"event": "rpc.fault", "exception": TRACEBACK}), TRACEBACK.split("\n", maxsplit=1)[0]]
)
def test_a_traceback_in_the_log_is_seen_once(tmp_path, line):
    path = tmp_path / "log"
    path.write_text(f"{json.dumps({'event': 'started'})}\n{line}\n", encoding="utf-8")
    log = LogReader(path)
    assert len(log.read()) == 1
    assert log.read() == []
    assert log.bad_count == 1


def test_a_problem_is_named_after_its_error_and_its_place(tmp_path):
    path = tmp_path / "log"
    path.write_text(json.dumps({"event": "rpc.fault", "exception": TRACEBACK}) + "\n", encoding="utf-8")
    assert LogReader(path).read() == [("ValueError: 1 in rpc/call.py call", TRACEBACK)]


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "log"
    path.write_text("Task exception was never ret", encoding="utf-8")
    log = LogReader(path)
    assert log.read() == []
    with path.open("a", encoding="utf-8") as file:
        file.write("rieved\n")
    assert len(log.read()) == 1
