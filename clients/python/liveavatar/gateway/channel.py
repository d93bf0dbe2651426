"""Connection to a gateway: channel options, and workarounds for grpc.aio."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypedDict, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf import duration_pb2

from liveavatar.gateway.errors import (
    ClientError,
    ConnectionLost,
    GatewayError,
    MessageRefused,
    SessionNotFound,
    TokenUnavailable,
)
from liveavatar.gateway.forks import require_no_fork
from liveavatar.gateway.refusals import from_rpc_error
from liveavatar.gateway.v1 import audio_service_pb2_grpc, session_service_pb2_grpc

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

DEFAULT_OPTIONS: tuple[tuple[str, Any], ...] = (
    # This library repeats calls itself: a second layer below it would repeat each of its attempts.
    ("grpc.enable_retries", 0),
    # A silently lost peer is noticed after 20 + 5 s, in time to resume within the default `detach_grace`. A lower
    # interval notices sooner, but a server may answer pings below its floor with GOAWAY "too_many_pings"; the
    # gateway's floor is below this interval.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Without this option gRPC waits 60 s for the answer to a ping, whatever the keepalive timeout.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Without this option gRPC stops pinging a silent stream, and a listening session is silent for minutes.
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own 1 s to 120 s would outlast a session's detach_grace.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
)
"""Channel options of this library; the options of a caller replace them."""


def merged_options(options: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return this library's channel options, replaced and extended by the caller's."""
    return list({**dict(DEFAULT_OPTIONS), **dict(options)}.items())


_first_use: dict[str, int] = {}
# Id of the process that first used gRPC. A fork lacks gRPC's threads, and crashes or hangs inside gRPC.


class CallOptions(TypedDict):
    """Arguments of gRPC for one attempt of a unary call."""

    timeout: float | None
    metadata: Sequence[tuple[str, str]]


class Connection:
    """Channel with its stubs. Created in the event loop that uses it, and closed by the client.

    A connection that is retired takes no new calls, and is closed when its calls have ended.
    """

    def __init__(
        self, target: str, credentials: grpc.ChannelCredentials | None, options: Sequence[tuple[str, Any]]
    ) -> None:
        """Create a channel; gRPC connects with the first call.

        Raises:
            ForkedClient: a parent of this process used gRPC before the fork, whose threads are missing here.
        """
        require_no_fork(_first_use.setdefault("pid", os.getpid()))
        self.credentials = credentials
        """Channel credentials with which gRPC connects, and connects again."""
        self._call_count = 0
        self._unused = asyncio.Event()
        self._unused.set()
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(target, options=merged_options(options))
        else:
            self.channel = grpc.aio.secure_channel(target, credentials, options=merged_options(options))
        self.sessions = session_service_pb2_grpc.SessionServiceStub(self.channel)
        self.audio = audio_service_pb2_grpc.AudioServiceStub(self.channel)

    def begin_call(self) -> None:
        """Note the start of a call."""
        self._call_count += 1
        self._unused.clear()

    def end_call(self) -> None:
        """Note the end of a call."""
        self._call_count -= 1
        if not self._call_count:
            self._unused.set()

    async def retire(self) -> None:
        """Close the channel when the calls of now have ended."""
        try:
            await self._unused.wait()
        finally:
            await self.channel.close()

    async def close(self) -> None:
        """Cancel the open calls and close the channel."""
        await self.channel.close()


async def answer(call: Awaitable[_Response]) -> _Response:
    """Wait for the answer to a unary call.

    Raises:
        GatewayError: the call failed; the class is the reason.
    """
    try:
        return _decoded(await call)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except asyncio.CancelledError as error:
        raise _lost_if_not_cancelled() from error


def _decoded(message: _Response | None) -> _Response:
    """Refuse None, which gRPC returns for bytes that are no message of the contract."""
    if message is None:
        raise MessageRefused(
            "the answer is not a message of this library's contract", code=grpc.StatusCode.INTERNAL
        )
    return message


class Stream(Generic[_Request, _Response]):
    """Bidirectional call: one task reads, any task writes. Closed by `cancel`, in any state."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[_Request, _Response],
        *,
        on_error: Callable[[GatewayError], None] = lambda _: None,
        on_done: Callable[[], None] = lambda: None,
        renew: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Wrap a call that has just begun.

        Args:
            call: The call.
            on_error: Called with the error that `read` is about to raise.
            on_done: Called once when the call is over.
            renew: Replaces the credential of the call, for later calls; returns False if there is no other one.
                None for a credential that cannot be replaced.
        """
        self.renew = renew
        self._call = call
        self._on_error = on_error
        self._on_done = on_done
        # gRPC takes one message at a time, and heartbeats come from a task of their own.
        self._writing = asyncio.Lock()
        self._written_mono_s = time.monotonic()
        self._status: grpc.aio.AioRpcError | None = None
        # grpc/grpc#36066: a write that meets the end of its call replaces the server's status by INTERNAL.
        # The first status is the server's, so it is kept here; drop this when grpcio keeps the first status.
        call.add_done_callback(self._keep_status)

    async def read(self) -> _Response | None:
        """Wait for the next message; None at the end with OK. Cancelling this cancels the call.

        Raises:
            GatewayError: the call failed; the class is the reason.
        """
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            status = self._status or error
            if status.code() is grpc.StatusCode.OK:
                return None
            failure = from_rpc_error(status)
            self._on_error(failure)
            raise failure from error
        except asyncio.CancelledError as error:
            raise _lost_if_not_cancelled() from error
        return None if message is grpc.aio.EOF else _decoded(cast("_Response | None", message))

    async def write(self, message: _Request) -> bool:
        """Send a message; return False when the call is over. `read` raises the reason."""
        async with self._writing:
            try:
                await self._call.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # A finished call raises InvalidStateError instead of an RPC error.
                return False
            self._written_mono_s = time.monotonic()
        return True

    @property
    def unwritten_s(self) -> float:
        """Seconds since the last message was sent, or since the start of the call."""
        return time.monotonic() - self._written_mono_s

    async def keep_alive(self, heartbeat: _Request, interval_s: float) -> None:
        """Send `heartbeat` after each `interval_s` without another message, until the call is over."""
        while True:
            left_s = interval_s - self.unwritten_s
            if left_s > 0:
                await asyncio.sleep(left_s)
            elif not await self.write(heartbeat):
                return

    async def finish_writing(self) -> None:
        """Half-close the call. Has no effect on a call that is over."""
        async with self._writing:
            try:
                await self._call.done_writing()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return

    def cancel(self) -> None:
        """Cancel the call. Has no effect on a call that is over."""
        self._call.cancel()

    def _keep_status(self, call: grpc.aio.StreamStreamCall[_Request, _Response]) -> None:
        self._on_done()
        if self._status is None:
            code = _present(call.code())
            if code is not None:
                self._status = grpc.aio.AioRpcError(
                    code, grpc.aio.Metadata(), _present(call.trailing_metadata()), _present(call.details())
                )


def _present(wanted: Coroutine[Any, Any, _Response]) -> _Response | None:
    """Return the result of a coroutine that never waits, such as `code()` of a finished call; None if it waits."""
    try:
        wanted.send(None)
    except StopIteration as done:
        return cast("_Response", done.value)
    wanted.close()
    return None


def _lost_if_not_cancelled() -> BaseException:
    """Return CancelledError if this task is being cancelled, and else ConnectionLost.

    grpc.aio also raises CancelledError when only the call was cancelled, as by closing its channel.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return ConnectionLost("the channel was closed under this call", code=grpc.StatusCode.CANCELLED)


_TRANSIENT_REASONS = (
    "DRAINING",
    "OWNER_MOVED",
    "FIRST_MESSAGE_TIMEOUT",
    "ANSWERS_UNREAD",
    "TOO_MANY_CALLS",
    "CREDENTIAL_UNVERIFIABLE",
)
# This library sends the first message at once, so a late first message was delayed by the network.
_FINAL = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}
)
# Statuses of a proxy that waiting does not cure.


def transient(error: GatewayError) -> bool:
    """Return True if the same call may succeed at another target or a moment later.

    A status without a reason of the gateway comes from a proxy or from gRPC: a reset, a mapped HTTP status, a
    limit of the proxy. UNAVAILABLE with another reason is a failure of LiveAvatar, and the gateway has retried
    already. A token source that failed may succeed a moment later, too.
    """
    if isinstance(error, ClientError):
        return isinstance(error, TokenUnavailable)
    if error.reason:
        return error.reason in _TRANSIENT_REASONS
    return error.code not in _FINAL


def moved(error: GatewayError) -> bool:
    """Return True if another target may know the session."""
    return isinstance(error, SessionNotFound)


HEARTBEAT_FLOOR_S = 0.05
"""Shortest interval between two heartbeats, whatever the gateway announces."""


def heartbeat_interval_s(announced: duration_pb2.Duration) -> float | None:
    """Return the announced seconds between heartbeats; None when the gateway announced no heartbeats."""
    interval_s = announced.seconds + announced.nanos / 1e9
    return max(interval_s, HEARTBEAT_FLOOR_S) if interval_s > 0 else None
