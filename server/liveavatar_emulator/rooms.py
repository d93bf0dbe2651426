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
_TOKEN_TTL_S = 25 * 3600
"""Longer than the longest session that the knobs allow."""


@dataclass(frozen=True, slots=True)
class OwnRoom:
    """The room a caller brought, and the token with which the avatar would join it."""

    url: str
    room: str
    avatar_token: str

    def __repr__(self) -> str:
        return f"OwnRoom(url={self.url!r}, room={self.room!r})"


@dataclass(frozen=True, slots=True)
class Seat:
    """Where the avatar joins: a server, a room, and its token."""

    url: str
    room: str
    owned: bool
    """Whether the room is made and removed with the session."""
    token: str

    def __repr__(self) -> str:
        return f"Seat(url={self.url!r}, room={self.room!r}, owned={self.owned})"


def grants_complete(room: OwnRoom) -> bool:
    """Whether the avatar's token names the room and says true, in so many words, to all four permissions."""
    try:
        video = claims_of(room.avatar_token).get("video")
    except BadToken:
        return False
    if not isinstance(video, dict) or video.get("room") != room.room:
        return False
    return all(video.get(grant) is True for grant in ("roomJoin", "canPublish", "canSubscribe", "canPublishData"))


def room_name(session_id: str, own: OwnRoom | None) -> str:
    """The caller's room, or the one that is the session's own."""
    return own.room if own else f"session-{session_id}"


def avatar_seat(session_id: str, own: OwnRoom | None, livekit: LiveKitServer) -> Seat:
    """Where and as whom a session's avatar joins: with the caller's token where the caller brought the room."""
    room = room_name(session_id, own)
    if own is not None:
        return Seat(url=own.url, room=room, owned=False, token=own.avatar_token)
    return Seat(url=livekit.url, room=room, owned=True, token=_token(livekit, AVATAR_IDENTITY, room))


def watcher_token(livekit: LiveKitServer, session_id: str, own: OwnRoom | None, identity: str) -> str:
    """A token that may see and hear a session's room and do nothing else.

    Nobody in the room is told of a watcher: agents take the first participant they meet for their user.
    Identities are unique in a room: a second participant of the same identity puts the first one out.
    """
    return _token(livekit, identity, room_name(session_id, own), watch_only=True)


def credentials(
    session_id: str, own: OwnRoom | None, now_utc_s: float, livekit: LiveKitServer | None = None
) -> dict[str, Any]:
    """The livekit_* fields of start's answer: url, a viewer's token and an agent's token.

    A caller's room gets real tokens only where it is on the configured server; nothing else can be signed for.
    """
    room = room_name(session_id, own)
    if livekit is not None and (own is None or own.url.rstrip("/") == livekit.url):
        return {
            "livekit_url": livekit.url,
            "livekit_client_token": _token(livekit, VIEWER_IDENTITY, room),
            "livekit_agent_token": _token(livekit, AGENT_IDENTITY, room),
        }
    return {
        "livekit_url": own.url if own else DUMMY_URL,
        "livekit_client_token": _dummy_token(VIEWER_IDENTITY, room, now_utc_s),
        "livekit_agent_token": _dummy_token(AGENT_IDENTITY, room, now_utc_s),
    }


def _token(livekit: LiveKitServer, identity: str, room: str, *, watch_only: bool = False) -> str:
    # Half a second of imports, which those without rooms need not pay.
    from livekit.api import AccessToken, VideoGrants  # noqa: PLC0415

    grants = VideoGrants(
        room_join=True,
        room=room,
        can_subscribe=True,
        can_publish=not watch_only,
        can_publish_data=not watch_only,
        hidden=watch_only,
    )
    token = AccessToken(livekit.api_key, livekit.api_secret).with_identity(identity).with_grants(grants)
    return token.with_ttl(timedelta(seconds=_TOKEN_TTL_S)).to_jwt()


def _dummy_token(identity: str, room: str, now_utc_s: float) -> str:
    grants = {
        "roomJoin": True,
        "room": room,
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": True,
    }
    issued = int(now_utc_s)
    return sign(
        {"iss": "emulator", "sub": identity, "nbf": issued, "exp": issued + _TOKEN_TTL_S, "video": grants},
        _DUMMY_SECRET,
    )
