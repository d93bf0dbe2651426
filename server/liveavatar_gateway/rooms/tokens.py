"""Tokens for rooms of the callers' own: one for the avatar, one for each viewer."""

import uuid
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Literal

from liveavatar_gateway.upstream.model import LiveKitAccess, Participant

VIEWER_TTL: Final = timedelta(hours=1)
"""How long a viewer has to join. Whoever is in the room stays: LiveKit renews the token of a participant."""
_LONGEST_SESSION: Final = timedelta(hours=24)
"""For sessions whose limit is the plan's, which only the start tells. Far above any plan's."""
_SPARE: Final = timedelta(minutes=10)
"""Between the mint and the end of the start, and for clocks that differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitConfig:
    """A LiveKit server, and what signs tokens for it."""

    url: str
    """Where LiveAvatar and browsers reach it, `wss://...`: both must."""
    api_key: str = field(repr=False)
    api_secret: str = field(repr=False)


class LiveKitRooms:
    """Signs tokens; speaks to no server. A room is made by LiveKit when the first participant joins."""

    def __init__(self, config: LiveKitConfig) -> None:
        # Half a second of imports: paid when the gateway starts, and only where there are such rooms.
        import livekit.api  # noqa: F401, PLC0415

        self._config = config

    def use_secret(self, secret: str) -> bool:
        """Sign with another secret from now on; returns whether it is another."""
        changed = secret != self._config.api_secret
        self._config = replace(self._config, api_secret=secret)
        return changed

    def avatar(self, seat: Participant, *, max_duration_s: int | None) -> LiveKitAccess:
        """Make what LiveAvatar needs to bring the avatar in.

        All grants are written out. LiveKit takes one that is left out for allowed, but LiveAvatar's start then
        fails with HTTP 500. The kind is what LiveKit's own components look for to find an avatar. The token
        outlives the session, so that the avatar can join again after a loss.

        Args:
            seat: The room, and who the avatar is there.
            max_duration_s: The session's limit; None when the plan's applies.

        Source: LiveAvatar's guide "Custom LiveKit agent", and the official plugin for LiveKit Agents.
        """
        lasts = _LONGEST_SESSION if max_duration_s is None else timedelta(seconds=max_duration_s) + _SPARE
        return self._access(seat, lasts, kind="agent", speaks=True)

    def viewer(self, room: str) -> LiveKitAccess:
        """Make what a browser needs to see and hear, and no more; nobody else has its identity."""
        seat = Participant(room=room, identity=f"viewer-{uuid.uuid4().hex[:12]}")
        return self._access(seat, VIEWER_TTL, kind="standard", speaks=False)

    def _access(
        self, seat: Participant, lasts: timedelta, *, kind: Literal["standard", "agent"], speaks: bool
    ) -> LiveKitAccess:
        from livekit.api import AccessToken, VideoGrants  # noqa: PLC0415 - see above

        grants = VideoGrants(
            room_join=True,
            room=seat.room,
            can_subscribe=True,
            can_publish=speaks,
            can_publish_data=speaks,
        )
        token = (
            AccessToken(self._config.api_key, self._config.api_secret)
            .with_identity(seat.identity)
            .with_kind(kind)
            .with_grants(grants)
            .with_ttl(lasts)
            .to_jwt()
        )
        return LiveKitAccess(url=self._config.url, room=seat.room, token=token)
