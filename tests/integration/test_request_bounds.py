"""Requests that are out of bounds are refused with a reason, and nothing of them comes into the log."""

import grpc
import httpx
import pytest

from liveavatar.gateway.v1 import admin_service_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub
from liveavatar_gateway.rpc.bounds import MAX_METADATA_BYTES, TRANSPORT_METADATA_BYTES
from testkit import http2, processes
from testkit.caller import STEP_TIMEOUT_S, make_spec, refused
from testkit.caller import caller as connect

GET_SERVER_INFO = "/liveavatar.gateway.v1.SessionService/GetServerInfo"
GET_SESSION = "/liveavatar.gateway.v1.SessionService/GetSession"
NO_MESSAGE = b"\xff\xff a secret of the caller's"
SECRET = "a-secret-of-the-caller"


@pytest.fixture(scope="module")
def gateway(shared_emulator):
    with processes.gateway(
        shared_emulator.url, admin_port=0, metrics_port=0, reflection="true", log_format="json"
    ) as found:
        yield found


@pytest.fixture
async def caller(gateway):
    async with connect(gateway.address) as found:
        yield found


# --- messages


@pytest.mark.parametrize(
    "method",
    [
        "liveavatar.gateway.v1.SessionService/GetSession",
        "liveavatar.gateway.v1.SessionService/CreateSession",
        "grpc.health.v1.Health/Check",
    ],
)
async def test_a_request_that_is_no_message_is_refused_with_a_reason(caller, method):
    why = await refused(caller.channel.unary_unary(f"/{method}")(NO_MESSAGE, timeout=STEP_TIMEOUT_S))
    assert (why.reason, why.code) == ("MALFORMED_MESSAGE", grpc.StatusCode.INVALID_ARGUMENT)
    assert why.metadata == {"method": method, "size_bytes": str(len(NO_MESSAGE))}


@pytest.mark.parametrize(
    "method",
    [
        "liveavatar.gateway.v1.SessionService/Attach",
        "liveavatar.gateway.v1.SessionService/WatchSessions",
        "liveavatar.gateway.v1.AudioService/StreamAudio",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_a_stream_of_what_is_no_message_is_refused_with_a_reason(caller, method):
    call = caller.channel.stream_stream(f"/{method}")(iter([NO_MESSAGE]), timeout=STEP_TIMEOUT_S)
    why = await refused(call.read())
    assert (why.reason, why.code) == ("MALFORMED_MESSAGE", grpc.StatusCode.INVALID_ARGUMENT)


async def test_what_is_no_message_ends_a_stream_that_was_fine_and_not_its_session(caller):
    opening = sessions.AttachRequest(open=sessions.OpenSession(spec=make_spec())).SerializeToString()
    call = caller.channel.stream_stream("/liveavatar.gateway.v1.SessionService/Attach")()
    await call.write(opening)
    opened = sessions.AttachResponse.FromString(await call.read()).opened
    await call.write(NO_MESSAGE)
    why = await refused(_drained(call))
    assert why.reason == "MALFORMED_MESSAGE"
    assert (await caller.get(opened.session.id)).state not in (
        session_pb2.SESSION_STATE_ENDING,
        session_pb2.SESSION_STATE_ENDED,
    )
    await caller.end(opened.session.id)


async def test_operators_get_the_same_reasons(gateway):
    async with grpc.aio.insecure_channel(gateway.admin_address) as channel:
        call = channel.unary_unary("/liveavatar.gateway.v1.AdminService/EjectSession")
        why = await refused(call(NO_MESSAGE, timeout=STEP_TIMEOUT_S))
        assert why.reason == "MALFORMED_MESSAGE"
        stub = AdminServiceStub(channel)
        assert (await stub.GetProcessStatus(admin_service_pb2.GetProcessStatusRequest())).version


async def test_a_call_without_its_request_is_refused_with_a_reason(caller):
    why = await refused(caller.channel.stream_unary(GET_SERVER_INFO)(iter(()), timeout=STEP_TIMEOUT_S))
    assert (why.reason, why.code) == ("MALFORMED_MESSAGE", grpc.StatusCode.INVALID_ARGUMENT)


async def test_messages_that_cannot_be_read_are_counted_and_not_logged(caller, gateway):
    def counted() -> float:
        text = httpx.get(gateway.metrics).text
        name = f'gateway_malformed_messages_total{{method="{GET_SESSION.removeprefix("/")}"}}'
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)

    before, log_before = counted(), gateway.process.log
    for _ in range(5):
        await refused(caller.channel.unary_unary(GET_SESSION)(NO_MESSAGE, timeout=STEP_TIMEOUT_S))
    assert counted() == before + 5
    assert gateway.process.log == log_before


# --- metadata


@pytest.mark.parametrize("size_bytes", range(7 * 1024, 18 * 1024, 1024))
async def test_metadata_is_taken_or_refused_by_its_size_alone(caller, size_bytes):
    metadata = (("x-padding", "x" * size_bytes),)
    for _ in range(4):
        call = caller.sessions.GetServerInfo(sessions.GetServerInfoRequest(), metadata=metadata)
        if size_bytes < MAX_METADATA_BYTES - 512:
            assert (await call).version
        elif size_bytes > MAX_METADATA_BYTES:
            why = await refused(call)
            assert (why.reason, why.code) == ("METADATA_TOO_LARGE", grpc.StatusCode.INVALID_ARGUMENT)
            assert why.metadata["limit_bytes"] == str(MAX_METADATA_BYTES)


async def test_too_much_metadata_for_a_stream_is_refused_before_its_first_message(caller):
    call = caller.sessions.Attach(metadata=(("x-padding", "x" * MAX_METADATA_BYTES),))
    assert (await refused(_drained(call))).reason == "METADATA_TOO_LARGE"


async def test_metadata_beyond_what_the_transport_takes_is_refused_every_time(caller):
    for _ in range(5):
        call = caller.sessions.GetServerInfo(
            sessions.GetServerInfoRequest(), metadata=(("x-padding", "x" * TRANSPORT_METADATA_BYTES),)
        )
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_header_that_is_no_text_is_no_reason_to_print_it(gateway):
    """Other clients and proxies send requests that gRPC's own clients refuse to send."""
    value = f"{SECRET}-\xe9".encode("latin-1")
    headers = [(b"x-name", value), (b"authorization", b"Bearer " + value)]
    before = gateway.process.log
    with http2.Connection(gateway.address) as connection:
        for _ in range(20):
            frames = connection.answer(connection.call(GET_SERVER_INFO, b"", headers=headers))
            assert any(frame.kind == http2.DATA and frame.payload for frame in frames)
    logged = gateway.process.log.removeprefix(before)
    assert SECRET not in logged
    assert "Traceback" not in logged
    assert len(logged.splitlines()) <= 2


async def _drained(call) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass
    await call
