"""What a caller asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from liveavatar_gateway.rooms.access import Participant
from liveavatar_gateway.upstream.model import AvatarRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitRoom:
    """A LiveKit room of the caller's own; the gateway neither makes it nor closes it."""

    name: str
    avatar_identity: str = "avatar"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """What a caller asked for."""

    avatar: AvatarRequest
    """Without a participant, which `avatar_request` adds."""
    detach_grace_s: float
    """How long it lives while nobody holds it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    livekit_room: LiveKitRoom | None = None
    """Where the avatar appears; None for a room that LiveAvatar makes."""
    auto_rotate: bool = False
    """Whether a fresh avatar takes over before the limit of the one that speaks."""

    def avatar_request(self, turn: int) -> AvatarRequest:
        """What to ask LiveAvatar for.

        Args:
            turn: Which of the session's avatars it is, from 1. Two of them may be in an own room for a while, so
                each has an identity of its own: plain, then with "-2", "-3" and so on.
        """
        if self.livekit_room is None:
            return self.avatar
        own = self.livekit_room
        identity = own.avatar_identity if turn == 1 else f"{own.avatar_identity}-{turn}"
        return replace(self.avatar, participant=Participant(room=own.name, identity=identity))
