"""Authentication of each call, on its headers, before its body is read."""

import asyncio
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, Protocol

import grpc

from liveavatar_gateway.auth.authenticator import Metadata
from liveavatar_gateway.auth.open_calls import OpenCall, OpenCalls
from liveavatar_gateway.auth.principal import Principal, is_exempt, rule_of
from liveavatar_gateway.rpc.interceptors.handlers import Behaviour, Context, Continuation, Handler, wrapped

_NAME_KINDS: Final = {"peer_uri": "uri", "peer_dns": "dns"}
"""Kinds of names in a certificate by gRPC's properties. Its `peer_identities` mixes the kinds: a certificate with
the DNS name "spiffe://..." would pass for that URI."""

_call: ContextVar[OpenCall] = ContextVar("call")


class CallerAuthenticator(Protocol):
    """Verifier of callers."""

    async def authenticate(self, metadata: Metadata, certificate_names: list[str], /) -> Principal:
        """Return the caller.

        Raises:
            AccessError: the caller has no credential, or a credential that is not accepted.
        """


def current_call() -> OpenCall:
    """Return the current call with its caller, for its handler and for tasks that the handler starts.

    Raises:
        LookupError: the call was not authenticated.
    """
    return _call.get()


def set_current_call(call: OpenCall) -> None:
    """Make a call the current one, for the present task and for those that it starts."""
    _call.set(call)


def current_principal() -> Principal:
    """Return the caller of the current call, see `current_call`."""
    return _call.get().principal


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):
    """Refusal of calls without a valid credential or without a role for the method; health is exempt.

    Belongs between errors and bounds: bounds make every handler a stream, and only a stream's handler runs before
    the first message, and so can refuse without it (docs/decisions, 0017).
    """

    def __init__(self, authenticator: CallerAuthenticator, open_calls: OpenCalls) -> None:
        self._authenticator = authenticator
        self._open_calls = open_calls

    async def intercept_service(  # noqa: D102 - grpc's
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.removeprefix("/")
        return handler if is_exempt(method) else wrapped(handler, partial(self._authenticated, method))

    def _authenticated(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def call(requests: Any, context: Context) -> Any:
            principal = await self._authenticator.authenticate(
                context.invocation_metadata() or (), certificate_names(context.auth_context())
            )
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine runs in a task
            opened = OpenCall(principal, task.cancel)
            # Each call has a task of its own, so the value ends with the call. Before a refusal, which the audit
            # attributes to the caller.
            set_current_call(opened)
            try:
                principal.require(rule_of(method), method)
                self._open_calls.add(opened)
                return await behaviour(requests, context)
            except asyncio.CancelledError:
                if opened.error is None:
                    raise
                task.uncancel()
                raise opened.error from None
            finally:
                self._open_calls.discard(opened)
                opened.close()

        return call


def certificate_names(auth_context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Return the verified names of a caller's certificate with their kinds; none for a caller without one.

    gRPC reports names only of certificates that a trusted authority has signed. A common name is not used: it has
    no kind. Only ASCII has an upper case: `lower` would also turn a Kelvin sign into the letter k.
    """
    return [
        f"{kind}:{(value.lower() if kind == 'dns' else value).decode(errors='replace')}"
        for key, kind in _NAME_KINDS.items()
        for value in auth_context.get(key, ())
        if value
    ]
