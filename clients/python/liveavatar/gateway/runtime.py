"""State shared by all sessions of a client: connections, open sessions, and tasks that outlive a call."""

import asyncio
import functools
import logging
import math
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from liveavatar.gateway.attach import AttachCall
from liveavatar.gateway.audio_stream import AudioCall
from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.channel import CallOptions, Connection, Stream, answer, moved, transient
from liveavatar.gateway.credentials import Bearer, Credentials, Renewal, refuses_credential
from liveavatar.gateway.errors import (
    ClientClosed,
    DeadlineExceeded,
    GatewayError,
    OwnerMoved,
    RegistryUnavailable,
)
from liveavatar.gateway.forks import require_no_fork
from liveavatar.gateway.listener import ListenCall
from liveavatar.gateway.targets import Route, named_by
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar.gateway.v1 import session_service_pb2_grpc as rpc

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_log = logging.getLogger(__name__)

MAX_NAMED = 64
"""Most connections to addresses that a target named. A lower limit reconnects more often to scattered sessions."""
CALL_ROUNDS = 4
"""Rounds of all targets in which a call must be answered. More outlast longer outages, fewer fail sooner."""
_CLOSE_S = 15.0
# Longest wait of `close` beyond the sessions' own time; the gateway ends the rest after `detach_grace`.
_OVER_S = 0.05
# A call's deadline may pass on gRPC's clock a moment before it passes on the loop's clock.


def _is_repeatable(error: GatewayError) -> bool:
    """Return True if no gateway was reached, or a gateway refused temporarily and started nothing.

    OWNER_MOVED was followed already, and another round leads to the same process.
    """
    if isinstance(error, OwnerMoved):
        return False
    return transient(error) or isinstance(error, RegistryUnavailable)


Call: TypeAlias = "Callable[[rpc.SessionServiceAsyncStub, CallOptions], Awaitable[_Response]]"
"""Starts one attempt of a unary call; called again for each attempt, with the same request."""
Leave: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Ends a session or a watch, unless another process has taken the session over."""


class ClientRuntime:
    """Owner of the connections and of all tasks that no caller awaits. Closed once, by the client."""

    def __init__(
        self,
        targets: Sequence[str],
        connect: Callable[[str], Connection],
        credentials: Credentials | None = None,
        is_outdated: Callable[[Connection], bool] = lambda _: False,
    ) -> None:
        """Prepare without connecting.

        Args:
            targets: Addresses of the gateway, in the order of preference.
            connect: Creates a connection, in the event loop that uses it.
            credentials: Credential of every call. Default: none.
            is_outdated: Returns True for a connection whose certificate was replaced: new calls use another one.
        """
        self.targets = tuple(targets)
        self.route = Route(self.targets)
        """Target of calls that belong to no session of this client, and of new sessions."""
        self._connect = connect
        self._credentials = credentials or Credentials(None)
        self._is_outdated = is_outdated
        self._connections: dict[str, Connection] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._open: dict[Leave, Callable[[], float]] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False
        self._pid = os.getpid()

    def connection(self, target: str) -> Connection:
        """Return the connection to a target, or to an address that a target named; create it if need be.

        At most `MAX_NAMED` connections to named addresses are kept. Above that the least recently used connection
        is closed, and its streams are resumed at the targets.

        Raises:
            ClientClosed: the client was closed.
            ForkedClient: this process was forked since the client was made.
        """
        require_no_fork(self._pid)
        if self._closed:
            raise ClientClosed("this client was closed; create another", code=grpc.StatusCode.CANCELLED)
        connection = self._connections.pop(target, None)
        if connection is not None and self._is_outdated(connection):
            retiring = asyncio.create_task(connection.retire(), name="client/retire")
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)
            connection = None
        connection = connection or self._connect(target)
        self._connections[target] = connection
        named = [other for other in self._connections if other not in self.targets]
        if len(named) > MAX_NAMED:
            self.spawn(self._connections.pop(named[0]).close(), "client/close-named")
        return connection

    def renewal(self) -> Renewal:
        """Return the permission of one stream to try a renewed credential."""
        return self._credentials.renewal()

    async def attach(self, target: str) -> AttachCall:
        """Start an Attach call.

        Raises:
            ClientError: the client was closed, or there is no credential.
        """
        bearer, connection = await self._credentials.current(), self.connection(target)
        return _stream(connection, connection.sessions.Attach, bearer, self._credentials)

    async def stream_audio(self, target: str) -> AudioCall:
        """Start a StreamAudio call.

        Raises:
            ClientError: the client was closed, or there is no credential.
        """
        bearer, connection = await self._credentials.current(), self.connection(target)
        return _stream(connection, connection.audio.StreamAudio, bearer, self._credentials)

    async def listen(self, target: str) -> ListenCall:
        """Start a ListenAudio call.

        Raises:
            ClientError: the client was closed, or there is no credential.
        """
        bearer, connection = await self._credentials.current(), self.connection(target)
        return _stream(connection, connection.audio.ListenAudio, bearer, self._credentials)

    async def watch(self, target: str) -> "Stream[pb.WatchSessionsRequest, pb.WatchSessionsResponse]":
        """Start a WatchSessions call.

        Raises:
            ClientError: the client was closed, or there is no credential.
        """
        bearer, connection = await self._credentials.current(), self.connection(target)
        return _stream(connection, connection.sessions.WatchSessions, bearer, self._credentials)

    async def call(
        self,
        call: "Call[_Response]",
        timeout_s: float | None,
        *,
        route: Route | None = None,
        once: bool = False,
    ) -> _Response:
        """Make a unary call at each target until one answers, for at most `CALL_ROUNDS` rounds.

        Only this layer repeats a call: gRPC's own retries are off. An owner that a target names is asked too, once
        a round. The delay between rounds follows RetryInfo; a delay beyond the timeout raises at once. A refused
        credential is renewed, and the same target called again, once.

        Args:
            call: Starts one attempt.
            timeout_s: Seconds for all attempts; None: no limit.
            route: Order of targets. Default: the client's own.
            once: True for a call that must not reach the gateway twice: no attempt follows a lost connection.

        Raises:
            GatewayError: no target answered, or a gateway refused.
        """
        route = route or self.route
        loop = asyncio.get_running_loop()
        until_mono_s = math.inf if timeout_s is None else loop.time() + timeout_s
        backoff = Backoff(first_s=0.2)
        renewal = self.renewal()
        while True:
            try:
                return await self._call_each(call, until_mono_s, route, renewal, once=once)
            except GatewayError as error:
                delay_s = backoff.next_delay_s(error.retry_after)
                if (
                    once
                    or backoff.attempt >= CALL_ROUNDS
                    or not _is_repeatable(error)
                    or loop.time() + delay_s >= until_mono_s
                ):
                    raise
                _log.info("call.retry delay_s=%.3f cause=%s", delay_s, error)
            await asyncio.sleep(delay_s)

    async def call_until_answered(
        self,
        call: "Call[_Response]",
        timeout_s: float | None,
        *,
        route: Route,
        until_mono_s: float,
        unknown_until_mono_s: float,
    ) -> _Response:
        """Repeat a unary call until a gateway answers: for calls that stop a cost.

        Args:
            call: Starts one attempt.
            timeout_s: Seconds for each round of all targets.
            route: Order of targets.
            until_mono_s: Time, on the loop's clock, after which no round begins. The first round always does.
            unknown_until_mono_s: Time until which SessionNotFound is no answer: another process may be about to
                take the session over.

        Raises:
            GatewayError: no target answered in time, or a gateway refused.
        """
        loop = asyncio.get_running_loop()
        backoff = Backoff(first_s=0.2)
        renewal = self.renewal()
        while True:
            round_until_mono_s = math.inf if timeout_s is None else loop.time() + timeout_s
            try:
                return await self._call_each(call, round_until_mono_s, route, renewal, once=False)
            except GatewayError as error:
                delay_s = backoff.next_delay_s(error.retry_after)
                next_mono_s = loop.time() + delay_s
                if moved(error):
                    if next_mono_s >= min(until_mono_s, unknown_until_mono_s):
                        raise
                elif loop.time() >= until_mono_s or not (transient(error) or _is_repeatable(error)):
                    raise
                # The last attempt is made at the end of the time, not before.
                delay_s = min(delay_s, max(until_mono_s - loop.time(), 0.0))
                _log.info("call.retry delay_s=%.3f cause=%s", delay_s, error)
            await asyncio.sleep(delay_s)

    async def _call_each(
        self,
        call: "Call[_Response]",
        until_mono_s: float,
        route: Route,
        renewal: Renewal,
        *,
        once: bool,
    ) -> _Response:
        """Call each target once, from the current one on, and the owner that a target names."""
        loop = asyncio.get_running_loop()
        left = route.round()
        followed = False
        unreached: GatewayError | None = None
        while True:
            target = left.pop(0)
            try:
                return await self._attempt(call, target, until_mono_s, renewal)
            except GatewayError as error:
                over = loop.time() >= until_mono_s - _OVER_S
                if isinstance(error, DeadlineExceeded) and not error.reason and over:
                    # OWNER_MOVED says more than the timeout: the named process has received the call.
                    raise (unreached if isinstance(unreached, OwnerMoved) else error) from error
                if not transient(error) and not moved(error):
                    raise
                if once and transient(error) and not error.reason:
                    raise
                if named := "" if followed else named_by(error, target):
                    followed = True
                    left = [named, *(other for other in left if other != named)]
                if transient(error):
                    unreached = unreached or error
                    if not isinstance(error, OwnerMoved):
                        route.leave(target)
                if not left or over:
                    # SESSION_NOT_FOUND proves nothing while a target is unreachable.
                    raise unreached or error from error

    async def _attempt(
        self, call: "Call[_Response]", target: str, until_mono_s: float, renewal: Renewal
    ) -> _Response:
        """Call a target with the present credential, and once more with a renewed one if it is refused."""
        while True:
            bearer = await self._credentials.current(self._left_s(until_mono_s))
            connection = self.connection(target)
            connection.begin_call()
            try:
                options = CallOptions(timeout=self._left_s(until_mono_s), metadata=bearer.metadata)
                return await answer(call(connection.sessions, options))
            except GatewayError as error:
                if refuses_credential(error):
                    self._credentials.refuse(bearer)
                if not renewal.allows(error):
                    raise
            finally:
                connection.end_call()

    @staticmethod
    def _left_s(until_mono_s: float) -> float | None:
        if until_mono_s == math.inf:
            return None
        return max(until_mono_s - asyncio.get_running_loop().time(), 0)

    def register(self, leave: Leave, timeout_s: Callable[[], float]) -> None:
        """Call `leave` when the client closes, unless it is released before.

        Args:
            leave: Ends a session or a watch.
            timeout_s: Seconds that it may take while no gateway can be reached.
        """
        self._open[leave] = timeout_s

    def release(self, leave: Leave) -> None:
        """Forget what was registered: the session or watch is over for this process. Idempotent."""
        self._open.pop(leave, None)

    def spawn(self, work: Coroutine[Any, Any, object], name: str) -> "asyncio.Task[object]":
        """Run a coroutine in a task of its own, which `close` waits for."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    async def close(self) -> None:
        """Leave all sessions, wait for all tasks, then close the connections. Idempotent."""
        longest_s = max((timeout_s() for timeout_s in self._open.values()), default=0.0)
        for leave in list(self._open):
            self.spawn(leave(), "client/leave")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=longest_s + _CLOSE_S)
            for task in late:
                _log.warning("client.close_late task=%s", task.get_name())
                task.cancel()
        self._closed = True
        for retiring in self._retiring:
            retiring.cancel()
        if self._retiring:
            await asyncio.wait(self._retiring)
        for connection in self._connections.values():
            await connection.close()

    def _reap(self, task: "asyncio.Task[object]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("client.task_failed task=%s cause=%s", task.get_name(), error)


def _stream(
    connection: Connection,
    method: "grpc.aio.StreamStreamMultiCallable[_Request, _Response]",
    bearer: Bearer,
    credentials: Credentials,
) -> "Stream[_Request, _Response]":
    """Start a bidirectional call with a credential."""

    def note(error: GatewayError) -> None:
        if refuses_credential(error):
            credentials.refuse(bearer)

    connection.begin_call()
    renew = functools.partial(credentials.renew, bearer) if credentials.renewable else None
    return Stream(method(metadata=bearer.metadata), on_error=note, on_done=connection.end_call, renew=renew)
