"""Rooms and their tokens: in start's response, for the avatar, and for observers.

With a LiveKit server, each session has its own room there and every token is real. Without a server every field is
filled, but no room exists and joining fails.

Source: LiveAvatar API reference, start, rooms, and bring your own LiveKit: the avatar is `heygen` in rooms of the
service; the viewer's token may publish, subscribe and send data; the avatar's token from a caller must carry five
explicit claims, or start fails with a bare HTTP 500.
"""

import hashlib
from dataclasses import dataclass, field
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
"""Validity of the avatar's own token, which never leaves the emulator. Longer than any session."""
TOKEN_SLACK_S = 60
"""Validity of viewers' and agents' tokens beyond the session's limit, for differing clocks."""


@dataclass(frozen=True, slots=True)
class LiveKitRoom:
    """Room of a caller, with the token with which the avatar joins it."""

    url: str
    room: str
    avatar_token: str

    def __repr__(self) -> str:
        return f"LiveKitRoom(url={self.url!r}, room={self.room!r})"


@dataclass(frozen=True, slots=True)
class AgoraRoom:
    """Agora channel of a caller, with the token with which an avatar would join it."""

    app_id: str
    channel: str
    uid: str
    avatar_token: str = field(repr=False)

    def row(self) -> dict[str, Any]:
        """Return the channel for the control API; the digest shows that the token arrived unchanged."""
        digest = hashlib.sha256(self.avatar_token.encode()).hexdigest()
        return {"app_id": self.app_id, "channel": self.channel, "uid": self.uid, "token_sha256": digest}


@dataclass(frozen=True, slots=True)
class RoomAccess:
    """Server, room and token with which the avatar joins."""

    url: str
    room: str
    owned: bool
    """True if the room is created and deleted with the session."""
    token: str
    tokens_valid_s: float
    """Longest validity of any token for the room, in seconds from now."""

    def __repr__(self) -> str:
        return f"RoomAccess(url={self.url!r}, room={self.room!r}, owned={self.owned})"


def grants_complete(room: LiveKitRoom) -> bool:
    """Return whether the avatar's token names the room and grants all four permissions explicitly."""
    try:
        video = claims_of(room.avatar_token).get("video")
    except BadToken:
        return False
    if not isinstance(video, dict) or video.get("room") != room.room:
        return False
    return all(video.get(grant) is True for grant in ("roomJoin", "canPublish", "canSubscribe", "canPublishData"))


def room_name(session_id: str, own: LiveKitRoom | None) -> str:
    """Return the name of the caller's room, or of the session's own room."""
    return own.room if own else f"session-{session_id}"


def tokens_valid_s(limit_s: float) -> float:
    """Return the validity of viewers' and agents' tokens of a session, in seconds from its start."""
    return limit_s + TOKEN_SLACK_S


def avatar_access(session_id: str, own: LiveKitRoom | None, livekit: LiveKitServer, limit_s: float) -> RoomAccess:
    """Return the avatar's access to its room, with the caller's token for a room of the caller."""
    room = room_name(session_id, own)
    valid_s = tokens_valid_s(limit_s)
    if own is not None:
        return RoomAccess(own.url, room, owned=False, token=own.avatar_token, tokens_valid_s=valid_s)
    token = _token(livekit, AVATAR_IDENTITY, room, AVATAR_TTL_S)
    return RoomAccess(livekit.url, room, owned=True, token=token, tokens_valid_s=valid_s)


def observer_token(
    livekit: LiveKitServer, session_id: str, own: LiveKitRoom | None, identity: str, limit_s: float
) -> str:
    """Return a token that may only see and hear a session's room.

    An observer is hidden from participants, because agents take the first participant they meet for their user.
    Identities are unique in a room: a second participant of the same identity disconnects the first.
    """
    return _token(livekit, identity, room_name(session_id, own), tokens_valid_s(limit_s), hidden=True)


def credentials(
    session_id: str,
    own: LiveKitRoom | None,
    now_utc_s: float,
    limit_s: float,
    livekit: LiveKitServer | None = None,
) -> dict[str, Any]:
    """Return the livekit_* fields of start's response: url, a viewer's token and an agent's token.

    The tokens expire with the session's limit; the room of a session that ends earlier is kept deleted, see
    `avatar/room_service.py`.

    A caller's room gets real tokens only on the configured server, the only server whose key is known.
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
    # The import takes half a second, so it is made only for rooms.
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
