"""Services for operators and tools on the port: health, reflection, server info, lists."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import processes
from testkit.caller import refused

SERVICES = ("liveavatar.gateway.v1.SessionService", "liveavatar.gateway.v1.AudioService")


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health_says_serving_for_each_service(caller, service):
    stub = health_pb2_grpc.HealthStub(caller.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def _reflected(address: str) -> set[str]:
    """Ask with gRPC's threads: its asyncio client may lose the status of a refused stream (grpc/grpc#36066)."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answer = next(stub.ServerReflectionInfo(iter([request]), timeout=30))
    return {service.name for service in answer.list_services_response.service}


async def test_reflection_is_off_unless_asked_for(shared_gateway, emulator):
    with pytest.raises(grpc.RpcError) as refused_call:
        await asyncio.to_thread(_reflected, shared_gateway.address)
    assert refused_call.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with processes.gateway(emulator.url, "--reflection") as reflecting:
        assert set(SERVICES) <= await asyncio.to_thread(_reflected, reflecting.address)


async def test_server_info_tells_the_limits_that_apply(caller):
    info = await caller.sessions.GetServerInfo(sessions.GetServerInfoRequest(), timeout=10)
    assert info.version
    assert info.audio_limits.max_chunk_bytes == 256 * 1024
    assert audio_pb2.AUDIO_ENCODING_MULAW in info.audio_encodings
    assert (info.min_sample_rate_hz, info.max_sample_rate_hz) == (8_000, 48_000)
    assert not info.draining


async def test_sessions_are_listed_newest_first_in_pages_and_by_label_and_state(caller):
    made = [(await caller.create(labels={"test": "list", "n": str(n)})).session for n in range(5)]
    listed, token = [], ""
    while True:
        request = sessions.ListSessionsRequest(page_size=2, page_token=token, labels={"test": "list"})
        page = await caller.sessions.ListSessions(request, timeout=10)
        listed += [session.id for session in page.sessions]
        token = page.next_page_token
        if not token:
            break
    assert listed == [session.id for session in reversed(made)]
    await caller.end(made[0].id)
    request = sessions.ListSessionsRequest(labels={"test": "list"}, states=[session_pb2.SESSION_STATE_READY])
    assert len((await caller.sessions.ListSessions(request, timeout=10)).sessions) == 4
    for session in made[1:]:
        await caller.end(session.id)


@pytest.mark.parametrize(
    ("request_fields", "field"), [({"page_size": -1}, "page_size"), ({"page_token": "nonsense"}, "page_token")]
)
async def test_a_bad_page_is_refused_by_field(caller, request_fields, field):
    request = sessions.ListSessionsRequest(**request_fields)
    why = await refused(caller.sessions.ListSessions(request, timeout=10))
    assert (why.reason, why.field) == ("INVALID_FIELD", field)
