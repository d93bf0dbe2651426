"""Tokens for callers' own LiveKit rooms: for the avatar, agents, viewers, and the gateway that hears users."""

import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from liveavatar_gateway.rooms.access import LiveKitAccess, Participant, Viewer, ViewerAccess

VIEWER_TTL: Final = timedelta(hours=1)
"""Time in which a viewer must join. LiveKit renews the tokens of participants in the room."""
_LONGEST_SESSION: Final = timedelta(hours=24)
"""Lifetime if the plan sets the limit, which is unknown before the start. Far above the limit of any plan."""
_SPARE: Final = timedelta(minutes=10)
"""Allowance for the time between mint and start, and for clock differences."""
_ON_BEHALF_OF: Final = "lk.publish_on_behalf"
"""Attribute by which LiveKit's user interfaces show an avatar and its agent as one participant.

Source: LiveKit Agents, `ATTRIBUTE_PUBLISH_ON_BEHALF`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitConfig:
    """LiveKit server, and the key that signs its tokens."""

    url: str
    """Address that LiveAvatar and browsers can reach, `wss://...`."""
    api_key: str = field(repr=False)
    api_secret: str = field(repr=False)


class LiveKitRooms:
    """Signs tokens without contacting a server. LiveKit creates a room when the first participant joins."""

    def __init__(self, config: LiveKitConfig) -> None:
        # The import takes half a second: paid at start, and only with a LiveKit server.
        import livekit.api  # noqa: F401, PLC0415

        self._config = config

    @property
    def config(self) -> LiveKitConfig:
        """Server and key as they are now."""
        return self._config

    def use_secret(self, secret: str) -> bool:
        """Sign with another secret from now on; return False if the secret is the same."""
        changed = secret != self._config.api_secret
        self._config = replace(self._config, api_secret=secret)
        return changed

    def avatar(self, participant: Participant, *, max_duration_s: int | None) -> LiveKitAccess:
        """Return the access with which LiveAvatar brings the avatar into a room.

        All grants are explicit. LiveKit treats an omitted grant as allowed, but LiveAvatar's start then fails with
        HTTP 500. LiveKit's own components recognize an avatar by the kind. The token outlives the session, so that
        the avatar can rejoin after a lost connection.

        Args:
            participant: Room, and the avatar's identity in it.
            max_duration_s: Limit of the session; None if the plan's limit applies.

        Source: LiveAvatar's guide "Custom LiveKit agent", and the official plugin for LiveKit Agents.
        """
        return self._access(participant, _ttl(max_duration_s), kind="agent", publishes=True)

    def viewer(self, room: str) -> LiveKitAccess:
        """Return the access with which a browser can watch and listen, with a unique identity."""
        participant = Participant(room=room, identity=f"viewer-{uuid.uuid4().hex[:12]}")
        return self._access(participant, VIEWER_TTL, kind="standard", publishes=False)

    def listener(self, participant: Participant) -> LiveKitAccess:
        """Return the access with which the gateway hears the users of a room.

        It is hidden from participants, as agents take the first participant they meet for their user. It is of
        the kind of agents, so that nothing takes it for a viewer. It may publish no tracks, and send data for its
        callers. Each join has a fresh token.

        Args:
            participant: Room, and the gateway's identity in it.
        """
        return self._access(participant, VIEWER_TTL, kind="agent", publishes=False, sends_data=True, hidden=True)

    def named_viewer(self, room: str, viewer: Viewer, *, now: datetime) -> ViewerAccess:
        """Return the access of a viewer that the caller names; it may only watch and listen unless it may publish.

        Args:
            room: Name of the room.
            viewer: The viewer.
            now: Present time, UTC.
        """
        ttl = timedelta(seconds=viewer.lifetime_s)
        participant = Participant(room=room, identity=viewer.identity)
        access = self._access(participant, ttl, kind="standard", publishes=viewer.can_publish, name=viewer.name)
        return ViewerAccess(identity=viewer.identity, token=access.token, expires_at=now + ttl)

    def agent(self, room: str, identity: str, *, max_duration_s: int | None) -> str:
        """Return the token with which an agent of the caller's own joins a room beside the avatar.

        Args:
            room: Name of the room.
            identity: Identity of the agent.
            max_duration_s: Limit of the session; None if the plan's limit applies.
        """
        participant = Participant(room=room, identity=identity)
        return self._access(participant, _ttl(max_duration_s), kind="agent", publishes=True).token

    def _access(
        self,
        participant: Participant,
        ttl: timedelta,
        *,
        kind: Literal["standard", "agent"],
        publishes: bool,
        sends_data: bool = False,
        hidden: bool = False,
        name: str = "",
    ) -> LiveKitAccess:
        from livekit.api import AccessToken, VideoGrants  # noqa: PLC0415 - see above

        grants = VideoGrants(
            room_join=True,
            room=participant.room,
            can_subscribe=True,
            can_publish=publishes,
            can_publish_data=publishes or sends_data,
            # Absent otherwise: LiveAvatar and LiveKit look at the claims that are there.
            hidden=True if hidden else None,
        )
        token = (
            AccessToken(self._config.api_key, self._config.api_secret)
            .with_identity(participant.identity)
            .with_kind(kind)
            .with_grants(grants)
            .with_ttl(ttl)
        )
        if name:
            token = token.with_name(name)
        if participant.agent:
            token = token.with_attributes({_ON_BEHALF_OF: participant.agent})
        return LiveKitAccess(url=self._config.url, room=participant.room, token=token.to_jwt())


def _ttl(max_duration_s: int | None) -> timedelta:
    """Return the validity of tokens that have to outlive a session."""
    return _LONGEST_SESSION if max_duration_s is None else timedelta(seconds=max_duration_s) + _SPARE
