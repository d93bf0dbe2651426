"""The flooding tenant counts what happens to it, and reports each count once."""

import asyncio
import io
import time

from load.figures import Recorder
from load.noisy import Counts, CountsWriter, Flooding, flood
from load.recorder import LoadRecorder


def _flooding(**changes: object) -> Flooding:
    values = {"target": "127.0.0.1:1", "key_file": "/nowhere", "windows": ((5.0, 10.0), (15.0, 20.0)), **changes}
    return Flooding(**values)


def test_an_order_survives_its_line():
    flooding = _flooding(emulator="http://e", one_clock=True, seed=7, zero_mono_s=12.5)
    assert "\n" not in flooding.to_json()
    assert Flooding.from_json(flooding.to_json()) == flooding


def test_counts_of_all_lines_add_up_to_what_was_recorded():
    recorder = LoadRecorder(Recorder(time.monotonic()), lambda *_: False)
    lines = io.StringIO()
    writer = CountsWriter(recorder, lines)
    recorder.count("gateway", "calls accepted", 3)
    recorder.failed("gateway", "FLOOD: INTERNAL", took_s=0.0)
    recorder.record("gateway", "started", 1.0)
    writer.write()
    writer.write()
    recorder.count("gateway", "calls accepted")
    recorder.count("gateway", "quota refusals", 9)
    for number in range(2):
        recorder.failed("gateway", "FLOOD: INTERNAL", took_s=0.0)
        recorder.note_integrity_failure("gateway", f"wrong {number}")
    writer.write()
    read = [Counts.from_json(line) for line in lines.getvalue().splitlines()]
    assert (read[1].counters, read[1].errors, read[1].integrity_failures) == ({}, {}, ())
    added = Recorder(recorder.measured.started_mono_s)
    for counts in read:
        counts.add_to(added)
    assert added.counters == recorder.measured.counters
    assert added.errors == recorder.measured.errors
    assert added.integrity_failures == ["wrong 0", "wrong 1"]
    assert added.series == {}
    assert not recorder.for_locust


async def test_a_flood_that_is_stopped_writes_its_last_counts(tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text("lag_key")
    stop = asyncio.Event()
    stop.set()
    lines = io.StringIO()
    flooding = _flooding(key_file=str(key_file), zero_mono_s=time.monotonic())
    await flood(flooding, lines, stop)
    assert [Counts.from_json(line).counters for line in lines.getvalue().splitlines()] == [{}]
