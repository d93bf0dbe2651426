"""Data that the caller of a session sends to the participants of its room."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from liveavatar_gateway.core.errors import DataNotPermitted, GatewayError, ParticipantNotFound, RoomUnreachable
from liveavatar_gateway.core.room_events import RoomLossCause
from liveavatar_gateway.rooms.view import RoomView
from liveavatar_gateway.sessions.user_audio import UserAudio
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import Metrics

_SEND_TIMEOUT_S: Final = 3.0
"""Longest wait for the SDK to send a message, which it does at once unless the connection is about to be lost."""
_TIMEOUT_S: Final = 10.0
"""Longest time for a message, the join of the room included."""
_MAX_REMEMBERED: Final = 256
"""Commands that are recognized when they come again."""


@dataclass(frozen=True, slots=True)
class DataMessage:
    """Data for participants."""

    payload: bytes = field(repr=False)
    topic: str = ""
    identities: tuple[str, ...] = ()
    """Participants that get it; empty for all."""


class RoomData:
    """Sender of one session: messages one after the other, each command once.

    It is a guest in the room while messages wait. `close` fails those that are left.
    """

    def __init__(
        self, session_id: str, room: UserAudio, metrics: Metrics, *, timeout_s: float = _TIMEOUT_S
    ) -> None:
        """Prepare; the room is joined with the first message.

        Args:
            session_id: The gateway's id of the session.
            room: Connection to the room, shared with those who hear users.
            metrics: Counts messages.
            timeout_s: Longest time for a message.
        """
        self._session_id = session_id
        self._room = room
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._commands: dict[str, asyncio.Task[None]] = {}
        """Commands by id, oldest first; their results are kept for a caller that repeats them."""
        self._turn = asyncio.Lock()
        """Held while a message is sent, so that messages keep their order. Fair, and held for a bounded time."""
        self._pending_count = 0
        self._view: RoomView | None = None
        self._refusal: GatewayError | None = None
        self._news = Wakeup()
        self._closed: GatewayError | None = None

    async def send(self, command_id: str, message: DataMessage) -> None:
        """Send a message; a command that comes again returns the result of the first.

        The message is sent also if the caller of this method is cancelled.

        Raises:
            GatewayError: it was not sent.
        """
        task = self._commands.get(command_id)
        if task is None:
            name = f"session-{self._session_id}/send-data"
            task = self._commands[command_id] = asyncio.create_task(self._counted(message), name=name)
            task.add_done_callback(_retrieve)
            if len(self._commands) > _MAX_REMEMBERED:
                self._forget_oldest()
        await asyncio.shield(task)

    def close(self, error: GatewayError) -> None:
        """Fail what waits: the session is over."""
        self._closed = error
        self._news.set()

    def _forget_oldest(self) -> None:
        oldest = next((command_id for command_id, task in self._commands.items() if task.done()), None)
        if oldest is not None:
            del self._commands[oldest]

    async def _counted(self, message: DataMessage) -> None:
        try:
            await self._send(message)
        except GatewayError:
            self._metrics.room_data("refused")
            raise
        self._metrics.room_data("sent")

    async def _send(self, message: DataMessage) -> None:
        if not self._pending_count:
            self._refusal = None
            self._room.enter(self)
        self._pending_count += 1
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                view = await self._joined()
                if not view.may_send:
                    raise DataNotPermitted(self._session_id)
                if missing := view.absent(message.identities):
                    raise ParticipantNotFound(missing, field="command.send_data.identities")
                await view.send(message.payload, message.topic, message.identities, timeout_s=_SEND_TIMEOUT_S)
        except TimeoutError:
            raise RoomUnreachable("it could not be joined in time") from None
        finally:
            self._pending_count -= 1
            if not self._pending_count:
                self._room.depart(self)
                self._view = None

    async def _joined(self) -> RoomView:
        while True:
            if (error := self._closed or self._refusal) is not None:
                raise error
            if self._view is not None:
                return self._view
            await self._news.wait()

    # --- guest of the room

    def entered(self, view: RoomView) -> None:
        """Send what waits."""
        self._view, self._refusal = view, None
        self._news.set()

    def left(self, cause: RoomLossCause | None) -> None:  # noqa: ARG002 - the room is joined again in any case
        """Wait for the room."""
        self._view = None

    def refused(self, error: GatewayError) -> None:
        """Fail what waits."""
        self._refusal = error
        self._news.set()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Retrieve the error of a task whose caller may be gone."""
    if not task.cancelled():
        task.exception()
