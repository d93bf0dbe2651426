"""Operators: a drain is bounded and can be taken back, and a session can be ended whoever holds it."""

import asyncio
import signal
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub
from testkit import processes, speech
from testkit.caller import Caller, refused
from testkit.caller import caller as connect

COMPLETED = audio_pb2.UTTERANCE_OUTCOME_COMPLETED


class Operator:
    """Bare stubs of AdminService, and a caller on the same gateway."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller, gateway: processes.Gateway) -> None:
        self.stub = AdminServiceStub(channel)
        self.caller = caller
        self.gateway = gateway

    async def drain(self, grace_s: float) -> p.DrainResponse:
        grace = duration_pb2.Duration()
        grace.FromNanoseconds(round(grace_s * 1e9))
        return await self.stub.Drain(p.DrainRequest(grace=grace), timeout=10)

    async def undrain(self) -> bool:
        return (await self.stub.Undrain(p.UndrainRequest(), timeout=10)).was_draining

    async def status(self) -> p.GetProcessStatusResponse:
        return await self.stub.GetProcessStatus(p.GetProcessStatusRequest(), timeout=10)

    async def health(self) -> int:
        stub = health_pb2_grpc.HealthStub(self.caller.channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status


@pytest.fixture
async def operator(emulator) -> AsyncIterator[Operator]:
    with processes.gateway(emulator.url, admin_port=0, drain_grace_s=20) as gateway:
        async with (
            connect(gateway.address) as caller,
            grpc.aio.insecure_channel(gateway.admin_address) as channel,
        ):
            yield Operator(channel, caller, gateway)


async def _until_told(attachment, kind: str):
    while True:
        response = await attachment.read()
        if response.HasField(kind):
            return getattr(response, kind)


async def test_a_drain_that_is_taken_back_leaves_no_trace(operator: Operator):
    caller = operator.caller
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    drained = await operator.drain(60)
    assert drained.session_count == 1
    told = await _until_told(attachment, "go_away")
    assert (told.deadline, told.handle) == (drained.deadline, attachment.opened.handle)
    assert (await operator.status()).drain_deadline == drained.deadline
    assert await operator.health() == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await refused(caller.create())).reason == "DRAINING"
    # What lives goes on as it was.
    await stream.say(speech.sound(0.3), "while it drains")
    assert (await stream.until("ended")).outcome == COMPLETED

    assert await operator.undrain()
    await _until_told(attachment, "go_away_cancelled")
    assert not (await operator.status()).HasField("drain_deadline")
    assert await operator.health() == health_pb2.HealthCheckResponse.SERVING
    await stream.say(speech.sound(0.3), "after it")
    assert (await stream.until("ended")).outcome == COMPLETED
    created = (await caller.create()).session
    assert created.state == session_pb2.SESSION_STATE_READY
    assert not await operator.undrain()
    for session_id in (created.id, attachment.session_id):
        await caller.end(session_id)


async def test_sessions_that_live_at_the_deadline_are_ended_and_the_process_stays(operator: Operator, emulator):
    caller = operator.caller
    before = emulator.active()
    attachment = await caller.attach()
    await operator.drain(60)
    await operator.drain(0.5)
    first = await _until_told(attachment, "go_away")
    second = await _until_told(attachment, "go_away")
    assert second.deadline.ToDatetime() < first.deadline.ToDatetime()
    last = await attachment.event("ended")
    assert last.session.end_reason == session_pb2.END_REASON_DRAINED
    assert last.session.ended_at.ToDatetime() >= second.deadline.ToDatetime()
    emulator.wait_active(before)
    assert (await operator.status()).session_count == 0
    assert (await refused(caller.create())).reason == "DRAINING"
    assert await operator.undrain()
    await caller.end((await caller.create()).session.id)


async def test_a_stream_that_comes_while_it_drains_is_told_too(operator: Operator):
    caller = operator.caller
    first = await caller.attach()
    drained = await operator.drain(60)
    second = await caller.resume(first.opened.handle)
    told = await _until_told(second, "go_away")
    assert (told.deadline, told.handle) == (drained.deadline, second.opened.handle)
    await caller.end(first.session_id)


async def test_a_process_that_exits_takes_no_orders_to_stay(operator: Operator):
    caller = operator.caller
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(speech.sound(4.0), "u")
    await operator.drain(1.5)
    await _until_told(attachment, "go_away")
    operator.gateway.process.send(signal.SIGTERM)
    # It finishes what is said, although an operator had less patience.
    told = await _until_told(attachment, "go_away")
    assert told.deadline == (await operator.status()).drain_deadline
    assert (await refused(operator.undrain())).reason == "DRAINING"
    assert (await refused(operator.drain(1))).reason == "DRAINING"
    assert (await stream.until("ended")).outcome == COMPLETED
    assert await asyncio.to_thread(operator.gateway.process.wait, 30) == 0


async def test_an_operator_ends_a_session_whoever_holds_it(operator: Operator, emulator):
    caller = operator.caller
    before = emulator.active()
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(speech.sound(10.0), "u")
    await stream.until("started")
    request = p.EjectSessionRequest(session_id=attachment.session_id)
    ejected = (await operator.stub.EjectSession(request, timeout=20)).session
    assert (ejected.state, ejected.end_reason) == (
        session_pb2.SESSION_STATE_ENDED,
        session_pb2.END_REASON_OPERATOR,
    )
    assert (await attachment.event("ended")).session == ejected
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED
    emulator.wait_active(before)
    assert (await operator.stub.EjectSession(request, timeout=20)).session == ejected
    unknown = p.EjectSessionRequest(session_id="nobody")
    assert (await refused(operator.stub.EjectSession(unknown, timeout=20))).reason == "SESSION_NOT_FOUND"


async def test_status_and_owners_are_told(operator: Operator):
    caller = operator.caller
    made = [(await caller.create()).session.id for _ in range(3)]
    status = await operator.status()
    assert (status.session_count, status.used_permit_count, status.permit_count) == (3, 3, 200)
    assert status.owner
    assert status.version
    assert status.started_at.seconds
    listed, token = [], ""
    while True:
        request = p.ListOwnedSessionsRequest(page_size=2, page_token=token)
        page = await operator.stub.ListOwnedSessions(request, timeout=10)
        listed += page.sessions
        if not (token := page.next_page_token):
            break
    assert [one.session.id for one in listed] == made[::-1]
    assert {(one.owner, one.epoch) for one in listed} == {(status.owner, 1)}
    for session_id in made:
        await caller.end(session_id)


async def test_sessions_of_other_processes_are_listed_with_their_owners_and_left_to_them(tmp_path):
    shared = {"admin_port": 0, "registry_file": tmp_path / "registry.db"}
    with (
        # Its own: each stop is slow here, so that an answer before it would be seen.
        processes.emulator() as emulator,
        processes.gateway(emulator.url, **shared) as one,
        processes.gateway(emulator.url, **shared) as two,
    ):
        emulator.fault("stop", delay_s=1.5)
        async with (
            connect(one.address) as caller,
            grpc.aio.insecure_channel(one.admin_address) as first,
            grpc.aio.insecure_channel(two.admin_address) as second,
        ):
            created = (await caller.create(labels={"a": "b"})).session
            owner = (await AdminServiceStub(first).GetProcessStatus(p.GetProcessStatusRequest(), timeout=10)).owner
            other = AdminServiceStub(second)
            listed = (await other.ListOwnedSessions(p.ListOwnedSessionsRequest(), timeout=10)).sessions
            (found,) = listed
            assert (found.session.id, found.owner, found.epoch) == (created.id, owner, 1)
            assert (found.session.state, dict(found.session.labels)) == (created.state, {"a": "b"})
            assert 0 < found.lease_left.ToTimedelta().total_seconds() < 60
            assert (await other.GetProcessStatus(p.GetProcessStatusRequest(), timeout=10)).session_count == 0
            request = p.EjectSessionRequest(session_id=created.id)
            ejected = (await other.EjectSession(request, timeout=20)).session
            assert not emulator.runs(created.upstream_session_id), "the answer came before LiveAvatar's stop"
            assert ejected.end_reason == session_pb2.END_REASON_OPERATOR
            assert (await caller.get(created.id)).end_reason == session_pb2.END_REASON_OPERATOR
            (over,) = (await other.ListOwnedSessions(p.ListOwnedSessionsRequest(), timeout=10)).sessions
            assert over.session.end_reason == session_pb2.END_REASON_OPERATOR
            assert not over.HasField("lease_left")


async def test_what_was_taken_over_is_counted(emulator, tmp_path):
    shared = {"admin_port": 0, "registry_file": tmp_path / "registry.db"}
    with processes.gateway(emulator.url, **shared) as survivor:
        with processes.gateway(emulator.url, **shared) as victim:
            async with connect(victim.address) as caller:
                wanted = (await caller.create(detach_grace=duration_pb2.Duration(seconds=60))).session.id
                await caller.attach(detach_grace=duration_pb2.Duration())
                victim.process.send(signal.SIGKILL)
                victim.process.wait(10)
        async with (
            connect(survivor.address) as caller,
            grpc.aio.insecure_channel(survivor.admin_address) as channel,
        ):
            stub = AdminServiceStub(channel)
            while True:
                status = await stub.GetProcessStatus(p.GetProcessStatusRequest(), timeout=10)
                if (status.adopted_count, status.swept_count) == (1, 1):
                    break
                await asyncio.sleep(0.1)
            listed = (await stub.ListOwnedSessions(p.ListOwnedSessionsRequest(), timeout=10)).sessions
            (adopted,) = [one for one in listed if one.session.id == wanted]
            assert (adopted.owner, adopted.epoch) == (status.owner, 2)
            await caller.end(wanted)


async def test_a_page_that_was_never_given_out_is_refused(operator: Operator):
    request = p.ListOwnedSessionsRequest(page_token="nonsense")
    why = await refused(operator.stub.ListOwnedSessions(request, timeout=10))
    assert (why.reason, why.field) == ("INVALID_FIELD", "page_token")


@pytest.mark.parametrize("grace_s", [-1, 3600.5])
async def test_a_drain_without_bounds_is_refused(operator: Operator, grace_s):
    why = await refused(operator.drain(grace_s))
    assert (why.reason, why.field) == ("INVALID_FIELD", "grace")
    assert not (await operator.status()).HasField("drain_deadline")


async def test_operators_and_callers_do_not_share_a_port(operator: Operator, shared_gateway):
    assert shared_gateway.admin_address == ""
    wrong = AdminServiceStub(operator.caller.channel)
    with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
        await wrong.GetProcessStatus(p.GetProcessStatusRequest(), timeout=10)
    async with connect(operator.gateway.admin_address) as caller:
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            await caller.sessions.GetServerInfo(sessions.GetServerInfoRequest(), timeout=10)


async def test_a_drain_without_a_grace_takes_that_of_the_gateway(operator: Operator):
    attachment = await operator.caller.attach()
    before = (await operator.caller.get(attachment.session_id)).created_at.ToDatetime()
    drained = await operator.stub.Drain(p.DrainRequest(), timeout=10)
    assert (drained.deadline.ToDatetime() - before).total_seconds() >= 20
    assert await operator.undrain()
    await operator.caller.end(attachment.session_id)
