"""Bounds of every call: its metadata, its messages, and the time until the first one."""

from types import SimpleNamespace

import grpc
import pytest
from google.protobuf.message import DecodeError

from liveavatar_gateway.core.errors import FirstMessageTimeout, MalformedMessage, MetadataTooLarge
from liveavatar_gateway.rpc.interceptors.bounds import MAX_METADATA_BYTES, BoundsInterceptor
from testkit.actors import Context


class Counts:
    def __init__(self) -> None:
        self.malformed: list[str] = []

    def malformed_message(self, method: str) -> None:
        self.malformed.append(method)


async def bounded(handler, metadata=(), *, counts: Counts | None = None, timeout_s: float = 10.0):
    async def continuation(_):
        return handler

    interceptor = BoundsInterceptor(counts or Counts(), first_message_timeout_s=timeout_s)
    details = SimpleNamespace(method="/service/Method", invocation_metadata=metadata)
    return await interceptor.intercept_service(continuation, details)


async def echo(request, _context):
    return request


async def stream_echo(requests, _context):
    async for request in requests:
        yield request


async def test_a_unary_call_is_served_as_a_stream_of_one_request():
    found = await bounded(grpc.unary_unary_rpc_method_handler(echo))
    context = Context(["request"])
    assert found.request_streaming
    assert await found.stream_unary(context.iterate(), context) == "request"


async def test_a_call_that_sends_nothing_is_given_up():
    found = await bounded(grpc.unary_unary_rpc_method_handler(echo), timeout_s=0.01)
    with pytest.raises(FirstMessageTimeout):
        await found.stream_unary(Context().iterate(), None)


async def test_a_call_that_closes_without_its_request_is_malformed():
    found = await bounded(grpc.unary_stream_rpc_method_handler(echo))
    with pytest.raises(MalformedMessage):
        await found.stream_stream(Context([None]).iterate(), None)


async def test_a_generator_is_served_as_a_coroutine():
    found = await bounded(grpc.stream_stream_rpc_method_handler(stream_echo))
    context = Context([1, 2, None])
    await found.stream_stream(context.iterate(), context)
    assert [context.written.get_nowait() for _ in range(2)] == [1, 2]


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
