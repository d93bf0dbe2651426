"""What all sessions of a client share: its connections, its open sessions, and work that outlives a call."""

import asyncio
import logging
import math
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc

from liveavatar.gateway.attach import AttachCall
from liveavatar.gateway.audio_stream import AudioCall
from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.channel import Connection, Stream, answer, moved, transient
from liveavatar.gateway.errors import (
    ClientClosed,
    DeadlineExceeded,
    GatewayError,
    OwnerMoved,
    RegistryUnavailable,
)
from liveavatar.gateway.forks import require_no_fork
from liveavatar.gateway.targets import Route, named_by
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar.gateway.v1 import session_service_pb2_grpc as rpc

_Response = TypeVar("_Response")
_log = logging.getLogger(__name__)

MAX_NAMED = 64
"""Connections to addresses that no caller gave. Fewer are made anew more often where sessions are everywhere."""
ASK_ROUNDS = 4
"""Rounds of all targets in which a call must be answered. More outlast longer outages, fewer report sooner."""
_CLOSE_S = 15.0
# How long closing waits beyond the patience of its sessions; the gateway ends what is left after `detach_grace`.
_OVER_S = 0.05
# gRPC's clock may tell that a call's time is over a moment before the loop's does.


def _worth_repeating(error: GatewayError) -> bool:
    """Return whether a gateway refused for a moment and started nothing, or none was reached.

    OWNER_MOVED was followed already, and another round leads to the same process.
    """
    if isinstance(error, OwnerMoved):
        return False
    return transient(error) or isinstance(error, RegistryUnavailable)


Leave: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Ends a session or a watch, unless another process has taken the session over."""


class ClientRuntime:
    """Owns the connections and every task that no caller waits for; closed once, by the client."""

    def __init__(self, targets: Sequence[str], connect: Callable[[str], Connection]) -> None:
        """Prepare a scope.

        Args:
            targets: Where the gateway is, in the order of preference.
            connect: Makes a connection, in the event loop that uses it.
        """
        self.targets = tuple(targets)
        self.route = Route(self.targets)
        """Where calls go that belong to no session of this client, and where new sessions begin."""
        self._connect = connect
        self._connections: dict[str, Connection] = {}
        self._open: dict[Leave, Callable[[], float]] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False
        self._pid = os.getpid()

    def connection(self, target: str) -> Connection:
        """The connection to a target or to an address that one has named, made when it is first needed.

        Of named ones `MAX_NAMED` are kept; then the one that was asked for longest ago is closed, and what still
        lives on it is resumed by way of the targets.

        Raises:
            ClientClosed: the client was closed.
            ForkedClient: this process was forked since the client was made.
        """
        require_no_fork(self._pid)
        if self._closed:
            raise ClientClosed("this client was closed; make another", code=grpc.StatusCode.CANCELLED)
        connection = self._connections.pop(target, None) or self._connect(target)
        self._connections[target] = connection
        named = [other for other in self._connections if other not in self.targets]
        if len(named) > MAX_NAMED:
            self.spawn(self._connections.pop(named[0]).close(), "client/close-named")
        return connection

    def attach(self, target: str) -> AttachCall:
        """Start an Attach call.

        Raises:
            ClientClosed: the client was closed.
        """
        return Stream(self.connection(target).sessions.Attach())

    def stream_audio(self, target: str) -> AudioCall:
        """Start a StreamAudio call.

        Raises:
            ClientClosed: the client was closed.
        """
        return Stream(self.connection(target).audio.StreamAudio())

    def watch(self, target: str) -> "Stream[pb.WatchSessionsRequest, pb.WatchSessionsResponse]":
        """Start a WatchSessions call.

        Raises:
            ClientClosed: the client was closed.
        """
        return Stream(self.connection(target).sessions.WatchSessions())

    async def ask(
        self,
        call: "Callable[[rpc.SessionServiceAsyncStub, float | None], Awaitable[_Response]]",
        timeout_s: float | None,
        *,
        route: Route | None = None,
        once: bool = False,
    ) -> _Response:
        """Make a unary call, at one target after the other until one answers: at most `ASK_ROUNDS` times each.

        This is the only layer that repeats a call: gRPC's own retries are off. A target that says which process
        has the session is taken at its word, once a round. Between rounds it waits as long as RetryInfo asks for,
        and not at all when that is longer than the caller waits.

        Args:
            call: Starts it, with the seconds that it may take; again for each attempt, with the same request.
            timeout_s: Seconds for all of them together; None waits for ever.
            route: Where to begin. Default: where the client is.
            once: The call may not reach the gateway twice, so a target that was lost under it is the last.

        Raises:
            GatewayError: none answered, or one refused.
        """
        route = route or self.route
        loop = asyncio.get_running_loop()
        until_mono_s = math.inf if timeout_s is None else loop.time() + timeout_s
        backoff = Backoff(first_s=0.2)
        while True:
            try:
                return await self._ask_each(call, until_mono_s, route, once=once)
            except GatewayError as error:
                delay_s = backoff.next_delay_s(error.retry_after)
                if (
                    once
                    or backoff.attempt >= ASK_ROUNDS
                    or not _worth_repeating(error)
                    or loop.time() + delay_s >= until_mono_s
                ):
                    raise
                _log.info("call.retry delay_s=%.3f cause=%s", delay_s, error)
            await asyncio.sleep(delay_s)

    async def insist(
        self,
        call: "Callable[[rpc.SessionServiceAsyncStub, float | None], Awaitable[_Response]]",
        timeout_s: float | None,
        *,
        route: Route,
        until_mono_s: float,
        unknown_until_mono_s: float,
    ) -> _Response:
        """Make a unary call again and again until a gateway answers: for what costs money while it is undone.

        Args:
            call: Starts it, as for `ask`.
            timeout_s: Seconds for all targets together, each time.
            route: Where to begin.
            until_mono_s: When to begin no further round, on the loop's clock. One is always made.
            unknown_until_mono_s: Until when it is no answer that nobody knows the session: another process may
                be about to take it over.

        Raises:
            GatewayError: none answered in time, or one refused.
        """
        loop = asyncio.get_running_loop()
        backoff = Backoff(first_s=0.2)
        while True:
            round_until_mono_s = math.inf if timeout_s is None else loop.time() + timeout_s
            try:
                return await self._ask_each(call, round_until_mono_s, route, once=False)
            except GatewayError as error:
                delay_s = backoff.next_delay_s(error.retry_after)
                next_mono_s = loop.time() + delay_s
                if moved(error):
                    if next_mono_s >= min(until_mono_s, unknown_until_mono_s):
                        raise
                elif loop.time() >= until_mono_s or not (transient(error) or _worth_repeating(error)):
                    raise
                # The last attempt is made when the time is over, not before.
                delay_s = min(delay_s, max(until_mono_s - loop.time(), 0.0))
                _log.info("call.retry delay_s=%.3f cause=%s", delay_s, error)
            await asyncio.sleep(delay_s)

    async def _ask_each(
        self,
        call: "Callable[[rpc.SessionServiceAsyncStub, float | None], Awaitable[_Response]]",
        until_mono_s: float,
        route: Route,
        *,
        once: bool,
    ) -> _Response:
        """Ask each target once, beginning with the current one, and whom one of them names."""
        loop = asyncio.get_running_loop()
        left = route.round()
        followed = False
        unreached: GatewayError | None = None
        while True:
            target = left.pop(0)
            left_s = None if until_mono_s == math.inf else max(until_mono_s - loop.time(), 0)
            try:
                return await answer(call(self.connection(target).sessions, left_s))
            except GatewayError as error:
                over = loop.time() >= until_mono_s - _OVER_S
                if isinstance(error, DeadlineExceeded) and not error.reason and over:
                    # That process knows what is wanted of it, which says more than that the time is over.
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
                    # That a session is unknown elsewhere says nothing while one target was not reached.
                    raise unreached or error from error

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
        """Run something to its end also where its caller goes away; closing waits for it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    async def close(self) -> None:
        """Leave all sessions, wait for what runs, then close the connections. Idempotent."""
        longest_s = max((timeout_s() for timeout_s in self._open.values()), default=0.0)
        for leave in list(self._open):
            self.spawn(leave(), "client/leave")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=longest_s + _CLOSE_S)
            for task in late:
                _log.warning("client.close_late task=%s", task.get_name())
                task.cancel()
        self._closed = True
        for connection in self._connections.values():
            await connection.close()

    def _reap(self, task: "asyncio.Task[object]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("client.task_failed task=%s cause=%s", task.get_name(), error)
