"""Audit of calls: outcomes of the acts of their handlers, and refusals of all calls."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import grpc

from liveavatar_gateway.auth.principal import Method, is_exempt
from liveavatar_gateway.core.errors import AccessError, CapacityError, GatewayError, InternalError
from liveavatar_gateway.rpc.interceptors.authentication import current_principal
from liveavatar_gateway.rpc.interceptors.errors import find_refusal
from liveavatar_gateway.rpc.interceptors.handlers import Behaviour, Context, Continuation, Handler, wrapped
from liveavatar_gateway.rpc.peer import FORWARDED_HEADER, Network, peer_address
from liveavatar_gateway.telemetry.audit import OK
from liveavatar_gateway.telemetry.line_rate import LineRate

_REFUSED: Final = "call.refused"
_CANCELLED: Final = "CANCELLED"
_REFUSALS: Final = (AccessError, CapacityError)

_DETAILS: Final = ("tenant", "cause", "what", "issuer", "scope")
"""Values of errors that a line about a refusal repeats; no part of a credential is among them."""

Target = dict[str, object]
"""Fields of a line that name what an act is about: `session`, `request_id` and others."""


class _Call:
    """Audit of one call."""

    def __init__(self, rate: LineRate, trusted: tuple[Network, ...], method: str, context: Context) -> None:
        self._rate = rate
        self._trusted = trusted
        self._method = method
        self._context = context
        self._reported: BaseException | None = None

    def write(self, event: str, outcome: str, target: Mapping[str, object]) -> None:
        """Write a line with the caller, its address and the method."""
        peer = self._peer()
        fields = {**target, **_caller(), "peer": peer, "rpc": self._method}
        self._rate.write(fields.get("tenant") or peer, event, outcome, fields, is_act=outcome == OK)

    def _peer(self) -> str:
        forwarded = [
            value if isinstance(value, str) else value.decode(errors="replace")
            for name, value in self._context.invocation_metadata() or ()
            if name == FORWARDED_HEADER
        ]
        return peer_address(self._context.peer(), forwarded, self._trusted)

    def failed(self, event: str, error: BaseException, target: Target) -> None:
        """Write a line about an act that failed."""
        self._reported = error
        self.write(event, _outcome(error), {**_details(error), **target})

    def refused(self, error: GatewayError) -> None:
        """Write a line about a refusal that no act has reported."""
        if isinstance(error, _REFUSALS) and error is not self._reported:
            self.write(_REFUSED, error.reason, _details(error))


_call: ContextVar[_Call | None] = ContextVar("audited_call", default=None)


class AuditInterceptor(grpc.aio.ServerInterceptor):
    """Audit of refused calls, and of what handlers report by `audited`; health is exempt.

    Belongs between errors and authentication, whose refusals it reports.
    """

    def __init__(self, rate: LineRate, trusted: tuple[Network, ...]) -> None:
        """Prepare.

        Args:
            rate: Writer of the lines; its creator flushes it at the end.
            trusted: Networks of proxies whose `x-forwarded-for` is believed.
        """
        self._rate = rate
        self._trusted = trusted

    async def intercept_service(  # noqa: D102 - grpc's
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.removeprefix("/")
        return handler if is_exempt(method) else wrapped(handler, partial(self._audited, method))

    def _audited(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def call(requests: Any, context: Context) -> Any:
            current = _Call(self._rate, self._trusted, method, context)
            # Each call has a task of its own, so the value ends with the call.
            _call.set(current)
            try:
                return await behaviour(requests, context)
            except GatewayError as error:
                current.refused(error)
                raise
            except ExceptionGroup as group:
                if (refusal := find_refusal(group)) is not None:
                    current.refused(refusal)
                raise

        return call


@contextmanager
def audited(event: str, **target: object) -> Iterator[Target]:
    """Write a line about the outcome of the block; does nothing at a gateway without an audit log.

    Args:
        event: Act, such as `session.open`.
        target: Fields that name what the act is about. The block may add more to the returned dictionary.
    """
    current = _call.get()
    if current is None:
        yield target
        return
    try:
        yield target
    except BaseException as error:
        current.failed(event, error, target)
        raise
    current.write(event, OK, target)


def note_refusal(error: GatewayError) -> None:
    """Write a line about a refusal inside a stream that continues; other errors are no refusals."""
    if (current := _call.get()) is not None:
        current.refused(error)


def _caller() -> dict[str, object]:
    try:
        principal = current_principal()
    except LookupError:
        return {}
    if principal.method is Method.NONE:
        return {}
    return {
        "tenant": principal.tenant,
        "credential_kind": principal.method.value,
        "credential": principal.credential,
    }


def _details(error: BaseException) -> dict[str, str]:
    metadata = error.metadata if isinstance(error, GatewayError) else {}
    return {name: metadata[name] for name in _DETAILS if name in metadata}


def _outcome(error: BaseException) -> str:
    if isinstance(error, GatewayError):
        return error.reason
    return _CANCELLED if isinstance(error, asyncio.CancelledError) else InternalError.reason
