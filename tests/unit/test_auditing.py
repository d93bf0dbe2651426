"""Audit of a process: all parts, or none."""

import json

import pytest

from liveavatar_gateway.auditing import AuditConfig, Auditing
from liveavatar_gateway.reloading import FileReloads


async def test_without_a_target_there_is_no_audit():
    audit = Auditing(AuditConfig())
    assert (audit.log, audit.ends, list(audit.interceptors()), audit.dropped_count) == (None, None, [], 0)
    audit.add_to(FileReloads())
    audit.drained(30.0)
    await audit.aclose()


async def test_a_file_takes_lines_and_is_opened_again(tmp_path):
    file = tmp_path / "audit.jsonl"
    audit = Auditing(AuditConfig(target=str(file)))
    reloads = FileReloads()
    audit.add_to(reloads)
    assert len(audit.interceptors()) == 1
    audit.drained(30.0)
    await audit.aclose()
    moved = file.rename(tmp_path / "audit.1")
    await reloads.reload()
    audit.drained(5.0)
    await audit.aclose()
    for path, grace_s in ((moved, 30.0), (file, 5.0)):
        line = json.loads(path.read_text())
        assert (line["event"], line["cause"], line["grace_s"]) == ("process.drain", "signal", grace_s)


def test_a_target_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be opened"):
        Auditing(AuditConfig(target=str(tmp_path / "missing" / "audit.jsonl")))
