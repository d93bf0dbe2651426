"""Logs say what went wrong, and none of the values that it went wrong with."""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

from liveavatar_gateway import logs

FAILS = """
import structlog
from liveavatar_gateway import logs

def call(headers):
    raise AttributeError("of a library")

logs.configure("info", {form!r})
try:
    call({{"X-API-KEY": "a-real-secret"}})
except AttributeError:
    structlog.get_logger().exception("session.crashed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_where_and_no_values(form):
    done = subprocess.run(
        [sys.executable, "-c", FAILS.format(form=form)], capture_output=True, text=True, check=True, timeout=30
    )
    assert "session.crashed" in done.stderr
    assert "in call" in done.stderr
    assert "AttributeError: of a library" in done.stderr
    assert "a-real-secret" not in done.stderr


UNSHOWABLE = """
import structlog
from liveavatar_gateway import logs

class Unshowable:
    def __repr__(self):
        raise ZeroDivisionError
    __str__ = __repr__

logs.configure("info", {form!r})
structlog.get_logger().info("session.ended", value=Unshowable())
structlog.get_logger().info("still.logged")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_field_that_cannot_be_shown_raises_nothing(form):
    done = subprocess.run(
        [sys.executable, "-c", UNSHOWABLE.format(form=form)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert "session.ended (fields not shown: ZeroDivisionError)" in done.stderr
    assert "still.logged" in done.stderr


def test_what_nobody_reads_is_dropped_counted_and_told_when_somebody_reads_again():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    recovered = threading.Event()
    told: list[int] = []
    lines = logs.LineWriter(
        writer,
        max_waiting_bytes=200_000,
        on_recovery=lambda count: (told.append(count), recovered.set()),
    )
    for _ in range(100):
        lines.write(b"x" * 9_999 + b"\n")
    assert not lines.drain(0)
    assert lines.dropped_count > 0
    read = 0
    os.set_blocking(reader, False)
    while not (recovered.is_set() and lines.drain(0.01)):
        try:
            read += len(os.read(reader, 65_536))
        except BlockingIOError:
            time.sleep(0.001)
    with contextlib.suppress(BlockingIOError):
        while True:
            read += len(os.read(reader, 65_536))
    assert sum(told) == lines.dropped_count
    assert read == (100 - lines.dropped_count) * 10_000


def test_a_descriptor_that_does_not_block_loses_no_line():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    lines = logs.LineWriter(writer)
    lines.write(b"y" * 20_000)
    with os.fdopen(reader, "rb") as text:
        assert text.read(20_000) == b"y" * 20_000
    assert lines.dropped_count == 0


def test_a_file_that_was_moved_away_is_replaced_without_a_lost_line(tmp_path):
    def opened(name: str) -> int:
        return os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT)

    first = opened("1")
    lines = logs.LineWriter(first)
    lines.use(second := opened("2"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)
    lines.write(b"a\n")
    assert lines.drain(10)
    lines.use(opened("3"))
    give_up_s = time.monotonic() + 10
    while lines.fileno() == second:
        assert time.monotonic() < give_up_s
        time.sleep(0.001)
    lines.write(b"b\n")
    assert lines.drain(10)
    assert [(tmp_path / name).read_bytes() for name in "123"] == [b"", b"a\n", b"b\n"]
    os.close(lines.fileno())


class Disk:
    """Disk with room for some bytes, in place of `os.write`."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.content = b""

    def write(self, _fd: int, data: memoryview) -> int:
        taken = bytes(data[: self.room])
        if not taken:
            raise OSError(28, "No space left on device")
        self.room -= len(taken)
        self.content += taken
        return len(taken)


@pytest.mark.parametrize(
    ("room", "dropped", "content"),
    [(0, 2, b"ccc\n"), (2, 2, b"aa\nccc\n"), (4, 1, b"aaa\nccc\n"), (5, 1, b"aaa\nb\nccc\n")],
)
def test_a_full_disk_spoils_no_line_that_it_takes_later(monkeypatch, room, dropped, content):
    disk = Disk(room)
    monkeypatch.setattr(os, "write", disk.write)
    lines = logs.LineWriter(-1)
    assert lines._refused([b"aaa\n", b"bbb\n"]) == dropped
    assert lines._refused([b"xxx\n"]) == 1
    disk.room = 100
    assert lines._refused([b"ccc\n"]) == 0
    assert disk.content == content
    assert lines._refused([b"ddd\n"]) == 0
    assert disk.content == content + b"ddd\n"


HOSTILE = """
import structlog
from liveavatar_gateway import logs
logs.configure("info", {form!r})
text = "x\\x1b[2J\\u202e\\n2026-01-01T00:00:00Z [error    ] forged"
log = structlog.get_logger()
log.info("session.opened", label=text, labels={{text: text}}, **{{"na\\x1bme": 1}})
try:
    try:
        raise ValueError(text)
    except ValueError as error:
        raise ExceptionGroup(text * 100, [RuntimeError(text)]) from error
except ExceptionGroup as group:
    log.error("rpc.fault", exc_info=group)
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_texts_from_outside_cannot_act_on_a_terminal_or_forge_a_line(form):
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE.format(form=form)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert all(line.isprintable() for line in done.stderr.splitlines())
    starts = [line for line in done.stderr.split("\n") if line and not line.startswith("    ")]
    assert len(starts) == 2, "lines of the log that are not its own"
    for part in ("RuntimeError: ", "ValueError: ", "Traceback (most recent call last)"):
        assert part in done.stderr
    assert done.stderr.count("forged") < 20, "an exception's message is not cut"
