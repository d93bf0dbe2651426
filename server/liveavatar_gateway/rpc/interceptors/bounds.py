"""Bounds of every call: size of its metadata, validity of its messages, time until the first one."""

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, cast

import grpc
from google.protobuf.message import DecodeError

from liveavatar_gateway.core.errors import GatewayError, MalformedMessage, MetadataTooLarge
from liveavatar_gateway.rpc.interceptors.handlers import Behaviour, Context, Continuation, Handler
from liveavatar_gateway.rpc.stream_reader import each, first, following
from liveavatar_gateway.telemetry.metrics import Metrics

MAX_METADATA_BYTES: Final = 16 * 1024
"""Largest metadata of one call as HTTP/2 measures it: names, values, and 32 bytes for each pair."""
TRANSPORT_METADATA_BYTES: Final = 4 * MAX_METADATA_BYTES
"""Limit of gRPC itself. It refuses without a reason, so it is well above the other."""
_PAIR_BYTES: Final = 32


class BoundsInterceptor(grpc.aio.ServerInterceptor):
    """Refusal of calls out of bounds, of any service, health and reflection included.

    Unary calls are served as streams of one request, which is the same on the wire: gRPC itself would wait for
    that request forever, and would log an invalid message as a fault of the gateway. For the interceptors
    outside of it, every behaviour is a coroutine function that takes a stream of requests.
    """

    def __init__(self, metrics: Metrics, *, first_message_timeout_s: float) -> None:
        """Prepare.

        Args:
            metrics: Counts invalid messages.
            first_message_timeout_s: Longest time from the start of a call to its first message.
        """
        self._metrics = metrics
        self._timeout_s = first_message_timeout_s

    async def intercept_service(  # noqa: D102 - grpc's
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        size_bytes = _metadata_bytes(handler_call_details.invocation_metadata)
        if size_bytes > MAX_METADATA_BYTES:
            behaviour = _refusing(MetadataTooLarge(size_bytes, MAX_METADATA_BYTES))
        elif handler.request_streaming:
            # The services of the gateway wait for their first message themselves, under the same limit.
            behaviour = cast("Any", handler.stream_stream)
            if inspect.isasyncgenfunction(behaviour):
                behaviour = self._streaming(behaviour)
        elif handler.response_streaming:
            behaviour = self._of_one_request(handler.unary_stream)
        else:
            behaviour = self._of_one_request(handler.unary_unary)
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        method = handler_call_details.method.removeprefix("/")
        return make(
            behaviour,
            request_deserializer=self._deserializer(method, handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _deserializer(self, method: str, deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
        def read(message: bytes) -> Any:
            try:
                return message if deserialize is None else deserialize(message)
            except (DecodeError, ValueError):
                # Without the cause, whose text may quote the message.
                self._metrics.malformed_message(method)
                raise MalformedMessage(method, len(message)) from None

        return read

    def _of_one_request(self, behaviour: Any) -> Behaviour:
        async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
            request = await first(following(requests), self._timeout_s)
            if request is None:
                raise MalformedMessage("the call", 0)
            return await behaviour(request, context)

        return answer

    def _streaming(self, behaviour: Any) -> Behaviour:
        async def answer(requests: AsyncIterator[Any], context: Context) -> None:
            async for response in behaviour(each(requests, first_within_s=self._timeout_s), context):
                await context.write(response)

        return answer


def _metadata_bytes(metadata: Any) -> int:
    return sum(len(key) + len(value) + _PAIR_BYTES for key, value in metadata or ())


def _refusing(error: GatewayError) -> Behaviour:
    async def refuse(_requests: Any, _context: Context) -> None:
        raise error

    return refuse
