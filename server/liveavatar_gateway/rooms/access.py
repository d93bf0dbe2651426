"""Rooms of avatars and access to them, as values. Secrets do not show in `repr`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Room of the caller's own, and the avatar's identity in it."""

    room: str
    identity: str
    """Unique in the room: LiveKit disconnects the earlier of two participants with the same identity."""
    tenant: str = ""
    """Tenant whose LiveKit server has the room."""
    agent: str = ""
    """Identity of the agent on whose behalf the avatar publishes; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgoraRoom:
    """Agora channel of the caller's own, and the avatar's place in it."""

    app_id: str
    channel: str
    uid: str
    """Unique in the channel."""
    token: str = field(default="", repr=False, compare=False)
    """Token with which the avatar joins. Not compared: the caller of a repeated request may have a fresh one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtRoom:
    """LiveKit room on a server of the caller's, with the tokens that the caller issued for it."""

    url: str
    name: str
    identity: str
    """Identity of the avatar."""
    avatar_token: str = field(default="", repr=False, compare=False)
    """Token with which the avatar joins. Not compared: the caller of a repeated request may have fresh tokens."""
    listener_token: str = field(default="", repr=False, compare=False)
    """Token with which the gateway joins to hear the users; empty without one."""
    viewer_token: str = field(default="", repr=False, compare=False)
    """Token for the callers of the session; empty without one."""

    @property
    def avatar_access(self) -> "LiveKitAccess":
        """Access with which LiveAvatar brings the avatar into the room."""
        return LiveKitAccess(url=self.url, room=self.name, token=self.avatar_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitAccess:
    """LiveKit room, and a token to join it."""

    url: str
    room: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Named viewer of the avatar in a room of the caller's own."""

    identity: str
    name: str = ""
    can_publish: bool = False
    lifetime_s: float = 3600.0
    """Time in which the viewer can join."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerAccess:
    """Token of one viewer."""

    identity: str
    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAccess:
    """Access of all who are to join the room of an avatar."""

    url: str
    viewer_token: str = field(repr=False)
    agent_token: str = field(default="", repr=False)
    """Token of the caller's own agent; empty without one."""
    viewers: Sequence[ViewerAccess] = ()
    """Tokens of the viewers that the spec names."""
