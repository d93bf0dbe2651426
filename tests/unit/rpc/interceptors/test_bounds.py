"""Bounds of every call: its metadata, its messages, and the time until the first one."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError

from liveavatar.gateway.v1 import session_service_pb2
from liveavatar_gateway.auth.open_calls import OpenCall
from liveavatar_gateway.auth.principal import ANONYMOUS
from liveavatar_gateway.core.errors import (
    AnswersUnread,
    FirstMessageTimeout,
    InvalidField,
    MalformedMessage,
    MessageTooLarge,
    MetadataTooLarge,
    TooManyCalls,
)
from liveavatar_gateway.rpc.interceptors.authentication import set_current_call
from liveavatar_gateway.rpc.interceptors.bounds import MAX_METADATA_BYTES, MAX_REQUEST_BYTES, BoundsInterceptor
from liveavatar_gateway.rpc.interceptors.calls import SilentCalls
from liveavatar_gateway.rpc.interceptors.list_turns import ListTurns
from liveavatar_gateway.rpc.unread import SMALL_BYTES, UnreadAnswers
from liveavatar_gateway.telemetry.metrics import Metrics
from testkit import actors

UNREAD_BYTES = 1_000_000
SERVICES = "liveavatar.gateway.v1."


class Counts:
    def __init__(self) -> None:
        self.malformed: list[str] = []

    def malformed_message(self, method: str) -> None:
        self.malformed.append(method)


class Context(actors.Context):
    """Call of a caller at an address."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:40000"


def message(seconds: int) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=seconds)


async def bounded(
    handler,
    metadata=(),
    *,
    counts: Counts | None = None,
    timeout_s: float = 10.0,
    write_timeout_s: float = 10.0,
    method: str = "service/Method",
    silent_calls: SilentCalls | None = None,
    unread: UnreadAnswers | None = None,
):
    async def continuation(_):
        return handler

    interceptor = BoundsInterceptor(
        counts or Counts(),
        first_message_timeout_s=timeout_s,
        silent_calls=silent_calls or SilentCalls(100),
        unread=unread or UnreadAnswers(Metrics(), limit_bytes=UNREAD_BYTES, timeout_s=write_timeout_s),
    )
    details = SimpleNamespace(method=f"/{method}", invocation_metadata=metadata)
    return await interceptor.intercept_service(continuation, details)


async def echo(request, _context):
    return request


async def stream_echo(requests, _context):
    async for request in requests:
        yield request


async def test_a_unary_call_is_served_as_a_stream_of_one_request():
    found = await bounded(grpc.unary_unary_rpc_method_handler(echo))
    context = Context([message(1)])
    assert found.request_streaming
    assert found.response_streaming
    await found.stream_stream(context.iterate(), context)
    assert context.written.get_nowait() == message(1)


async def test_a_call_that_sends_nothing_is_given_up():
    found = await bounded(grpc.unary_unary_rpc_method_handler(echo), timeout_s=0.01)
    with pytest.raises(FirstMessageTimeout):
        await found.stream_stream(Context().iterate(), Context())


async def test_a_call_that_closes_without_its_request_is_malformed():
    found = await bounded(grpc.unary_stream_rpc_method_handler(echo))
    with pytest.raises(MalformedMessage):
        await found.stream_stream(Context([None]).iterate(), Context())


async def test_a_generator_is_served_as_a_coroutine():
    found = await bounded(grpc.stream_stream_rpc_method_handler(stream_echo))
    context = Context([message(1), message(2), None])
    await found.stream_stream(context.iterate(), context)
    assert [context.written.get_nowait() for _ in range(2)] == [message(1), message(2)]


@pytest.mark.parametrize("error", [DecodeError("x"), ValueError("x")])
async def test_an_invalid_message_is_counted_and_not_quoted(error):
    def deserialize(_: bytes) -> None:
        raise error

    counts = Counts()
    found = await bounded(
        grpc.unary_unary_rpc_method_handler(echo, request_deserializer=deserialize), counts=counts
    )
    with pytest.raises(MalformedMessage) as caught:
        found.request_deserializer(b"secret")
    assert counts.malformed == ["service/Method"]
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("size", "fits"), [(MAX_METADATA_BYTES, True), (MAX_METADATA_BYTES + 1, False)])
async def test_metadata_is_measured_with_the_cost_of_each_pair(size, fits):
    metadata = (("key", "x" * (size - 3 - 32)),)
    found = await bounded(grpc.stream_stream_rpc_method_handler(stream_echo), metadata)
    context = Context([None])
    if fits:
        await found.stream_stream(context.iterate(), context)
    else:
        with pytest.raises(MetadataTooLarge):
            await found.stream_stream(context.iterate(), context)


async def test_a_method_that_no_service_has_stays_unknown():
    assert await bounded(None) is None


@pytest.mark.parametrize(
    ("method", "fits"), [("s/M", False), ("liveavatar.gateway.v1.AudioService/StreamAudio", True)]
)
async def test_a_message_that_is_too_large_for_its_method_is_refused_before_it_is_decoded(method, fits):
    decoded = []

    class Audio:
        def HasField(self, _):  # noqa: N802 - protobuf's
            return True

    def decode(data):
        decoded.append(data)
        return Audio()

    found = await bounded(
        grpc.stream_stream_rpc_method_handler(stream_echo, request_deserializer=decode), method=method
    )
    if fits:
        found.request_deserializer(bytes(MAX_REQUEST_BYTES + 1))
    else:
        with pytest.raises(MessageTooLarge):
            found.request_deserializer(bytes(MAX_REQUEST_BYTES + 1))
    assert bool(decoded) == fits


async def test_a_field_out_of_its_bound_is_refused():
    request = session_service_pb2.ListSessionsRequest(states=[1] * 60_000)
    found = await bounded(
        grpc.unary_unary_rpc_method_handler(echo, request_deserializer=type(request).FromString),
    )
    with pytest.raises(InvalidField) as refused:
        found.request_deserializer(request.SerializeToString())
    assert refused.value.field == "states"


async def test_a_call_whose_caller_reads_nothing_ends():
    class Stuck(Context):
        async def write(self, _):
            await asyncio.Event().wait()

    found = await bounded(grpc.unary_unary_rpc_method_handler(echo), write_timeout_s=0.01)
    context = Stuck([message(1)])
    with pytest.raises(AnswersUnread):
        await found.stream_stream(context.iterate(), context)


async def test_a_silent_call_that_is_given_up_for_others_ends_like_one_that_timed_out():
    now = [0.0]
    silent_calls = SilentCalls(1, clock=lambda: now[0])

    async def call():
        found = await bounded(grpc.unary_unary_rpc_method_handler(echo), silent_calls=silent_calls)
        await found.stream_stream(Context().iterate(), Context())

    first = asyncio.create_task(call())
    await asyncio.sleep(0)
    now[0] = 2.0
    second = asyncio.create_task(call())
    with pytest.raises(FirstMessageTimeout):
        await first
    assert not second.done()
    second.cancel()
    await asyncio.wait([second])
    assert second.cancelled()


class Work:
    """Method that counts its calls and gives a large answer."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, _request, _context):
        self.count += 1
        return session_service_pb2.GetServerInfoResponse(version="x" * 2 * SMALL_BYTES)


@pytest.mark.parametrize(
    ("method", "count"),
    [
        ("SessionService/ListSessions", 0),
        ("SessionService/ListAvatars", 0),
        ("AdminService/ListOwnedSessions", 1),
        ("AdminService/GetUsage", 1),
    ],
)
async def test_a_large_page_is_refused_while_too_much_is_unread(method, count):
    set_current_call(OpenCall(ANONYMOUS, lambda: None))
    unread = UnreadAnswers(Metrics(), limit_bytes=UNREAD_BYTES, timeout_s=10.0)
    stuck = asyncio.create_task(unread.write("other", UNREAD_BYTES, asyncio.Event().wait()))
    await asyncio.sleep(0)
    work = Work()
    found = await bounded(grpc.unary_unary_rpc_method_handler(work), method=f"{SERVICES}{method}", unread=unread)
    context = Context([message(1)])
    with pytest.raises(TooManyCalls):
        await found.stream_stream(context.iterate(), context)
    assert work.count == count
    stuck.cancel()
    await asyncio.wait([stuck])


@pytest.mark.parametrize(
    "method",
    [
        "SessionService/CreateSession",
        "SessionService/EndSession",
        "SessionService/GetSession",
        "SessionService/InterruptSession",
        "AdminService/Drain",
        "AdminService/EjectSession",
    ],
)
async def test_a_call_that_has_done_its_work_is_answered_though_too_much_is_unread(method):
    unread = UnreadAnswers(Metrics(), limit_bytes=UNREAD_BYTES, timeout_s=10.0)
    stuck = asyncio.create_task(unread.write("other", UNREAD_BYTES, asyncio.Event().wait()))
    await asyncio.sleep(0)
    found = await bounded(grpc.unary_unary_rpc_method_handler(Work()), method=f"{SERVICES}{method}", unread=unread)
    context = Context([message(1)])
    await found.stream_stream(context.iterate(), context)
    assert context.written.get_nowait().ByteSize() > SMALL_BYTES
    stuck.cancel()
    await asyncio.wait([stuck])


async def test_lists_above_the_bound_are_refused_and_counted(monkeypatch):
    monkeypatch.setattr("liveavatar_gateway.rpc.interceptors.bounds.ListTurns", lambda: ListTurns(max_waiting=0))
    set_current_call(OpenCall(ANONYMOUS, lambda: None))
    metrics = Metrics()
    found = await bounded(
        grpc.unary_unary_rpc_method_handler(Work()),
        counts=metrics,
        method=f"{SERVICES}SessionService/ListSessions",
    )
    context = Context([message(1)])
    with pytest.raises(TooManyCalls):
        await found.stream_stream(context.iterate(), context)
    assert metrics.registry.get_sample_value("gateway_calls_refused_total", {"reason": "waiting_lists"}) == 1
