"""The audit log of a real gateway: what callers and operators did, what ended sessions, and no secret."""

import asyncio
import json
import os
import resource
import signal
import time
import urllib.request

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from liveavatar.gateway.v1 import admin_service_pb2, admin_service_pb2_grpc
from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar_gateway.auth import keys
from testkit import processes
from testkit.caller import AVATAR, refused
from testkit.caller import caller as connect
from testkit.tenants import TenantsFile, caller_with

OTHER_AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c99"


class Audit:
    """File of an audit log."""

    def __init__(self, path) -> None:
        self.path = path

    def lines(self, event=""):
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in found if event in ("", line["event"])]

    async def until(self, event, count=1):
        async with asyncio.timeout(20):
            while len(self.lines(event)) < count:
                await asyncio.sleep(0.02)
        return self.lines(event)


@pytest.fixture
def audit(tmp_path):
    return Audit(tmp_path / "audit.jsonl")


async def test_opens_and_ends_have_lines_with_their_targets_and_addresses(emulator, audit):
    with processes.gateway(emulator.url, audit_file=audit.path, detach_grace_s=0.2) as gateway:
        async with connect(gateway.address) as caller:
            created = await caller.create("r-1", detach_grace=Duration(seconds=60))
            await caller.end(created.session.id)
            attached = await caller.attach("r-2")
            await attached.until_ready()
            await attached.command("c", end=p.End())
            lost = await caller.create("r-3", detach_grace=Duration())
            await audit.until("session.ended", 3)
            await refused(caller.end("unknown"))
        gateway.process.stop()
    lines = audit.lines()
    by_caller = [line for line in lines if "rpc" in line]
    assert {line["peer"] for line in by_caller} == {"127.0.0.1"}
    service = "liveavatar.gateway.v1.SessionService"
    assert [(line["event"], line["outcome"], line["rpc"]) for line in by_caller] == [
        ("session.open", "OK", f"{service}/CreateSession"),
        ("session.end", "OK", f"{service}/EndSession"),
        ("session.open", "OK", f"{service}/Attach"),
        ("session.end", "OK", f"{service}/Attach"),
        ("session.open", "OK", f"{service}/CreateSession"),
        ("session.end", "SESSION_NOT_FOUND", f"{service}/EndSession"),
    ]
    assert [line["request_id"] for line in audit.lines("session.open")] == ["r-1", "r-2", "r-3"]
    ends = {line["session"]: line["end_reason"] for line in audit.lines("session.ended")}
    assert ends[created.session.id] == "CALLER_ENDED"
    assert ends[lost.session.id] == "CALLER_LOST"
    assert [line["cause"] for line in audit.lines("process.drain")] == ["signal"]
    content = audit.path.read_text()
    assert audit.path.stat().st_mode & 0o007 == 0
    for secret in (created.handle, created.room.viewer_token, attached.opened.handle, processes.API_KEY):
        assert secret not in content


async def test_refused_opens_and_acts_of_operators_have_lines(emulator, audit):
    settings = {"audit_file": audit.path, "max_sessions": 1, "trusted_proxies": "127.0.0.0/8"}
    with processes.gateway(emulator.url, admin_port=0, **settings) as gateway:
        async with connect(gateway.address) as caller, grpc.aio.insecure_channel(gateway.admin_address) as channel:
            admin = admin_service_pb2_grpc.AdminServiceStub(channel)
            session = (await caller.create(detach_grace=Duration(seconds=60))).session
            assert (await refused(caller.create(deadline_s=2))).reason == "CAPACITY_EXHAUSTED"
            forwarded = (("x-forwarded-for", "198.51.100.7, 203.0.113.9"),)
            await admin.EjectSession(
                admin_service_pb2.EjectSessionRequest(session_id=session.id), metadata=forwarded, timeout=20
            )
            await admin.Drain(admin_service_pb2.DrainRequest(), timeout=20)
            assert (await refused(caller.create())).reason == "DRAINING"
            await admin.Undrain(admin_service_pb2.UndrainRequest(), timeout=20)
            await audit.until("process.undrain")
    assert [line["outcome"] for line in audit.lines("session.open")] == ["OK", "CAPACITY_EXHAUSTED", "DRAINING"]
    (eject,) = audit.lines("session.eject")
    assert (eject["outcome"], eject["session"], eject["peer"]) == ("OK", session.id, "203.0.113.9")
    assert [line["peer"] for line in audit.lines("process.undrain")] == ["127.0.0.1"]
    ends = {line["session"]: line["end_reason"] for line in audit.lines("session.ended")}
    assert ends[session.id] == "OPERATOR"


async def test_an_end_of_a_session_that_a_dead_process_left_has_a_line(emulator, audit, tmp_path):
    registry = tmp_path / "registry.db"
    with processes.gateway(emulator.url, registry_file=registry) as gateway:
        async with connect(gateway.address) as caller:
            session = (await caller.create("r-1", detach_grace=Duration(nanos=100_000_000))).session
            gateway.process.kill()
    with processes.gateway(emulator.url, registry_file=registry, audit_file=audit.path):
        (line,) = await audit.until("session.ended")
    assert (line["session"], line["request_id"], line["end_reason"]) == (session.id, "r-1", "CALLER_LOST")


async def test_after_a_rotation_lines_go_to_the_new_file(emulator, audit):
    with processes.gateway(emulator.url, audit_file=audit.path) as gateway:
        async with connect(gateway.address) as caller:
            await refused(caller.end("first"))
            await audit.until("session.end")
            old = Audit(audit.path.rename(audit.path.with_suffix(".1")))
            await refused(caller.end("second"))
            await old.until("session.end", 2)
            os.kill(gateway.process.pid, signal.SIGHUP)
            async with asyncio.timeout(20):
                while not audit.path.exists():
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(wait_logged, gateway, "reload.done", "audit log")
            await refused(caller.end("third"))
            await audit.until("session.end")
    assert [line["session"] for line in old.lines()] == ["first", "second"]
    assert [line["session"] for line in audit.lines("session.end")] == ["third"]


def wait_logged(gateway, *texts):
    give_up_s = time.monotonic() + 20
    while not gateway.process.logged(*texts):
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


async def test_a_disk_that_takes_nothing_delays_no_call_and_is_counted(emulator):
    with processes.gateway(emulator.url, audit_file="-", metrics_port=0) as gateway:
        # The output of the process is its log file, which a limit of file sizes makes refuse every write.
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        async with connect(gateway.address) as caller:
            for _ in range(3):
                await refused(caller.end("unknown"))
        async with asyncio.timeout(20):
            while "gateway_audit_lines_dropped_total 3.0" not in await asyncio.to_thread(scraped, gateway.metrics):
                await asyncio.sleep(0.1)


def scraped(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def start(**settings):
    with processes.gateway("http://127.0.0.1:9", **settings):
        pass


def test_a_log_that_cannot_be_opened_keeps_the_gateway_from_starting(tmp_path):
    with pytest.raises(Exception, match=r"GATEWAY_AUDIT_FILE: .* cannot be opened"):
        start(audit_file=tmp_path / "missing" / "audit.jsonl")


def test_networks_that_are_none_keep_the_gateway_from_starting():
    with pytest.raises(Exception, match="GATEWAY_TRUSTED_PROXIES"):
        start(trusted_proxies="proxy.example")


async def test_callers_are_named_and_refused_calls_and_changes_of_keys_have_lines(emulator, audit, tmp_path):
    tenants = TenantsFile(tmp_path / "tenants.toml")
    tenants.tenant("acme", quotas={"max_sessions": 1}, avatars=[AVATAR])
    key, watcher = tenants.key("acme"), tenants.key("acme", "watch")
    settings = {"auth_file": tenants.path, "audit_file": audit.path}
    with processes.gateway(emulator.url, **settings) as gateway:
        async with caller_with(gateway.address, key) as caller:
            session = (await caller.create("r-1", detach_grace=Duration(seconds=60))).session
            assert (await refused(caller.create(avatar_id=OTHER_AVATAR))).reason == "AVATAR_NOT_ALLOWED"
            assert (await refused(caller.create())).reason == "QUOTA_EXCEEDED"
            assert (await refused(caller.attach(avatar_id=OTHER_AVATAR))).reason == "AVATAR_NOT_ALLOWED"
        for text, reason in (
            (watcher, "ROLE_MISSING"),
            ("", "CREDENTIAL_MISSING"),
            ("x.y.z", "CREDENTIAL_INVALID"),
        ):
            async with caller_with(gateway.address, text) as caller:
                assert (await refused(caller.end(session.id))).reason == reason
        async with caller_with(gateway.address, key) as caller:
            watch = caller.watch()
            await watch.filter()
            await watch.until("snapshot")
            tenants.revoke("acme", key)
            await audit.until("key.revoked")
            assert (await refused(caller.end(session.id))).reason == "CREDENTIAL_INVALID"
            await audit.until("call.refused", 5)
        tenants.tenant("acme", suspended=True)
        await audit.until("session.ended")
    key_id, watcher_id = keys.parse(key).key_id, keys.parse(watcher).key_id
    opens = audit.lines("session.open")
    assert {(line["tenant"], line["credential_kind"], line["credential"]) for line in opens} == {
        ("acme", "api_key", key_id)
    }
    assert [(line["outcome"], line["avatar"]) for line in opens] == [
        ("OK", AVATAR),
        ("AVATAR_NOT_ALLOWED", OTHER_AVATAR),
        ("QUOTA_EXCEEDED", AVATAR),
        ("AVATAR_NOT_ALLOWED", OTHER_AVATAR),
    ]
    assert opens[2]["scope"] == "max_sessions"
    role, missing, invalid, *revoked = audit.lines("call.refused")
    assert (role["outcome"], role["credential"], role["tenant"]) == ("ROLE_MISSING", watcher_id, "acme")
    assert (missing["outcome"], missing["peer"]) == ("CREDENTIAL_MISSING", "127.0.0.1")
    assert invalid["cause"] == "malformed token"
    assert {(line["outcome"], line["cause"]) for line in revoked} == {("CREDENTIAL_INVALID", "revoked API key")}
    assert {line["rpc"].rpartition("/")[2] for line in revoked} == {"WatchSessions", "EndSession"}
    assert [(line["tenant"], line["name"]) for line in audit.lines("key.revoked")] == [("acme", key_id)]
    assert [line["tenant"] for line in audit.lines("tenant.suspended")] == ["acme"]
    (end,) = audit.lines("session.ended")
    assert (end["tenant"], end["end_reason"], end["request_id"]) == ("acme", "TENANT_SUSPENDED", "r-1")
    content = audit.path.read_text()
    for text in (key, watcher):
        assert text not in content
        assert text.split("_", 2)[2] not in content
