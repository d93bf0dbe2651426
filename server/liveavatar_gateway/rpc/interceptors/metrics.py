"""Metrics of calls by method and status code; nothing per message."""

import asyncio
from functools import partial
from typing import Any, Final

import grpc

from liveavatar_gateway.rpc.interceptors.handlers import Behaviour, Context, Continuation, Handler, wrapped
from liveavatar_gateway.telemetry.metrics import Metrics

_PREFIX: Final = "/liveavatar.gateway."
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


class MetricsInterceptor(grpc.aio.ServerInterceptor):
    """Counter of calls. Health checks and reflection are not counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(  # noqa: D102 - grpc's
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        name = handler_call_details.method
        if not name.startswith(_PREFIX):
            return handler
        return wrapped(handler, partial(self._counted, name.removeprefix("/")))

    def _counted(self, method: str, behaviour: Behaviour) -> Behaviour:
        metrics = self._metrics

        async def counted(requests: Any, context: Context) -> Any:
            metrics.rpc_began(method)
            code = "UNKNOWN"
            try:
                response = await behaviour(requests, context)
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
    """Return the number of a status code: grpc.aio's context returns a number, against its annotation."""
    return code if isinstance(code, int) else int(code.value[0])
