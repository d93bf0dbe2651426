"""What the gateway asks LiveAvatar for and gets, as values. Secrets do not show in `repr`."""

from dataclasses import dataclass, field

from liveavatar_gateway.upstream.bounds import session_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Who the avatar is in a room of the caller's own."""

    room: str
    identity: str
    """Nobody else in the room may have it: LiveKit puts the earlier of two out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarRequest:
    """What to mint a session token for. Source: docs.liveavatar.com OpenAPI schema, POST /v1/sessions/token."""

    avatar_id: str
    """UUID of the avatar."""
    sandbox: bool = False
    """No credits, at most 60 s, the sandbox avatar only."""
    quality: str = "high"
    """very_high (1080p), high (720p), medium (480p) or low (360p)."""
    encoding: str = "H264"
    """H264 or VP8."""
    max_duration_s: int | None = None
    """Limit of the session; None leaves it to the plan."""
    seat: Participant | None = None
    """Where the avatar appears; None for a room that LiveAvatar makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitAccess:
    """A room to join, and the token that does."""

    url: str
    room: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A session that exists and is not billed yet."""

    session_id: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A session that is billed from now on."""

    session_id: str
    ws_url: str = field(repr=False)
    """Address of the command socket: a bearer secret, it never leaves the gateway."""
    room_url: str
    viewer_token: str = field(repr=False)
    max_duration_s: float | None
    """The limit that applies, from the start; None when LiveAvatar did not say, or said what cannot be true."""

    def __post_init__(self) -> None:
        """Drop an impossible limit, which may also come from a registry that an earlier version wrote."""
        object.__setattr__(self, "max_duration_s", session_seconds(self.max_duration_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStatus:
    """What LiveAvatar's record says about a session."""

    over: bool
    reason: str = ""
    """LiveAvatar's own word for its end; empty when it has none, or is not over."""
