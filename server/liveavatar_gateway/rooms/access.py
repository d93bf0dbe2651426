"""Access to a LiveKit room, as values. Secrets do not show in `repr`."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Room of the caller's own, and the avatar's identity in it."""

    room: str
    identity: str
    """Unique in the room: LiveKit disconnects the earlier of two participants with the same identity."""
    tenant: str = ""
    """Tenant whose LiveKit server has the room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitAccess:
    """LiveKit room, and a token to join it."""

    url: str
    room: str
    token: str = field(repr=False)
