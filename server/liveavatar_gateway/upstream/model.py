"""Values of requests to LiveAvatar and of its answers. Secrets do not show in `repr`."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from liveavatar_gateway.rooms.access import AgoraRoom, BroughtRoom, Participant
from liveavatar_gateway.upstream.bounds import session_seconds
from liveavatar_gateway.upstream.connectors import Connector


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarRequest:
    """Parameters of a session. Source: docs.liveavatar.com OpenAPI schema, POST /v1/sessions/token."""

    avatar_id: str
    """UUID of the avatar."""
    sandbox: bool = False
    """True for LiveAvatar's sandbox: no credits, at most 60 s, only the sandbox avatar."""
    quality: str = "high"
    """very_high (1080p), high (720p), medium (480p) or low (360p)."""
    encoding: str = "H264"
    """H264 or VP8."""
    max_duration_s: int | None = None
    """Limit of the session; None for the plan's limit."""
    participant: Participant | None = None
    """Place of the avatar in a room of the caller's own; None for a room that LiveAvatar makes."""
    agora_room: AgoraRoom | None = None
    """Place of the avatar in an Agora channel of the caller's own; None for a LiveKit room."""
    brought_room: BroughtRoom | None = None
    """Room on a LiveKit server of the caller's; None for another kind of room."""
    connector: Connector | None = None
    """Hosted agent that drives the avatar; None if the gateway does, over a command socket."""

    @property
    def has_own_room(self) -> bool:
        """True if LiveAvatar makes no room for the avatar."""
        return not (self.participant is None and self.agora_room is None and self.brought_room is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """Session that exists but is not billed yet."""

    session_id: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Session that has been started and is billed."""

    session_id: str
    ws_url: str = field(repr=False)
    """Address of the command socket; empty if a hosted agent drives the avatar. A bearer secret that never leaves
    the gateway."""
    room_url: str
    viewer_token: str = field(repr=False)
    agent_token: str = field(default="", repr=False)
    """Token of the one agent's seat in a room of LiveAvatar's; empty if there is none."""
    max_duration_s: float | None
    """Limit that applies from the start; None if LiveAvatar named none, or an impossible one."""

    def __post_init__(self) -> None:
        """Drop an impossible limit, which may also come from a registry written by an earlier version."""
        object.__setattr__(self, "max_duration_s", session_seconds(self.max_duration_s))

    def expires_at(self, started_at: datetime) -> datetime | None:
        """Return the end of a session that was started at a time; None without a limit."""
        return None if self.max_duration_s is None else started_at + timedelta(seconds=self.max_duration_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStatus:
    """State of a session in LiveAvatar's records."""

    over: bool
    reason: str = ""
    """LiveAvatar's reason for the end; empty if it names none, or the session is not over."""
