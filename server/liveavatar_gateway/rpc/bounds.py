"""Bounds of what a call sends before any of our services looks at it: its metadata, its messages, its silence."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from liveavatar_gateway.core.errors import GatewayError, MalformedMessage, MetadataTooLarge
from liveavatar_gateway.rpc.errors import abort, answered
from liveavatar_gateway.rpc.stream_reader import each, first, following
from liveavatar_gateway.telemetry.metrics import Metrics

# Generic in the stubs alone: with its parameters it can only be named in quotes.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
_Context = grpc.aio.ServicerContext[Any, Any]

MAX_METADATA_BYTES: Final = 16 * 1024
"""Most metadata of one call, in the measure of HTTP/2: names, values, and 32 bytes for each pair."""
TRANSPORT_METADATA_BYTES: Final = 4 * MAX_METADATA_BYTES
"""Limit of gRPC's own. It refuses without a reason, so there is room between the two."""
_PAIR_BYTES: Final = 32


class RequestBounds(grpc.aio.ServerInterceptor):
    """Refuses calls of any service, health and reflection among them, whose requests are out of bounds.

    Unary calls are served as streams of one request, which is the same on the wire: gRPC itself would wait for
    that request for ever, and would log a message that it cannot read as a fault of ours.
    """

    def __init__(self, metrics: Metrics, *, first_message_timeout_s: float) -> None:
        """Prepare.

        Args:
            metrics: Counts messages that cannot be read.
            first_message_timeout_s: How long a call may be open before its first message has come.
        """
        self._metrics = metrics
        self._timeout_s = first_message_timeout_s

    async def intercept_service(  # noqa: D102 - grpc's
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        size_bytes = _metadata_bytes(handler_call_details.invocation_metadata)
        if size_bytes > MAX_METADATA_BYTES:
            behaviour = _refusing(MetadataTooLarge(size_bytes, MAX_METADATA_BYTES))
        elif handler.request_streaming:
            # Those of our own services wait for their first message themselves, under the same limit.
            behaviour = handler.stream_stream
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
            request_deserializer=self._reading(method, handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _reading(self, method: str, deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
        def read(message: bytes) -> Any:
            try:
                return message if deserialize is None else deserialize(message)
            except (DecodeError, ValueError):
                # Without the cause: its text may quote the message.
                self._metrics.malformed_message(method)
                raise MalformedMessage(method, len(message)) from None

        return read

    def _of_one_request(self, behaviour: Any) -> Any:
        async def answer(requests: AsyncIterator[Any], context: _Context) -> Any:
            async with answered(context):
                request = await first(following(requests), self._timeout_s)
                if request is None:
                    raise MalformedMessage("the call", 0)
            return await behaviour(request, context)

        return answer

    def _streaming(self, behaviour: Any) -> Any:
        async def answer(requests: AsyncIterator[Any], context: _Context) -> None:
            async with answered(context):
                async for response in behaviour(each(requests, first_within_s=self._timeout_s), context):
                    await context.write(response)

        return answer


def _metadata_bytes(metadata: Any) -> int:
    return sum(len(key) + len(value) + _PAIR_BYTES for key, value in metadata or ())


def _refusing(error: GatewayError) -> Any:
    async def refuse(_: Any, context: _Context) -> None:
        await abort(context, error)

    return refuse
