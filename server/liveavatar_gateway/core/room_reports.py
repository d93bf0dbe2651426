"""Reports about a room to the callers of its session: bounded in their rate, whatever participants do."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum, unique
from typing import Final

from liveavatar_gateway.core.allowance import Allowance
from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.room_events import (
    MAX_DATA_BYTES,
    AvatarTracksChanged,
    DataDropped,
    DataReceived,
    MicrophoneChanged,
    ParticipantJoined,
    ParticipantKind,
    ParticipantLeft,
    RoomConnected,
    RoomDisconnected,
    RoomEvent,
    RoomLossCause,
    RoomParticipant,
    ViewersChanged,
)
from liveavatar_gateway.core.states import move

MAX_PARTICIPANTS: Final = 64
"""Participants whose changes are reported. Others are only counted."""
MAX_SENDERS: Final = 256
"""Senders of data with an allowance of their own; above that, those who were silent longest are forgotten."""
_CHANGES: Final = (64, 10.0)
"""Burst and rate of changes of the room. Above it they wait, and what is undone meanwhile is not reported."""
_MESSAGES: Final = (64, 20.0)
"""Burst and rate of data messages. The bursts fit into the event log many times."""
_MESSAGES_OF_ONE: Final = (32, 10.0)
_BYTES: Final = (128 * 1024, 16 * 1024.0)
"""Burst and rate of the bytes of data messages, see `events.MAX_PAYLOAD_BYTES`."""
_BYTES_OF_ONE: Final = (64 * 1024, 8 * 1024.0)
_DROPS_S: Final = 5.0
"""Shortest time between two reports of dropped data."""
_MAX_NAMED: Final = 16


@unique
class RoomLink(Enum):
    """Connection of the gateway to the room."""

    JOINING = "joining"
    """The room was not joined yet, or is another one after a rotation."""
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


ROOM_LINK_TRANSITIONS: Final[Mapping[RoomLink, frozenset[RoomLink]]] = {
    RoomLink.JOINING: frozenset({RoomLink.CONNECTED, RoomLink.DISCONNECTED}),
    RoomLink.CONNECTED: frozenset({RoomLink.JOINING, RoomLink.DISCONNECTED}),
    # To itself: with another cause.
    RoomLink.DISCONNECTED: frozenset({RoomLink.CONNECTED, RoomLink.DISCONNECTED}),
}
"""States of the connection, each with those that may follow."""


class _Room:
    """Room as it is, or as callers know it."""

    def __init__(self) -> None:
        self.link = RoomLink.JOINING
        self.connection = 0
        """Number of the connection, from 1."""
        self.loss: tuple[RoomLossCause, str] | None = None
        """Cause and reason of the latest loss."""
        self.participants: dict[str, RoomParticipant] = {}
        self.viewers: bool | None = None


class _Budget:
    """Allowance of data messages, of all senders or of a single sender."""

    def __init__(self, messages: tuple[float, float], size_bytes: tuple[float, float]) -> None:
        self._parts = (
            Allowance(burst=messages[0], per_s=messages[1]),
            Allowance(burst=size_bytes[0], per_s=size_bytes[1]),
        )

    def advance(self, now_s: float, *, is_followed: bool) -> None:
        for part in self._parts:
            if is_followed:
                part.fill(now_s)
            else:
                part.skip(now_s)

    def has(self, size_bytes: int) -> bool:
        messages, total = self._parts
        return messages.has(1) and total.has(size_bytes)

    def take(self, size_bytes: int) -> None:
        messages, total = self._parts
        messages.take(1)
        total.take(size_bytes)


class RoomReports:
    """Room of a session, and the events that bring its callers up to date.

    A change is a difference between the room as it is and as callers know it. When there are more than the rate
    allows, the rest waits, and only what is different then is reported: nothing is lost, and nothing piles up.
    Data messages beyond their rate are dropped and counted.

    Pure: time is an argument. `take` returns the events that are due.
    """

    def __init__(self, *, is_wanted: bool) -> None:
        """Begin outside of the room.

        Args:
            is_wanted: False for a session whose caller has not asked for events of the room.
        """
        self.is_wanted = is_wanted
        self._now = _Room()
        self._known = _Room()
        self._error: GatewayError | None = None
        self._participant_count = 0
        self._changes = Allowance(burst=_CHANGES[0], per_s=_CHANGES[1])
        self._data: deque[DataReceived] = deque()
        self._budget = _Budget(_MESSAGES, _BYTES)
        self._senders: dict[str, _Budget] = {}
        self._dropped_count = 0
        self._droppers: dict[str, None] = {}
        self._drops_due_s = 0.0
        """Time from which dropped data may be reported."""
        self._next_s: float | None = None

    # --- the room

    def connected(self, participants: Collection[RoomParticipant]) -> None:
        """Record that the gateway has joined the room, or is back in it."""
        if self._now.link is not RoomLink.CONNECTED:
            self._move(RoomLink.CONNECTED)
            self._now.connection += 1
        self.observe(participants)

    def disconnected(self, cause: RoomLossCause, error: GatewayError | None = None) -> None:
        """Record that the gateway is not in the room any more, or cannot join it.

        Args:
            cause: Cause.
            error: Error of REFUSED.
        """
        self._move(RoomLink.DISCONNECTED)
        self._now.loss = cause, "" if error is None else error.reason
        self._error = error

    def changing(self) -> None:
        """Record that the room is left for another one, to which the gateway is not connected yet."""
        if self._now.link is RoomLink.CONNECTED:
            self._move(RoomLink.JOINING)

    def observe(self, participants: Collection[RoomParticipant]) -> None:
        """Record the participants of the room, the gateway left out."""
        known = self._known.participants
        # Whoever is known keeps the place, and the avatars come before all others.
        ranked = sorted(
            participants, key=lambda one: (one.kind is not ParticipantKind.AVATAR, one.identity not in known)
        )
        self._now.participants = {one.identity: one for one in ranked[:MAX_PARTICIPANTS]}
        self._participant_count = len(participants)

    def note_viewers(self, present: bool | None) -> None:  # noqa: FBT001 - three values
        """Record if anybody can see the avatar; None if that could not be found out, which changes nothing."""
        if present is not None:
            self._now.viewers = present

    def _move(self, link: RoomLink) -> None:
        self._now.link = move(ROOM_LINK_TRANSITIONS, self._now.link, link)

    # --- data

    def receive(self, identity: str, topic: str, payload: bytes, now_s: float, *, is_followed: bool) -> bool:
        """Record a data message; return False if it was dropped.

        Args:
            identity: Sender.
            topic: Topic.
            payload: Content.
            now_s: Monotonic time.
            is_followed: True while a caller reads the events. Otherwise, no more than a burst is kept for one that
                comes back.
        """
        sender = self._senders.pop(identity, None) or _Budget(_MESSAGES_OF_ONE, _BYTES_OF_ONE)
        self._senders[identity] = sender
        if len(self._senders) > MAX_SENDERS:
            self._senders.pop(next(iter(self._senders)))
        budgets = (self._budget, sender)
        for budget in budgets:
            budget.advance(now_s, is_followed=is_followed)
        size_bytes = len(payload)
        if size_bytes > MAX_DATA_BYTES or not all(budget.has(size_bytes) for budget in budgets):
            self._dropped_count += 1
            if len(self._droppers) < _MAX_NAMED:
                self._droppers[identity] = None
            return False
        for budget in budgets:
            budget.take(size_bytes)
        self._data.append(DataReceived(identity, topic, payload))
        return True

    def dropped(self, count: int) -> None:
        """Record data messages that were dropped before they got here, of a sender that `receive` knows."""
        self._dropped_count += count

    # --- reports

    @property
    def next_s(self) -> float | None:
        """Time at which `take` has more to return, without any input; None without such a time."""
        return self._next_s

    def take(self, now_s: float) -> list[RoomEvent]:
        """Return the events that are due, oldest first; empty if nobody wants them."""
        if not self.is_wanted:
            return []
        self._changes.fill(now_s)
        events: list[RoomEvent] = []
        due_s: list[float] = []
        for change in self._differences():
            if not self._changes.has(1):
                due_s.append(now_s + self._changes.wait_s(1))
                break
            self._changes.take(1)
            events.append(change)
        events += self._data
        self._data.clear()
        if self._dropped_count and now_s >= self._drops_due_s:
            events.append(DataDropped(self._dropped_count, tuple(self._droppers)))
            self._dropped_count = 0
            self._droppers.clear()
            self._drops_due_s = now_s + _DROPS_S
        elif self._dropped_count:
            due_s.append(self._drops_due_s)
        self._next_s = min(due_s, default=None)
        return events

    def _differences(self) -> Iterator[RoomEvent]:
        """Yield changes one by one; a change counts as known once the next is asked for."""
        now, known = self._now, self._known
        if now.link is RoomLink.CONNECTED and (known.link, known.connection) != (now.link, now.connection):
            yield RoomConnected(tuple(now.participants.values()), self._participant_count)
            known.link, known.connection = now.link, now.connection
            known.participants = dict(now.participants)
        elif now.link is RoomLink.DISCONNECTED and (known.link, known.loss) != (now.link, now.loss):
            assert now.loss is not None  # noqa: S101 - recorded with the state
            yield RoomDisconnected(now.loss[0], self._error)
            known.link, known.loss = now.link, now.loss
        if now.link is RoomLink.CONNECTED:
            yield from self._differences_of_participants()
        if now.viewers is not None and now.viewers is not known.viewers:
            yield ViewersChanged(now.viewers)
            known.viewers = now.viewers

    def _differences_of_participants(self) -> Iterator[RoomEvent]:
        now, known = self._now.participants, self._known.participants
        for identity in [identity for identity in known if identity not in now]:
            yield ParticipantLeft(known[identity])
            del known[identity]
        for identity, participant in now.items():
            before = known.get(identity)
            if before is None:
                yield ParticipantJoined(participant)
            else:
                yield from _changes(before, participant)
            known[identity] = participant


def _changes(before: RoomParticipant, now: RoomParticipant) -> Iterable[RoomEvent]:
    if now.kind is ParticipantKind.AVATAR:
        if (before.has_audio, before.has_video) != (now.has_audio, now.has_video):
            yield AvatarTracksChanged(now.identity, now.has_audio, now.has_video)
    elif before.microphone is not now.microphone:
        yield MicrophoneChanged(now.identity, now.microphone)
