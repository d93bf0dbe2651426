"""Spec of a session."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from liveavatar_gateway.core.abandonment import AbandonmentConfig
from liveavatar_gateway.rooms.access import Participant
from liveavatar_gateway.upstream.model import AvatarRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitRoom:
    """LiveKit room of the caller's own; the gateway neither creates nor closes it."""

    name: str
    avatar_identity: str = "avatar"
    tenant: str = ""
    """Tenant whose LiveKit server has the room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """A caller's wishes for one session."""

    avatar: AvatarRequest
    """Request without a participant; `avatar_request` adds one."""
    detach_grace_s: float
    """Time that the session lives without an attachment."""
    labels: Mapping[str, str] = field(default_factory=dict)
    livekit_room: LiveKitRoom | None = None
    """Room of the avatar; None for a room that LiveAvatar creates."""
    auto_rotate: bool = False
    """True to let a fresh avatar take over before the limit of the one that speaks."""
    idle_timeout_s: float | None = None
    """Time without use after which the session ends; None for no such end."""
    viewer_absence_s: float | None = None
    """Time without a viewer in `livekit_room` after which the session ends; None for no such end."""

    @property
    def abandonment(self) -> AbandonmentConfig:
        """Limits of a session that nobody uses."""
        return AbandonmentConfig(idle_s=self.idle_timeout_s, viewer_absence_s=self.viewer_absence_s)

    def avatar_request(self, ordinal: int) -> AvatarRequest:
        """Return the request for one avatar of the session.

        Args:
            ordinal: Number of the avatar, from 1. Two may be in the caller's own room for a while, so each has an
                identity of its own: plain, then with "-2", "-3" and so on.
        """
        if self.livekit_room is None:
            return self.avatar
        own = self.livekit_room
        identity = own.avatar_identity if ordinal == 1 else f"{own.avatar_identity}-{ordinal}"
        return replace(self.avatar, participant=Participant(room=own.name, identity=identity, tenant=own.tenant))
