"""Watch over the room of a session whose caller has asked for its events."""

import time
from collections.abc import Callable, Collection
from typing import Protocol

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.room_events import RoomLossCause
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.rooms.view import RoomView
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.user_audio import UserAudio
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import Metrics


class Avatars(Protocol):
    """Avatars of the session."""

    @property
    def identities(self) -> Collection[str]:
        """Identities of all avatars that the session may have in its room."""


class RoomWatch:
    """Guest in the room that tells the state machine of the session what happens there."""

    def __init__(
        self,
        core: Session,
        spec: SessionSpec,
        *,
        room: UserAudio,
        avatars: Avatars,
        metrics: Metrics,
        wake: Wakeup,
        is_followed: Callable[[], bool],
        report: Callable[[], None],
    ) -> None:
        """Prepare; the room is not joined before `start`.

        Args:
            core: State machine of the session.
            spec: The caller's wishes.
            room: Connection to the room, shared with those who hear users.
            avatars: Avatars of the session.
            metrics: Counts data messages.
            wake: Wakes the driver, which knows the deadlines of the state machine.
            is_followed: Returns True while a caller reads the events.
            report: Publishes the events.
        """
        self._core = core
        self._shared = room
        self._is_wanted = spec.room_events is not None
        self._topics = frozenset(() if spec.room_events is None else spec.room_events.data_topics)
        self._sees_viewers = spec.livekit_room is None
        """False in a room of the caller's own: its server is asked, which also knows hidden participants."""
        self._avatars = avatars
        self._metrics = metrics
        self._wake = wake
        self._is_followed = is_followed
        self._report = report
        self._view: RoomView | None = None

    def start(self) -> None:
        """Join the room, if the caller wants its events. `UserAudio.close` leaves it."""
        if self._is_wanted:
            self._shared.enter(self)

    # --- guest of the room

    def entered(self, view: RoomView) -> None:
        """Report the participants, and follow the room."""
        self._view = view
        view.follow(self)
        self.room_restored()

    def left(self, cause: RoomLossCause | None) -> None:
        """Report the loss of the connection; a change of the room or the end of the session is none."""
        self._view = None
        if cause is None:
            self._core.room.changing()
        else:
            self._core.room.disconnected(cause)
        self._publish()

    def refused(self, error: GatewayError) -> None:
        """Report that the room cannot be joined."""
        self._core.room.disconnected(RoomLossCause.REFUSED, error)
        self._publish()

    # --- follower of the room

    def is_avatar(self, identity: str) -> bool:
        """Return True for the identity of an avatar of the session."""
        return identity in self._avatars.identities

    def room_changed(self) -> None:
        """Report what has changed."""
        if self._view is not None:
            self._core.room.observe(self._view.participants())
            self._look(self._view)

    def room_interrupted(self) -> None:
        """Report a connection that the SDK tries to bring back."""
        if self._view is not None:
            self._core.room.disconnected(RoomLossCause.LOST)
            self._publish()

    def room_restored(self) -> None:
        """Report the participants of a room that is joined or back."""
        if self._view is not None:
            self._core.room.connected(self._view.participants())
            self._look(self._view)

    def wants(self, topic: str) -> bool:
        """Return True if the caller wants data of a topic."""
        return topic in self._topics

    def data_received(self, identity: str, topic: str, payload: bytes) -> None:
        """Report a data message, unless there are too many."""
        taken = self._core.room.receive(
            identity, topic, payload, time.monotonic(), is_followed=self._is_followed()
        )
        self._metrics.room_data("received" if taken else "dropped")
        # The first that is dropped is reported, or sets the time of the report.
        if taken or self._core.room.next_s is None:
            self._publish()

    def data_dropped(self, count: int) -> None:
        """Report data messages that were dropped before they got here."""
        self._core.room.dropped(count)
        self._metrics.room_data("dropped", count)
        if self._core.room.next_s is None:
            self._publish()

    def _look(self, view: RoomView) -> None:
        if self._sees_viewers:
            self._core.room.note_viewers(view.has_viewer())
        self._publish()

    def _publish(self) -> None:
        self._core.report_room(time.monotonic())
        if self._core.room.next_s is not None:
            self._wake.set()
        self._report()
