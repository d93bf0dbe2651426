"""An unreadable row of the registry keeps no gateway from starting and no session from being ended."""

import asyncio
import sqlite3

import grpc
import pytest

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub
from testkit import processes
from testkit.caller import caller as connect
from testkit.caller import refused

_ABSURD = b'{"spec":{"avatar":{"avatar_id":"a"},"detach_grace_s":1e12},"created_at":"2026-01-02T03:04:05Z"}'


@pytest.mark.parametrize(
    ("column", "value"),
    [("payload", b'{"spec": {"avat'), ("payload", _ABSURD), ("handles", b"[1, 2"), ("epoch", (1 << 63) - 1)],
    ids=["cut short", "absurd", "handles", "epoch"],
)
async def test_an_unreadable_session_is_ended_by_its_upstream_id_and_the_others_go_on(tmp_path, column, value):
    registry = str(tmp_path / "registry.db")
    settings = {"registry_file": registry, "detach_grace_s": 60, "admin_port": 0}
    with processes.emulator() as emulator:
        with processes.gateway(emulator.url, **settings) as first:
            async with connect(first.address) as caller:
                bad, good = await caller.attach(), await caller.attach()
                for attachment in (bad, good):
                    await attachment.until_ready()
                # Its last write has to be over, or that would mend the row.
                await asyncio.sleep(1.0)
                first.process.kill()
        connection = sqlite3.connect(registry)
        with connection:
            # A fixed column of a fixed table.
            statement = f"UPDATE sessions SET {column} = ? WHERE session_id = ?"
            connection.execute(statement, (value, bad.session_id))
        connection.close()
        for journal in tmp_path.glob("*.journal"):
            journal.unlink()
        with processes.gateway(emulator.url, **settings) as second:
            await asyncio.to_thread(emulator.wait_active, 1)
            async with (
                connect(second.address) as caller,
                grpc.aio.insecure_channel(second.admin_address) as channel,
            ):
                resumed = await caller.resume(good.opened.handle, skip_compacted=True)
                await resumed.event("reconnected")
                assert (await refused(caller.get(bad.session_id))).reason == "SESSION_NOT_FOUND"
                request = p.ListOwnedSessionsRequest()
                (listed,) = (await AdminServiceStub(channel).ListOwnedSessions(request, timeout=10)).sessions
                assert listed.session.id == good.session_id
                assert listed.session.state == session_pb2.SESSION_STATE_READY
                await caller.end(good.session_id)
            assert emulator.active() == 0
            assert second.process.logged("sweep.unreadable")
            assert second.process.logged(bad.upstream_id)
        connection = sqlite3.connect(registry)
        assert connection.execute("SELECT session_id FROM quarantine").fetchall() == [(bad.session_id,)]
