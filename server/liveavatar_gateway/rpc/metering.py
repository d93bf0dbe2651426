"""Counts the calls of our services, by method and code; nothing per message."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc

from liveavatar_gateway.telemetry.metrics import Metrics

# Generic in the stubs alone: with its parameters it can only be named in quotes.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

_OURS: Final = "/liveavatar.gateway."
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


class Metering(grpc.aio.ServerInterceptor):
    """Counts what callers call. Health checks and reflection are not counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(  # noqa: D102 - grpc's
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        handler = await continuation(handler_call_details)
        name = handler_call_details.method
        if handler is None or not name.startswith(_OURS):
            return handler
        method = name.removeprefix("/")
        if handler.request_streaming and handler.response_streaming:
            make, behaviour = grpc.stream_stream_rpc_method_handler, handler.stream_stream
        elif handler.request_streaming:
            # What the contract calls unary: `bounds.RequestBounds` reads its request like a stream of one.
            make, behaviour = grpc.stream_unary_rpc_method_handler, handler.stream_unary
        else:
            raise AssertionError(f"{method} is of a kind that none of our calls has")
        assert inspect.iscoroutinefunction(behaviour)  # noqa: S101 - the servicers' methods are
        return make(
            self._counted(method, behaviour),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _counted(self, method: str, behaviour: Any) -> Any:
        metrics = self._metrics

        async def counted(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            metrics.rpc_began(method)
            code = "UNKNOWN"
            try:
                response = await behaviour(request, context)
                code = "OK"
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except grpc.aio.AbortError:
                code = _CODES.get(_number(context.code()), code)
                raise
            else:
                return response
            finally:
                metrics.rpc_ended(method, code)

        return counted


def _number(code: Any) -> int:
    """The number of a status: the context of grpc.aio gives it bare, its annotation says otherwise."""
    return code if isinstance(code, int) else int(code.value[0])
