"""Rooms and the tokens for them: in start's answer, for the avatar itself, and for those who only watch.

With a LiveKit server, a session has a room of its own there and every token is real. Without one there is no
room behind the credentials: every field is filled, and joining will fail.

Source: LiveAvatar API reference, start, rooms, and bring your own LiveKit: the avatar is `heygen` in rooms of
the service; the viewer's token may publish, subscribe and send data; the avatar's own token of a caller must
carry five explicit claims, or start fails with a bare HTTP 500.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from liveavatar_emulator.config import LiveKitServer
from liveavatar_emulator.tokens import BadToken, claims_of, sign

AVATAR_IDENTITY = "heygen"
VIEWER_IDENTITY = "viewer"
AGENT_IDENTITY = "agent"

DUMMY_URL = "wss://livekit.invalid"
_DUMMY_SECRET = b"no-livekit-behind-this-token"
AVATAR_TTL_S = 25 * 3600
"""Validity of the avatar's own token, which leaves the emulator for nobody. Longer than any session."""
TOKEN_SLACK_S = 60
"""Validity of viewers' and agents' tokens beyond the session's limit, for clocks that differ."""


@dataclass(frozen=True, slots=True)
class LiveKitRoom:
    """The room a caller brought, and the token with which the avatar would join it."""

    url: str
    room: str
    avatar_token: str

    def __repr__(self) -> str:
        return f"LiveKitRoom(url={self.url!r}, room={self.room!r})"


@dataclass(frozen=True, slots=True)
class RoomAccess:
    """Where the avatar joins: a server, a room, and its token."""

    url: str
    room: str
    owned: bool
    """Whether the room is made and removed with the session."""
    token: str
    tokens_valid_s: float
    """Longest time for which somebody may hold a valid token for the room, seconds from now."""

    def __repr__(self) -> str:
        return f"RoomAccess(url={self.url!r}, room={self.room!r}, owned={self.owned})"


def grants_complete(room: LiveKitRoom) -> bool:
    """Whether the avatar's token names the room and says true, in so many words, to all four permissions."""
    try:
        video = claims_of(room.avatar_token).get("video")
    except BadToken:
        return False
    if not isinstance(video, dict) or video.get("room") != room.room:
        return False
    return all(video.get(grant) is True for grant in ("roomJoin", "canPublish", "canSubscribe", "canPublishData"))


def room_name(session_id: str, own: LiveKitRoom | None) -> str:
    """The caller's room, or the one that is the session's own."""
    return own.room if own else f"session-{session_id}"


def tokens_valid_s(limit_s: float) -> float:
    """Return how long viewers' and agents' tokens of a session are valid, seconds from its start."""
    return limit_s + TOKEN_SLACK_S


def avatar_access(session_id: str, own: LiveKitRoom | None, livekit: LiveKitServer, limit_s: float) -> RoomAccess:
    """Where and as whom a session's avatar joins: with the caller's token where the caller brought the room."""
    room = room_name(session_id, own)
    valid_s = tokens_valid_s(limit_s)
    if own is not None:
        return RoomAccess(own.url, room, owned=False, token=own.avatar_token, tokens_valid_s=valid_s)
    token = _token(livekit, AVATAR_IDENTITY, room, AVATAR_TTL_S)
    return RoomAccess(livekit.url, room, owned=True, token=token, tokens_valid_s=valid_s)


def observer_token(
    livekit: LiveKitServer, session_id: str, own: LiveKitRoom | None, identity: str, limit_s: float
) -> str:
    """A token that may see and hear a session's room and do nothing else.

    Nobody in the room is told of a watcher: agents take the first participant they meet for their user.
    Identities are unique in a room: a second participant of the same identity puts the first one out.
    """
    return _token(livekit, identity, room_name(session_id, own), tokens_valid_s(limit_s), hidden=True)


def credentials(
    session_id: str,
    own: LiveKitRoom | None,
    now_utc_s: float,
    limit_s: float,
    livekit: LiveKitServer | None = None,
) -> dict[str, Any]:
    """The livekit_* fields of start's answer: url, a viewer's token and an agent's token.

    The tokens end with the session's limit; one that ends sooner has its room kept closed, see `avatar/host.py`.

    A caller's room gets real tokens only where it is on the configured server; nothing else can be signed for.
    """
    room = room_name(session_id, own)
    valid_s = tokens_valid_s(limit_s)
    if livekit is not None and (own is None or own.url.rstrip("/") == livekit.url):
        return {
            "livekit_url": livekit.url,
            "livekit_client_token": _token(livekit, VIEWER_IDENTITY, room, valid_s),
            "livekit_agent_token": _token(livekit, AGENT_IDENTITY, room, valid_s),
        }
    return {
        "livekit_url": own.url if own else DUMMY_URL,
        "livekit_client_token": _dummy_token(VIEWER_IDENTITY, room, now_utc_s, valid_s),
        "livekit_agent_token": _dummy_token(AGENT_IDENTITY, room, now_utc_s, valid_s),
    }


def _token(livekit: LiveKitServer, identity: str, room: str, valid_s: float, *, hidden: bool = False) -> str:
    # Half a second of imports, which those without rooms need not pay.
    from livekit.api import AccessToken, VideoGrants  # noqa: PLC0415

    grants = VideoGrants(
        room_join=True,
        room=room,
        can_subscribe=True,
        can_publish=not hidden,
        can_publish_data=not hidden,
        hidden=hidden,
    )
    token = AccessToken(livekit.api_key, livekit.api_secret).with_identity(identity).with_grants(grants)
    return token.with_ttl(timedelta(seconds=valid_s)).to_jwt()


def _dummy_token(identity: str, room: str, now_utc_s: float, valid_s: float) -> str:
    grants = {
        "roomJoin": True,
        "room": room,
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": True,
    }
    issued = int(now_utc_s)
    return sign(
        {"iss": "emulator", "sub": identity, "nbf": issued, "exp": issued + int(valid_s), "video": grants},
        _DUMMY_SECRET,
    )
