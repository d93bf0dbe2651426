"""Quotas on the calls of a tenant, before their bodies are read."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import grpc

from liveavatar_gateway.auth.limiter import Limited, Limiter
from liveavatar_gateway.auth.principal import is_exempt
from liveavatar_gateway.rpc.interceptors.authentication import current_principal
from liveavatar_gateway.rpc.interceptors.handlers import Behaviour, Context, Continuation, Handler, wrapped

_ADMIN: Final = "liveavatar.gateway.v1.AdminService/"
_KINDS: Final[Mapping[str, Limited]] = {
    "liveavatar.gateway.v1.SessionService/Attach": Limited.STREAM,
    "liveavatar.gateway.v1.AudioService/StreamAudio": Limited.STREAM,
    "liveavatar.gateway.v1.AudioService/ListenAudio": Limited.STREAM,
    "liveavatar.gateway.v1.SessionService/WatchSessions": Limited.WATCH,
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Limited.WATCH,
}


def kind_of(method: str) -> Limited | None:
    """Return the quota that limits a method, `service/method`; None for health and for operators."""
    if is_exempt(method) or method.startswith(_ADMIN):
        return None
    if (kind := _KINDS.get(method)) is not None:
        return kind
    return Limited.LIST if method.rpartition("/")[2].startswith("List") else Limited.UNARY


class QuotaInterceptor(grpc.aio.ServerInterceptor):
    """Refusal of calls above a quota. Belongs inside authentication and outside bounds."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def intercept_service(  # noqa: D102 - grpc's
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        kind = kind_of(handler_call_details.method.removeprefix("/"))
        return handler if kind is None else wrapped(handler, partial(self._limited, kind))

    def _limited(self, kind: Limited, behaviour: Behaviour) -> Behaviour:
        async def call(requests: Any, context: Context) -> Any:
            slot = self._limiter.admit_call(current_principal().tenant, kind)
            try:
                return await behaviour(requests, context)
            finally:
                if slot is not None:
                    slot.release()

        return call
