"""The connection to a gateway: channel options, and the few places where grpc.aio's surprises are met."""

import asyncio
import json
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Generic, TypeVar, cast

import grpc
import grpc.aio

from liveavatar.gateway.errors import (
    ClientClosed,
    ConnectionLost,
    GatewayError,
    SessionNotFound,
)
from liveavatar.gateway.refusals import from_rpc_error
from liveavatar.gateway.v1 import audio_service_pb2_grpc, session_service_pb2_grpc

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_SESSIONS = "liveavatar.gateway.v1.SessionService"
SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                # Calls that may safely reach the gateway twice. CreateSession is one of them because this
                # library always gives it a request_id; InterruptSession is not: a late repeat would cut speech
                # that was begun meanwhile.
                "name": [
                    {"service": _SESSIONS, "method": method}
                    for method in ("CreateSession", "GetSession", "ListSessions", "EndSession", "GetServerInfo")
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
"""What gRPC itself retries. Streams are resumed by this library, with the session's handle."""

DEFAULT_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", SERVICE_CONFIG),
    # A peer that has gone without a word is noticed after 20 + 5 s, also while nothing is said: in time to resume
    # within the default `detach_grace`. Lower notices sooner, but a server may answer pings below its floor with
    # GOAWAY "too_many_pings"; the gateway's floor is below this interval.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # gRPC waits its own 60 s for a ping's answer where this is not set, whatever keepalive's timeout says.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Without this, gRPC stops pinging a stream that is silent, which a listening session is for minutes.
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own 1 s to 120 s would outlast a session's detach_grace.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
)
"""Channel options of this library; those a caller gives win."""


def channel_credentials(
    credentials: grpc.ChannelCredentials | None, call_credentials: grpc.CallCredentials | None
) -> grpc.ChannelCredentials | None:
    """Combine what identifies the gateway with what identifies the caller.

    Raises:
        ValueError: call credentials without TLS: gRPC would silently not send them.
    """
    if call_credentials is None:
        return credentials
    if credentials is None:
        msg = (
            "call_credentials need an encrypted channel, or their token could be read on the way; "
            "give credentials=grpc.ssl_channel_credentials() as well"
        )
        raise ValueError(msg)
    return grpc.composite_channel_credentials(credentials, call_credentials)


def merged_options(options: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """This library's channel options, with the caller's in their place."""
    return list({**dict(DEFAULT_OPTIONS), **dict(options)}.items())


class Connection:
    """A channel and its stubs. Made inside the event loop that uses it, and closed by the client."""

    def __init__(
        self, target: str, credentials: grpc.ChannelCredentials | None, options: Sequence[tuple[str, Any]]
    ) -> None:
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(target, options=merged_options(options))
        else:
            self.channel = grpc.aio.secure_channel(target, credentials, options=merged_options(options))
        self.sessions = session_service_pb2_grpc.SessionServiceStub(self.channel)
        self.audio = audio_service_pb2_grpc.AudioServiceStub(self.channel)

    async def close(self) -> None:
        """Cut what is still open."""
        await self.channel.close()


async def answer(call: Awaitable[_Response]) -> _Response:
    """Wait for a unary call.

    Raises:
        GatewayError: the class of its reason.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except asyncio.CancelledError as error:
        raise _lost_if_not_cancelled() from error


class Stream(Generic[_Request, _Response]):
    """One bidirectional call, read by one task and written to by another. Closed by `cancel`, in any state."""

    def __init__(self, call: grpc.aio.StreamStreamCall[_Request, _Response]) -> None:
        self._call = call
        self._status: grpc.aio.AioRpcError | None = None
        # grpc/grpc#36066: a write that meets the end of its call replaces the server's status by INTERNAL.
        # The first status is the server's, so it is kept here; drop this when grpcio keeps it.
        call.add_done_callback(self._keep_status)

    async def read(self) -> _Response | None:
        """The next message; None at the end with OK. Cancelling this cancels the call.

        Raises:
            GatewayError: the class of the reason the call broke for.
        """
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            status = self._status or error
            if status.code() is grpc.StatusCode.OK:
                return None
            raise from_rpc_error(status) from error
        except asyncio.CancelledError as error:
            raise _lost_if_not_cancelled() from error
        return None if message is grpc.aio.EOF else cast("_Response", message)

    async def write(self, message: _Request) -> bool:
        """Send a message; False when the call is over, which its reader then learns the reason of."""
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # A finished call raises InvalidStateError, no RPC error.
            return False
        return True

    async def finish_writing(self) -> None:
        """Half-close; nothing happens on a call that is over."""
        try:
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return

    def cancel(self) -> None:
        """Cut the call if it is not over."""
        self._call.cancel()

    def _keep_status(self, call: grpc.aio.StreamStreamCall[_Request, _Response]) -> None:
        if self._status is None:
            code = _present(call.code())
            if code is not None:
                self._status = grpc.aio.AioRpcError(
                    code, grpc.aio.Metadata(), _present(call.trailing_metadata()), _present(call.details())
                )


def _present(wanted: Coroutine[Any, Any, _Response]) -> _Response | None:
    """What a coroutine gives that has nothing to wait for, as those of a finished call."""
    try:
        wanted.send(None)
    except StopIteration as done:
        return cast("_Response", done.value)
    wanted.close()
    return None


def _lost_if_not_cancelled() -> BaseException:
    """grpc.aio raises CancelledError also where only the call was cancelled, as by closing its channel."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return ConnectionLost("the channel was closed under this call", code=grpc.StatusCode.CANCELLED)


_BREAKS = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        # What proxies and a stream that is reset make of a broken connection.
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
    }
)


def transient(error: GatewayError) -> bool:
    """Whether the same call may succeed elsewhere or in a moment.

    UNAVAILABLE with a reason other than these is LiveAvatar's trouble, which the gateway has retried itself; a
    broken connection has no reason at all.
    """
    if error.reason:
        return error.reason in ("DRAINING", "OWNER_MOVED")
    return error.code in _BREAKS and not isinstance(error, ClientClosed)


def moved(error: GatewayError) -> bool:
    """Whether another target may know the session that this one does not."""
    return isinstance(error, SessionNotFound)
