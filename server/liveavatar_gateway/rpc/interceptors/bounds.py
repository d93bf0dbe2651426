"""Bounds of every call: sizes of metadata and messages, fields, time until the first message, unread answers."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast

import grpc
from google.protobuf.message import DecodeError

from liveavatar_gateway.auth.limiter import Limited
from liveavatar_gateway.core.errors import (
    FirstMessageTimeout,
    GatewayError,
    MalformedMessage,
    MessageTooLarge,
    MetadataTooLarge,
    TooManyCalls,
)
from liveavatar_gateway.rpc import field_bounds
from liveavatar_gateway.rpc.interceptors.authentication import current_principal
from liveavatar_gateway.rpc.interceptors.calls import SilentCall, SilentCalls, scope_of
from liveavatar_gateway.rpc.interceptors.handlers import Behaviour, Context, Continuation, Handler
from liveavatar_gateway.rpc.interceptors.list_turns import WAITING_LISTS, ListTurns
from liveavatar_gateway.rpc.interceptors.quotas import kind_of
from liveavatar_gateway.rpc.lists import MAX_PAGE_BYTES
from liveavatar_gateway.rpc.stream_reader import each, first, following
from liveavatar_gateway.rpc.unread import UnreadAnswers
from liveavatar_gateway.telemetry.metrics import Metrics

MAX_METADATA_BYTES: Final = 16 * 1024
"""Largest metadata of one call as HTTP/2 measures it: names, values, and 32 bytes for each pair."""
TRANSPORT_METADATA_BYTES: Final = 4 * MAX_METADATA_BYTES
"""Limit of gRPC itself. It refuses without a reason, so it is well above the other."""
MAX_REQUEST_BYTES: Final = 64 * 1024
"""Largest message of a method without audio. The largest that the contract needs has 16 labels, about 13 kB."""
_AUDIO_METHODS: Final = frozenset({"liveavatar.gateway.v1.AudioService/StreamAudio"})
"""Methods with audio, whose chunks have a limit of their own."""
_PAGES_OF_OPERATORS: Final = frozenset(
    f"liveavatar.gateway.v1.AdminService/{name}" for name in ("GetUsage", "ListOwnedSessions")
)
"""Methods of large answers on the port of operators. They are few, and need not take turns."""
_PAIR_BYTES: Final = 32


class _BoundedContext:
    """Call whose writes end when the caller reads nothing; otherwise gRPC's own context."""

    def __init__(self, context: Context, unread: UnreadAnswers) -> None:
        self._context = context
        self._peer = context.peer()
        self._unread = unread

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, response: Any) -> None:
        await self._unread.write(self._peer, response.ByteSize(), self._context.write(response))


class _Call:
    """State of a call: its first message, and its end in favour of other calls."""

    def __init__(self, silent_calls: SilentCalls, scope: str, timeout_s: float) -> None:
        self._silent_calls = silent_calls
        self._scope = scope
        self._timeout_s = timeout_s
        self._silent: SilentCall | None = None

    def heard(self) -> None:
        """Take note of a message. Idempotent."""
        if self._silent is not None:
            self._silent_calls.discard(self._silent)
            self._silent = None

    async def run(self, behaviour: Awaitable[Any]) -> Any:
        """Await the behaviour of the call.

        Raises:
            FirstMessageTimeout: the call was given up for others before its first message.
        """
        silent = self._silent = self._silent_calls.add(self._scope)
        try:
            return await behaviour
        except asyncio.CancelledError:
            if not silent.is_given_up:
                raise
            silent.task.uncancel()
            raise FirstMessageTimeout(self._timeout_s) from None
        finally:
            self._silent_calls.discard(silent)


class BoundsInterceptor(grpc.aio.ServerInterceptor):
    """Refusal of calls out of bounds, of any service, health and reflection included.

    Every call is served as a stream of requests and a stream of answers, which is the same on the wire. Of a unary
    call gRPC itself would wait for the request forever, would log an invalid message as a fault of the gateway,
    and would wait forever until the answer is read. For the interceptors outside of it, every behaviour is a
    coroutine function that takes a stream of requests and writes its answers.
    """

    def __init__(
        self, metrics: Metrics, *, first_message_timeout_s: float, silent_calls: SilentCalls, unread: UnreadAnswers
    ) -> None:
        """Prepare.

        Args:
            metrics: Counts invalid messages.
            first_message_timeout_s: Longest time from the start of a call to its first message.
            silent_calls: Calls without a first message.
            unread: Answers that callers have not read.
        """
        self._metrics = metrics
        self._timeout_s = first_message_timeout_s
        self._silent_calls = silent_calls
        self._unread = unread
        self._list_turns = ListTurns()

    async def intercept_service(  # noqa: D102 - grpc's
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method.removeprefix("/")
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
            is_list = kind_of(method) is Limited.LIST
            behaviour = self._of_one_request(handler.unary_unary, is_list=is_list)
            is_page = is_list or method in _PAGES_OF_OPERATORS
            behaviour = self._answered(behaviour, is_page=is_page, is_list=is_list)
        call = _Call(self._silent_calls, scope_of(method), self._timeout_s)
        return grpc.stream_stream_rpc_method_handler(
            self._bounded(call, behaviour),
            request_deserializer=self._deserializer(method, call, handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _bounded(self, call: _Call, behaviour: Behaviour) -> Behaviour:
        async def bounded(requests: Any, context: Context) -> Any:
            own = cast("Context", _BoundedContext(context, self._unread))
            return await call.run(behaviour(requests, own))

        return bounded

    def _deserializer(
        self, method: str, call: _Call, deserialize: Callable[[bytes], Any] | None
    ) -> Callable[[bytes], Any]:
        has_audio = method in _AUDIO_METHODS

        def read(message: bytes) -> Any:
            call.heard()
            size_bytes = len(message)
            if size_bytes > MAX_REQUEST_BYTES and not has_audio:
                raise MessageTooLarge(method, size_bytes, MAX_REQUEST_BYTES)
            if deserialize is None:
                return message
            try:
                request = deserialize(message)
            except (DecodeError, ValueError):
                # Without the cause, whose text may quote the message.
                self._metrics.malformed_message(method)
                raise MalformedMessage(method, size_bytes) from None
            # Chunks come fifty times a second, and hold no text that is kept.
            if not has_audio or not request.HasField("chunk"):
                field_bounds.check(request)
            return request

        return read

    def _of_one_request(self, behaviour: Any, *, is_list: bool = False) -> Behaviour:
        async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
            request = await first(following(requests), self._timeout_s)
            if request is None:
                raise MalformedMessage("the call", 0)
            if is_list:
                await self._take_turn(context)
                self._unread.admit(MAX_PAGE_BYTES)
            return await behaviour(request, context)

        return answer

    async def _take_turn(self, context: Context) -> None:
        try:
            await self._list_turns.take(context.peer(), current_principal().tenant)
        except TooManyCalls:
            self._metrics.call_refused(WAITING_LISTS)
            raise

    def _answered(self, behaviour: Behaviour, *, is_page: bool, is_list: bool) -> Behaviour:
        async def answer(requests: AsyncIterator[Any], context: Context) -> None:
            response = await behaviour(requests, context)
            # Other calls change something: a caller that got no answer would not know of the session it pays for.
            if is_page:
                self._unread.admit(response.ByteSize())
            if is_list:
                self._list_turns.answered(response.ByteSize())
            await context.write(response)

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
