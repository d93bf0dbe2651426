"""What all sessions of a client share: its connections, its open sessions, and work that outlives a call."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import grpc

from liveavatar.gateway.attach import AttachCall
from liveavatar.gateway.audio_stream import AudioCall
from liveavatar.gateway.channel import Connection, Stream, answer, moved, transient
from liveavatar.gateway.errors import ClientClosed, DeadlineExceeded, GatewayError, OwnerMoved
from liveavatar.gateway.targets import Route, named_by
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar.gateway.v1 import session_service_pb2_grpc as rpc

_Response = TypeVar("_Response")
_log = logging.getLogger(__name__)

MAX_NAMED = 64
"""Connections to addresses that no caller gave. Fewer are made anew more often where sessions are everywhere."""
_CLOSE_S = 15.0
# How long closing waits for sessions to be ended; the gateway ends what is left after `detach_grace`.


class Leaver(Protocol):
    """A session, as far as closing its client goes."""

    async def leave(self) -> None:
        """End the session unless somebody else has it, and let go of it."""


class Scope:
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
        self._sessions: set[Leaver] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False

    def connection(self, target: str) -> Connection:
        """The connection to a target or to an address that one has named, made when it is first needed.

        Of named ones `MAX_NAMED` are kept; then the one that was asked for longest ago is closed, and what still
        lives on it is resumed by way of the targets.

        Raises:
            ClientClosed: the client was closed.
        """
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
        """Make a unary call, at one target after the other until one answers.

        One that says which process has the session is taken at its word, once.

        Args:
            call: Starts it, with the seconds that it may take; again for each target.
            timeout_s: Seconds for all of them together; None waits for ever.
            route: Where to begin. Default: where the client is.
            once: The call may not reach the gateway twice, so a target that was lost under it is the last.

        Raises:
            GatewayError: none answered, or one refused.
        """
        route = route or self.route
        loop = asyncio.get_running_loop()
        until_mono_s = math.inf if timeout_s is None else loop.time() + timeout_s
        left = route.round()
        followed = False
        unreached: GatewayError | None = None
        while True:
            target = left.pop(0)
            left_s = None if timeout_s is None else max(until_mono_s - loop.time(), 0)
            try:
                return await answer(call(self.connection(target).sessions, left_s))
            except GatewayError as error:
                if isinstance(error, DeadlineExceeded) and isinstance(unreached, OwnerMoved):
                    # It says more: that process knows what is wanted of it.
                    raise unreached from error
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
                if not left or loop.time() >= until_mono_s:
                    # That a session is unknown elsewhere says nothing while one target was not reached.
                    raise unreached or error from error

    def adopt(self, session: Leaver) -> None:
        """See to it that the session is left when the client closes."""
        self._sessions.add(session)

    def release(self, session: Leaver) -> None:
        """The session is over for this process."""
        self._sessions.discard(session)

    def spawn(self, work: Coroutine[Any, Any, object], name: str) -> "asyncio.Task[object]":
        """Run something to its end also where its caller goes away; closing waits for it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    async def close(self) -> None:
        """Leave all sessions, wait for what runs, then close the connections. Idempotent."""
        for session in list(self._sessions):
            self.spawn(session.leave(), "session/end")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_CLOSE_S)
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
