"""Spec of a session."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from liveavatar_gateway.core.abandonment import AbandonmentConfig
from liveavatar_gateway.rooms.access import AgoraRoom, BroughtRoom, Participant, Viewer
from liveavatar_gateway.upstream.connectors import Connector
from liveavatar_gateway.upstream.model import AvatarRequest

LISTENER: Final = "liveavatar-gateway"
"""Begin of the identities with which gateways hear users in callers' own rooms."""


class AgentSeat(StrEnum):
    """Holder of the agent's seat in the room of an avatar."""

    GATEWAY = "GATEWAY"
    """The gateway may join for its callers."""
    CALLER = "CALLER"
    """An agent of the caller's own joins, with a token that its caller is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitRoom:
    """LiveKit room of the caller's own; the gateway neither creates nor closes it."""

    name: str
    avatar_identity: str = "avatar"
    tenant: str = ""
    """Tenant whose LiveKit server has the room."""

    @property
    def agent_identity(self) -> str:
        """Identity of the caller's agent; as unique in the room as that of the avatar."""
        return f"{self.avatar_identity}-agent"

    def is_reserved(self, identity: str) -> bool:
        """Return whether an identity is one that avatars, the agent or a listening gateway have, now or later."""
        if identity in (self.avatar_identity, self.agent_identity):
            return True
        if identity.startswith(f"{LISTENER}-"):
            return True
        stem, dash, ordinal = identity.rpartition("-")
        return bool(dash) and stem == self.avatar_identity and ordinal.isdecimal()


@dataclass(frozen=True, slots=True)
class RoomEventsWish:
    """Events of the room that a caller wants, besides those of participants and viewers."""

    data_topics: tuple[str, ...] = ()
    """Topics of data messages; the empty topic selects messages without a topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """A caller's wishes for one session."""

    avatar: AvatarRequest
    """Request without a room; `avatar_request` adds it."""
    detach_grace_s: float
    """Time that the session lives without an attachment."""
    labels: Mapping[str, str] = field(default_factory=dict)
    livekit_room: LiveKitRoom | None = None
    """LiveKit room of the avatar; None for another kind of room."""
    auto_rotate: bool = False
    """True to let a fresh avatar take over before the limit of the one that speaks."""
    idle_timeout_s: float | None = None
    """Time without use after which the session ends; None for no such end."""
    viewer_absence_s: float | None = None
    """Time without a viewer in `livekit_room` after which the session ends; None for no such end."""
    agent_seat: AgentSeat = AgentSeat.GATEWAY
    viewers: tuple[Viewer, ...] = ()
    """Viewers that are given a token of their own; in `livekit_room` alone."""
    agora_room: AgoraRoom | None = None
    """Agora channel of the avatar; None for another kind of room."""
    brought_room: BroughtRoom | None = None
    """LiveKit room on a server of the caller's; None for another kind of room. Without all of them, LiveAvatar
    creates a room."""
    room_events: RoomEventsWish | None = None
    """Events of the room; None for none. They need the gateway in the room."""
    connector: Connector | None = None
    """Hosted agent that drives the avatar, in a room of LiveAvatar's; None if the caller speaks."""

    @property
    def abandonment(self) -> AbandonmentConfig:
        """Limits of a session that nobody uses."""
        return AbandonmentConfig(idle_s=self.idle_timeout_s, viewer_absence_s=self.viewer_absence_s)

    @property
    def has_own_room(self) -> bool:
        """True if LiveAvatar makes no room for the avatar."""
        return not (self.livekit_room is None and self.agora_room is None and self.brought_room is None)

    @property
    def gateway_has_seat(self) -> bool:
        """True if the gateway may join the room to hear its users.

        In a room of LiveAvatar's, the gateway and the caller's agent would have the same identity, and LiveKit
        would disconnect the earlier of the two. In `livekit_room` each has its own.
        An Agora channel is out of reach, and the seat beside a connector is the hosted agent's.
        """
        if self.agora_room is not None or self.connector is not None:
            return False
        return self.livekit_room is not None or self.agent_seat is AgentSeat.GATEWAY

    @property
    def without_secrets(self) -> "SessionSpec":
        """The spec for the registry, without tokens and without the words for a hosted agent.

        LiveAvatar needs these once, for the only avatar of such a session. The other tokens of a room on a server
        of the caller's are kept sealed, with the addresses of the avatar.
        """
        agora, brought, connector = self.agora_room, self.brought_room, self.connector
        if agora is not None:
            agora = replace(agora, token="")
        if brought is not None:
            brought = replace(brought, avatar_token="", listener_token="", viewer_token="")
        if connector is not None:
            connector = connector.without_secrets
        return replace(self, agora_room=agora, brought_room=brought, connector=connector)

    def avatar_request(self, ordinal: int) -> AvatarRequest:
        """Return the request for one avatar of the session.

        Args:
            ordinal: Number of the avatar, from 1. Two may be in the caller's own room for a while, so each has an
                identity of its own: plain, then with "-2", "-3" and so on.
        """
        if self.livekit_room is None:
            return replace(
                self.avatar,
                agora_room=self.agora_room,
                brought_room=self.brought_room,
                connector=self.connector,
            )
        own = self.livekit_room
        identity = own.avatar_identity if ordinal == 1 else f"{own.avatar_identity}-{ordinal}"
        agent = own.agent_identity if self.agent_seat is AgentSeat.CALLER else ""
        participant = Participant(room=own.name, identity=identity, tenant=own.tenant, agent=agent)
        return replace(self.avatar, participant=participant)
