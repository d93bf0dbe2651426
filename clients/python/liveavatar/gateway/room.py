"""Room of an avatar as plain values: its participants, and the request for its events."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from liveavatar.gateway.v1 import room_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomEvents:
    """Request for the events of the avatar's room, for `SessionOptions.room_events`."""

    data_topics: Sequence[str] = ()
    """Topics of the data messages that become a `DataReceivedEvent`, at most 16; "" selects messages without a
    topic."""

    def to_proto(self) -> room_pb2.RoomEvents:
        """Return the gateway's message.

        Raises:
            TypeError: a text in place of a sequence of texts.
        """
        if isinstance(self.data_topics, str):
            raise TypeError("data_topics must be a sequence of topics, not a text")
        return room_pb2.RoomEvents(data_topics=self.data_topics)


class ParticipantKind(enum.StrEnum):
    """Part that a participant plays in the room."""

    UNKNOWN = "unknown"
    """Kind of a newer gateway."""
    USER = "user"
    """Person with a browser, an app or a phone."""
    AVATAR = "avatar"
    """Avatar of the session."""
    AGENT = "agent"
    """Program of LiveKit's kind AGENT that is not an avatar of the session."""
    OTHER = "other"
    """Ingress, egress and other programs."""


class MicrophoneState(enum.StrEnum):
    """Voice of a participant, as others hear it."""

    UNKNOWN = "unknown"
    """State of a newer gateway."""
    NONE = "none"
    """The participant publishes no voice."""
    MUTED = "muted"
    """The participant has muted its voice."""
    LIVE = "live"
    """The participant can be heard."""


class RoomDisconnectCause(enum.StrEnum):
    """Cause for which the gateway is not in the room."""

    UNKNOWN = "unknown"
    """Cause of a newer gateway."""
    LOST = "lost"
    """The connection was lost."""
    CLOSED = "closed"
    """The room was closed."""
    REMOVED = "removed"
    """Somebody put the gateway out of the room, or joined with its identity."""
    REFUSED = "refused"
    """The room cannot be joined; `error` holds the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomParticipant:
    """Participant of the avatar's room."""

    identity: str
    """Identity, unique in the room."""
    name: str
    """Name for people; often empty."""
    kind: ParticipantKind
    """Part that it plays."""
    microphone: MicrophoneState
    """Its voice."""
    has_video: bool
    """True while an avatar publishes its video; False for all others."""

    @classmethod
    def from_proto(cls, message: room_pb2.RoomParticipant) -> Self:
        """Convert the gateway's message."""
        return cls(
            identity=message.identity,
            name=message.name,
            kind=_KINDS.get(message.kind, ParticipantKind.UNKNOWN),
            microphone=microphone_from_proto(message.microphone),
            has_video=message.has_video,
        )


_KINDS: Mapping[int, ParticipantKind] = {
    room_pb2.PARTICIPANT_KIND_USER: ParticipantKind.USER,
    room_pb2.PARTICIPANT_KIND_AVATAR: ParticipantKind.AVATAR,
    room_pb2.PARTICIPANT_KIND_AGENT: ParticipantKind.AGENT,
    room_pb2.PARTICIPANT_KIND_OTHER: ParticipantKind.OTHER,
}
_MICROPHONES: Mapping[int, MicrophoneState] = {
    room_pb2.MICROPHONE_STATE_NONE: MicrophoneState.NONE,
    room_pb2.MICROPHONE_STATE_MUTED: MicrophoneState.MUTED,
    room_pb2.MICROPHONE_STATE_LIVE: MicrophoneState.LIVE,
}
_CAUSES: Mapping[int, RoomDisconnectCause] = {
    room_pb2.ROOM_DISCONNECT_CAUSE_LOST: RoomDisconnectCause.LOST,
    room_pb2.ROOM_DISCONNECT_CAUSE_CLOSED: RoomDisconnectCause.CLOSED,
    room_pb2.ROOM_DISCONNECT_CAUSE_REMOVED: RoomDisconnectCause.REMOVED,
    room_pb2.ROOM_DISCONNECT_CAUSE_REFUSED: RoomDisconnectCause.REFUSED,
}


def microphone_from_proto(number: int) -> MicrophoneState:
    """Return the state of a number; UNKNOWN for a state of a newer contract."""
    return _MICROPHONES.get(number, MicrophoneState.UNKNOWN)


def disconnect_cause_from_proto(number: int) -> RoomDisconnectCause:
    """Return the cause of a number; UNKNOWN for a cause of a newer contract."""
    return _CAUSES.get(number, RoomDisconnectCause.UNKNOWN)
