"""Events of the room in which an avatar appears, and the values in them."""

from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Final

from liveavatar_gateway.core.errors import GatewayError

MAX_DATA_BYTES: Final = 15 * 1024
"""Largest payload of a data message. Source: LiveKit's documentation, "Data packets", reliable delivery."""


@unique
class ParticipantKind(Enum):
    """Part that a participant plays in the room."""

    USER = "user"
    """Person with a browser, an app or a phone; or a program that does not say what it is."""
    AVATAR = "avatar"
    """Avatar of the session."""
    AGENT = "agent"
    """Program of LiveKit's kind AGENT that is not an avatar of the session."""
    OTHER = "other"
    """Ingress, egress and other programs."""


@unique
class Microphone(Enum):
    """Voice of a participant, as others hear it."""

    NONE = "none"
    """The participant publishes no voice."""
    MUTED = "muted"
    LIVE = "live"


@unique
class RoomLossCause(Enum):
    """Cause for which the gateway is not in the room."""

    LOST = "lost"
    """The connection was lost."""
    CLOSED = "closed"
    """The room was closed."""
    REMOVED = "removed"
    """Somebody put the gateway out, or joined with its identity."""
    REFUSED = "refused"
    """The room cannot be joined."""


@dataclass(frozen=True, slots=True)
class RoomParticipant:
    """Participant of a room."""

    identity: str
    name: str
    kind: ParticipantKind
    microphone: Microphone = Microphone.NONE
    has_video: bool = False
    """True while an avatar publishes video; False for all others."""

    @property
    def has_audio(self) -> bool:
        """True while the participant publishes a voice, muted or not."""
        return self.microphone is not Microphone.NONE


@dataclass(frozen=True, slots=True)
class RoomConnected:
    """The gateway is in the room: what callers knew of its participants is void."""

    participants: tuple[RoomParticipant, ...]
    """Participants whose changes are reported."""
    participant_count: int
    """Number of all participants, the gateway left out."""


@dataclass(frozen=True, slots=True)
class RoomDisconnected:
    """The gateway is not in the room: nothing is known of its participants until it is."""

    cause: RoomLossCause
    error: GatewayError | None = None
    """Error of REFUSED; None otherwise."""


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    """A participant joined."""

    participant: RoomParticipant


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    """A participant left."""

    participant: RoomParticipant


@dataclass(frozen=True, slots=True)
class MicrophoneChanged:
    """A participant other than an avatar published, muted, unmuted or withdrew its voice."""

    identity: str
    microphone: Microphone


@dataclass(frozen=True, slots=True)
class AvatarTracksChanged:
    """An avatar published or withdrew its audio or its video."""

    identity: str
    has_audio: bool
    has_video: bool


@dataclass(frozen=True, slots=True)
class ViewersChanged:
    """Somebody can see the avatar, or nobody can."""

    present: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    """A participant sent data to the room or to the gateway."""

    identity: str
    """Sender; empty for a program that used LiveKit's server API or is hidden, and for a participant that is not
    reported yet."""
    topic: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DataDropped:
    """Data messages were dropped: they came too fast, or were too large."""

    count: int
    identities: tuple[str, ...]
    """Some of the senders."""


RoomEvent = (
    RoomConnected
    | RoomDisconnected
    | ParticipantJoined
    | ParticipantLeft
    | MicrophoneChanged
    | AvatarTracksChanged
    | ViewersChanged
    | DataReceived
    | DataDropped
)
