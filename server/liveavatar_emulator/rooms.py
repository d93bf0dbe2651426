"""Room credentials in start's answer, and the check of a caller's own avatar token.

Without a LiveKit server there is no room behind the credentials: every field is filled, and joining will
fail.

Source: LiveAvatar API reference, start, and bring your own LiveKit: the avatar's token must carry five
explicit claims, or start fails with a bare HTTP 500.
"""

from dataclasses import dataclass
from typing import Any

from liveavatar_emulator.tokens import BadToken, claims_of, sign

DUMMY_URL = "wss://livekit.invalid"
_DUMMY_SECRET = b"no-livekit-behind-this-token"
_TOKEN_TTL_S = 6 * 3600


@dataclass(frozen=True, slots=True)
class OwnRoom:
    """The room a caller brought, and the token with which the avatar would join it."""

    url: str
    room: str
    avatar_token: str

    def __repr__(self) -> str:
        return f"OwnRoom(url={self.url!r}, room={self.room!r})"


def grants_complete(room: OwnRoom) -> bool:
    """Whether the avatar's token names the room and says true, in so many words, to all four permissions."""
    try:
        video = claims_of(room.avatar_token).get("video")
    except BadToken:
        return False
    if not isinstance(video, dict) or video.get("room") != room.room:
        return False
    return all(video.get(grant) is True for grant in ("roomJoin", "canPublish", "canSubscribe", "canPublishData"))


def credentials(session_id: str, own: OwnRoom | None, now_utc_s: float) -> dict[str, Any]:
    """The livekit_* fields of start's answer: url, a viewer's token and an agent's token."""
    room = own.room if own else f"session-{session_id}"
    return {
        "livekit_url": own.url if own else DUMMY_URL,
        "livekit_client_token": _dummy_token("viewer", room, now_utc_s),
        "livekit_agent_token": _dummy_token("agent", room, now_utc_s),
    }


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
