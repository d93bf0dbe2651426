"""Voices of a session's users: one connection to its room, shared by all listeners and the guests of the room."""

import asyncio
import importlib
import math
import random
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable
from types import ModuleType
from typing import Final, Protocol

import structlog

from liveavatar_gateway.core.errors import CapacityExhausted, GatewayError, InternalError, RoomUnreachable
from liveavatar_gateway.core.room_events import RoomLossCause
from liveavatar_gateway.core.user_audio import ListenerBuffer
from liveavatar_gateway.rooms.access import LiveKitAccess
from liveavatar_gateway.rooms.view import RoomGuest, RoomView
from liveavatar_gateway.sessions.attachments import Attachments
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.backoff import Backoff

_log = structlog.get_logger(__name__)

MAX_LISTENERS: Final = 8
"""Listeners of one session at once."""
_LINGER_S: Final = 10.0
"""Time for which the room is kept without a listener, for one that comes back. Lower leaves sooner; higher spares
a listener who comes back the join, which takes half a second."""
_TRIES: Final = 3
"""Tries to join, after which listeners that wait for the room are refused."""
_FIRST_WAIT_S: Final = 0.5
_MAX_WAIT_S: Final = 10.0
_STABLE_S: Final = 5.0
"""Time after which a connection that is lost is joined again at once, and not after a pause."""
_MODULE: Final = "liveavatar_gateway.rooms.listener"
_LOADED: Final = threading.Event()
"""Set once the SDK is loaded; a module is in `sys.modules` before that."""


class RoomConnection(Protocol):
    """Connection to a room, see `RoomListener`."""

    @property
    def is_lost(self) -> bool:
        """True once the connection is lost."""

    @property
    def loss_cause(self) -> RoomLossCause:
        """Cause of the loss, once `is_lost`."""

    @property
    def observer(self) -> RoomView:
        """View of the room, once it is joined."""

    async def join(self, access: LiveKitAccess) -> None:
        """Join the room; raises `RoomUnreachable`."""

    def choose(self) -> None:
        """Subscribe to what the listeners want to hear now."""

    async def leave(self) -> None:
        """Leave the room, also after a failure to join."""


class ListenerRoom(Protocol):
    """Room of a session, see `Avatars`."""

    @property
    def listener_room(self) -> str:
        """Name of the present room for comparison; empty before there is one."""

    async def listener_access(self) -> LiveKitAccess:
        """Return access to the room; raises `RoomUnreachable`, `RoomTokenMissing` and others."""

    @property
    def identities(self) -> Collection[str]:
        """Identities of all avatars that the session may have in its room."""


Connect = Callable[["UserAudio", Collection[str]], Awaitable[RoomConnection]]
"""Returns a connection that has not joined: receiver of the audio, and identities of avatars."""


async def open_room(sink: "UserAudio", avatars: Collection[str]) -> RoomConnection:
    """Return a connection that has not joined; the SDK is loaded in a thread when the first is opened."""
    module = sys.modules[_MODULE] if _LOADED.is_set() else await asyncio.to_thread(_load)
    connection: RoomConnection = module.RoomListener(sink, avatars)
    return connection


def _load() -> ModuleType:
    module = importlib.import_module(_MODULE)
    module.load()
    _LOADED.set()
    return module


class Listener:
    """Listener of a session: its format, the users it wants to hear, and its buffer."""

    def __init__(
        self,
        buffer: ListenerBuffer,
        *,
        rate_hz: int,
        encode: Callable[[bytes], bytes],
        participants: Collection[str],
        wakeup: Wakeup,
    ) -> None:
        """Begin outside of the room.

        Args:
            buffer: Audio that waits for credit.
            rate_hz: Sample rate.
            encode: Converts mono 16-bit samples to the listener's encoding.
            participants: Identities of the users; empty for all.
            wakeup: Set when there is audio, and when a property changes.
        """
        self.buffer = buffer
        self.rate_hz = rate_hz
        self._encode = encode
        self._participants = frozenset(participants)
        self._wakeup = wakeup
        self.has_joined = False
        """True once the gateway is in the room."""
        self.error: GatewayError | None = None
        """Error that ends the listener; None without one."""

    def hears(self, participant: str) -> bool:
        """Return True if the listener wants to hear a participant."""
        return not self._participants or participant in self._participants

    def take(self, participant: str, pcm: bytes, captured_s: float) -> None:
        """Add mono 16-bit samples at the listener's rate."""
        self.buffer.append(participant, self._encode(pcm), captured_s)
        self._wakeup.set()

    def flush(self, participant: str) -> None:
        """Complete the last chunk of a participant."""
        self.buffer.flush(participant)
        self._wakeup.set()

    def join(self) -> None:
        """Take note that the gateway is in the room."""
        self.has_joined = True
        self._wakeup.set()

    def fail(self, error: GatewayError) -> None:
        """End the listener with an error."""
        self.error = error
        self._wakeup.set()


class UserAudio:
    """Listeners and guests of one session, and the one task that keeps the connection to its room for them.

    The session closes it. A session without a listener or guest has no task, and no connection.
    """

    def __init__(
        self,
        session_id: str,
        room: ListenerRoom,
        attachments: Attachments,
        metrics: Metrics,
        *,
        connect: Connect = open_room,
        linger_s: float = _LINGER_S,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        """Prepare; nothing is joined before the first listener.

        Args:
            session_id: The gateway's id of the session.
            room: Room of the session.
            attachments: Attachments of the session, whose news may be another room.
            metrics: Counts rooms and failures.
            connect: Returns a connection that has not joined.
            linger_s: Time for which the room is kept without a listener.
            first_wait_s: Wait before the second try to join; doubles, with jitter.
        """
        self._session_id = session_id
        self._place = room
        self._attachments = attachments
        self._metrics = metrics
        self._connect = connect
        self._linger_s = linger_s
        self._first_wait_s = first_wait_s
        self._listeners: list[Listener] = []
        self._guests: list[RoomGuest] = []
        self._connection: RoomConnection | None = None
        """Connection that has joined; None at any other time."""
        self._task: asyncio.Task[None] | None = None
        self._wakeup = Wakeup()
        self._closed = False
        self._empty_since_s = 0.0

    # --- listeners

    def add(self, listener: Listener) -> None:
        """Add a listener, which is in the room when its `has_joined` is True.

        Raises:
            CapacityExhausted: the session has as many listeners as it may have.
        """
        if len(self._listeners) >= MAX_LISTENERS:
            raise CapacityExhausted(
                f"the session has {MAX_LISTENERS} listeners, its limit; end one of them",
                scope="session",
                retry_after_s=1.0,
                values={"limit": MAX_LISTENERS},
            )
        self._listeners.append(listener)
        if self._connection is not None:
            listener.join()
            self._connection.choose()
        self._start()

    def remove(self, listener: Listener) -> None:
        """Remove a listener. The room is kept for a moment after the last."""
        self._listeners.remove(listener)
        self._empty_since_s = time.monotonic()
        if self._connection is not None and self._listeners:
            self._connection.choose()
        self._wakeup.set()

    def enter(self, guest: RoomGuest) -> None:
        """Keep the connection to the room for a guest too, until `depart`."""
        self._guests.append(guest)
        if self._connection is not None:
            guest.entered(self._connection.observer)
        self._start()

    def depart(self, guest: RoomGuest) -> None:
        """Keep the connection for a guest no more, but for a moment."""
        self._guests.remove(guest)
        self._empty_since_s = time.monotonic()
        self._wakeup.set()

    def _start(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run(), name=f"session-{self._session_id}/listen")
        self._wakeup.set()

    def close(self) -> None:
        """Leave the room for good: the session is over. Listeners keep what is in their buffers."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    # --- sink of the room

    def rates_hz(self) -> Collection[int]:
        """Return the sample rates of the listeners."""
        return {listener.rate_hz for listener in self._listeners}

    def hears(self, participant: str) -> bool:
        """Return True if any listener wants to hear a participant."""
        return any(listener.hears(participant) for listener in self._listeners)

    def take(self, participant: str, rate_hz: int, pcm: bytes, captured_s: float) -> None:
        """Pass audio on to the listeners of its rate."""
        for listener in self._hearing(participant, rate_hz):
            listener.take(participant, pcm, captured_s)

    def fell_silent(self, participant: str, rate_hz: int) -> None:
        """Complete the last chunks of a participant."""
        for listener in self._hearing(participant, rate_hz):
            listener.flush(participant)

    def room_lost(self) -> None:
        """Join again."""
        self._wakeup.set()

    def _hearing(self, participant: str, rate_hz: int) -> Iterable[Listener]:
        return (one for one in self._listeners if one.rate_hz == rate_hz and one.hears(participant))

    # --- the one task

    async def _run(self) -> None:
        # The session's news may be that it has its first room, or another one.
        attachment = self._attachments.observe(self._wakeup)
        try:
            await self._keep_room()
        except Exception:  # noqa: BLE001 - root of its task: whatever it is ends the listeners, logged
            incident = str(uuid.uuid4())
            _log.exception("listen.crashed", session=self._session_id, incident=incident)
            self._fail_all(InternalError("a fault of the gateway", incident=incident))
        finally:
            attachment.release()
            self._task = None

    async def _keep_room(self) -> None:
        rng = random.Random()  # noqa: S311 - jitter
        backoff = Backoff(first_s=self._first_wait_s, max_s=_MAX_WAIT_S, rng=rng)
        failure_count = 0
        while self._is_wanted():
            try:
                if not self._place.listener_room:
                    await self._wait()
                    continue
                if await self._hear_one_room() < _STABLE_S and self._is_wanted():
                    await asyncio.sleep(backoff.next_s())
                    continue
                backoff.reset()
                failure_count = 0
            except RoomUnreachable as error:
                failure_count += 1
                self._metrics.joined_room("failed")
                _log.warning("listen.join_failed", session=self._session_id, cause=error.metadata.get("cause", ""))
                if failure_count >= _TRIES:
                    # Those who were in the room before wait for it to come back.
                    self._fail_all(error, waiting_only=True)
                await asyncio.sleep(backoff.next_s())
            except GatewayError as error:
                # No token or no address that the gateway may use: another try would not help.
                self._metrics.joined_room("refused")
                _log.warning("listen.refused", session=self._session_id, reason=error.reason)
                self._fail_all(error)
                await self._wait()

    async def _hear_one_room(self) -> float:
        """Join the present room, and leave it when it is lost, replaced or not wanted any more.

        Returns the time for which the room was heard, seconds; infinite if it was not lost.

        Raises:
            GatewayError: it cannot be joined.
        """
        place = self._place.listener_room
        access = await self._place.listener_access()
        connection = await self._connect(self, self._place.identities)
        try:
            await connection.join(access)
            self._metrics.joined_room("joined")
            _log.info("listen.joined", session=self._session_id)
            self._connection = connection
            joined_s = time.monotonic()
            for listener in self._listeners:
                listener.join()
            for guest in list(self._guests):
                guest.entered(connection.observer)
            # One that came while the room was joined may want to hear others.
            connection.choose()
            while self._is_wanted() and not connection.is_lost and self._place.listener_room == place:
                await self._wait()
            return time.monotonic() - joined_s if connection.is_lost else math.inf
        finally:
            if self._connection is not None:
                self._connection = None
                self._metrics.left_room()
                for guest in list(self._guests):
                    guest.left(connection.loss_cause if connection.is_lost else None)
            await connection.leave()

    def _is_wanted(self) -> bool:
        lingers = time.monotonic() < self._empty_since_s + self._linger_s and self._connection is not None
        return not self._closed and (bool(self._listeners or self._guests) or lingers)

    async def _wait(self) -> None:
        """Wait for a change, or until the room was kept long enough."""
        is_used = self._listeners or self._guests
        left_s = None if is_used else self._empty_since_s + self._linger_s - time.monotonic()
        await self._wakeup.wait(left_s)

    def _fail_all(self, error: GatewayError, *, waiting_only: bool = False) -> None:
        for listener in self._listeners:
            if not waiting_only or not listener.has_joined:
                listener.fail(error)
        for guest in list(self._guests):
            guest.refused(error)
