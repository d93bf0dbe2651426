"""Audit of a process: all parts, or none."""

import asyncio
import json
from types import SimpleNamespace

import grpc
import pytest

from liveavatar_gateway.auditing import AuditConfig, Auditing
from liveavatar_gateway.core.errors import CredentialMissing
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


async def test_lines_that_stand_for_many_are_written_at_the_end(tmp_path):
    file = tmp_path / "audit.jsonl"
    audit = Auditing(AuditConfig(target=str(file)))
    (interceptor,) = audit.interceptors()

    async def refuse(_requests, _context):
        raise CredentialMissing

    async def continuation(_details):
        return grpc.stream_unary_rpc_method_handler(refuse)

    details = SimpleNamespace(method="/liveavatar.gateway.v1.SessionService/GetSession")
    handler = await interceptor.intercept_service(continuation, details)
    context = SimpleNamespace(peer=lambda: "ipv4:10.0.0.1:4711", invocation_metadata=tuple)
    for _ in range(50):
        with pytest.raises(CredentialMissing):
            await asyncio.create_task(handler.stream_unary(None, context))
    await audit.aclose()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sum(line.get("repeated", 1) for line in lines) == 50
    assert {line["event"] for line in lines} == {"call.refused"}


def test_a_target_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be opened"):
        Auditing(AuditConfig(target=str(tmp_path / "missing" / "audit.jsonl")))
