"""What all sessions of a client share: its connection, its open sessions, and work that outlives a call."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import grpc

from liveavatar.gateway.attach import AttachCall
from liveavatar.gateway.audio_stream import AudioCall
from liveavatar.gateway.channel import Connection, Stream
from liveavatar.gateway.errors import ClientClosed

_log = logging.getLogger(__name__)

_CLOSE_S = 15.0
# How long closing waits for sessions to be ended; the gateway ends what is left after `detach_grace`.


class Leaver(Protocol):
    """A session, as far as closing its client goes."""

    async def leave(self) -> None:
        """End the session unless somebody else has it, and let go of it."""


class Scope:
    """Owns the connection and every task that no caller waits for; closed once, by the client."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """Prepare a scope.

        Args:
            connect: Makes the connection, in the event loop that uses it.
        """
        self._connect = connect
        self._connection: Connection | None = None
        self._sessions: set[Leaver] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False

    @property
    def connection(self) -> Connection:
        """The connection, made when it is first needed.

        Raises:
            ClientClosed: the client was closed.
        """
        if self._closed:
            raise ClientClosed("this client was closed; make another", code=grpc.StatusCode.CANCELLED)
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def attach(self) -> AttachCall:
        """Start an Attach call.

        Raises:
            ClientClosed: the client was closed.
        """
        return Stream(self.connection.sessions.Attach())

    def stream_audio(self) -> AudioCall:
        """Start a StreamAudio call.

        Raises:
            ClientClosed: the client was closed.
        """
        return Stream(self.connection.audio.StreamAudio())

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
        """Leave all sessions, wait for what runs, then close the connection. Idempotent."""
        for session in list(self._sessions):
            self.spawn(session.leave(), "session/end")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_CLOSE_S)
            for task in late:
                _log.warning("client.close_late task=%s", task.get_name())
                task.cancel()
        self._closed = True
        if self._connection is not None:
            await self._connection.close()

    def _reap(self, task: "asyncio.Task[object]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("client.task_failed task=%s cause=%s", task.get_name(), error)
