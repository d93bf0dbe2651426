"""What all sessions of a client share: its connections, its open sessions, and work that outlives a call."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import grpc

from liveavatar.gateway.attach import AttachCall
from liveavatar.gateway.audio_stream import AudioCall
from liveavatar.gateway.channel import Connection, Stream, answer, moved, transient
from liveavatar.gateway.errors import ClientClosed, GatewayError
from liveavatar.gateway.targets import Route
from liveavatar.gateway.v1 import session_service_pb2_grpc as rpc

_Response = TypeVar("_Response")
_log = logging.getLogger(__name__)

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
        self.route = Route(len(self.targets))
        """Where calls go that belong to no session of this client, and where new sessions begin."""
        self._connect = connect
        self._connections: dict[int, Connection] = {}
        self._sessions: set[Leaver] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False

    def connection(self, target: int) -> Connection:
        """The connection to one of the targets, made when it is first needed.

        Raises:
            ClientClosed: the client was closed.
        """
        if self._closed:
            raise ClientClosed("this client was closed; make another", code=grpc.StatusCode.CANCELLED)
        if target not in self._connections:
            self._connections[target] = self._connect(self.targets[target])
        return self._connections[target]

    def attach(self, target: int) -> AttachCall:
        """Start an Attach call.

        Raises:
            ClientClosed: the client was closed.
        """
        return Stream(self.connection(target).sessions.Attach())

    def stream_audio(self, target: int) -> AudioCall:
        """Start a StreamAudio call.

        Raises:
            ClientClosed: the client was closed.
        """
        return Stream(self.connection(target).audio.StreamAudio())

    async def ask(
        self,
        call: "Callable[[rpc.SessionServiceAsyncStub], Awaitable[_Response]]",
        *,
        route: Route | None = None,
        once: bool = False,
    ) -> _Response:
        """Make a unary call, at one target after the other until one answers.

        Args:
            call: Starts it; again for each target.
            route: Where to begin. Default: where the client is.
            once: The call may not reach the gateway twice, so a target that was lost under it is the last.

        Raises:
            GatewayError: none answered, or one refused.
        """
        route = route or self.route
        unreached: GatewayError | None = None
        first = route.current
        for number in range(route.count):
            target = (first + number) % route.count
            try:
                return await answer(call(self.connection(target).sessions))
            except GatewayError as error:
                if transient(error):
                    route.leave(target)
                    unreached = unreached or error
                elif not moved(error):
                    raise
                if number == route.count - 1 or (once and unreached is not None):
                    # That a session is unknown elsewhere says nothing while one target was not reached.
                    raise unreached or error from error
        raise AssertionError

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
