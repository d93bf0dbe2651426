"""Viewers of a session in a LiveKit room of the caller's own: their tokens, and those that are kept out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    InvalidField,
    RoomNotAllowed,
    RoomNotOwn,
    RoomUnreachable,
)
from liveavatar_gateway.rooms.access import Viewer, ViewerAccess
from liveavatar_gateway.rooms.audience import AudienceUnknown, Occupant
from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.sessions.spec import LiveKitRoom, SessionSpec

if TYPE_CHECKING:
    from liveavatar_gateway.sessions.session import SessionActor

MAX_LIFETIME_S: Final = 86_400.0
"""Longest validity of a viewer's token."""
_NOT_PUT_OUT: Final = "its LiveKit server did not put the viewer out yet, and the gateway keeps trying"
MAX_REMOVED: Final = 64
"""Largest number of viewers that one session keeps out at once."""
_KEPT_OUT: Final = timedelta(seconds=MAX_LIFETIME_S) + timedelta(minutes=10)
"""Time for which a viewer is kept out: up to the end of the last token that it may have. LiveKit gives
participants tokens that are valid for ten minutes, with which they can rejoin."""


class RoomControl(Protocol):
    """Rooms of callers, see `Audience`."""

    async def occupants(self, room: str, *, tenant: str) -> Sequence[Occupant]:
        """Return the participants of a room; raises `AudienceUnknown`."""

    async def remove(self, room: str, identity: str, *, tenant: str) -> None:
        """Put a participant out of a room; raises `AudienceUnknown`."""


class SessionViewers:
    """Viewers of one session."""

    def __init__(
        self,
        session_id: str,
        spec: SessionSpec,
        servers: RoomServers,
        *,
        removed: Mapping[str, datetime],
        utc_now: Callable[[], datetime],
    ) -> None:
        """Begin without removed viewers, or with those of a process that is gone.

        Args:
            session_id: The session.
            spec: The caller's wishes.
            servers: LiveKit servers, by tenant.
            removed: Identities that are kept out, and until when.
            utc_now: Source of the wall clock's time.
        """
        self._session_id = session_id
        self._spec = spec
        self._servers = servers
        self._removed = dict(removed)
        self._utc_now = utc_now

    @property
    def removed(self) -> Mapping[str, datetime]:
        """Identities that are kept out now, and until when."""
        if self._removed:
            now = self._utc_now()
            self._removed = {identity: until for identity, until in self._removed.items() if until > now}
        return self._removed

    def of_spec(self) -> tuple[ViewerAccess, ...]:
        """Return fresh tokens of the viewers that the spec names, less those that are kept out.

        Empty if no token can be made.
        """
        own = self._spec.livekit_room
        wanted = [viewer for viewer in self._spec.viewers if viewer.identity not in self.removed]
        if own is None or not wanted or self._servers.of_room(own.name, tenant=own.tenant) is None:
            return ()
        return self._signed(own, wanted)

    def issue(self, viewers: Sequence[Viewer]) -> tuple[ViewerAccess, ...]:
        """Return tokens of viewers, which are kept out no more.

        Raises:
            RoomNotOwn: the room is not a LiveKit room of the caller's own.
            RoomNotAllowed: the room is the tenant's no more, or has no LiveKit server.
        """
        issued = self._signed(self.require_own_room(), viewers)
        for viewer in viewers:
            self._removed.pop(viewer.identity, None)
        return issued

    def keep_out(self, identity: str) -> None:
        """Keep a viewer out from now on.

        Raises:
            RoomNotOwn: the room is not a LiveKit room of the caller's own.
            InvalidField: the identity is that of an avatar or agent of the session.
            CapacityExhausted: too many viewers are kept out.
        """
        if self.require_own_room().is_reserved(identity):
            raise InvalidField(
                "identity is that of an avatar or agent of the session, which no call puts out; end the session "
                "instead",
                field="identity",
            )
        removed, now = self.removed, self._utc_now()
        if identity not in removed and len(removed) >= MAX_REMOVED:
            raise CapacityExhausted(
                f"session {self._session_id} keeps {MAX_REMOVED} viewers out, the most at once; let one in again "
                "with CreateViewerTokens",
                scope="session",
                retry_after_s=(min(removed.values()) - now).total_seconds(),
                values={"session_id": self._session_id, "limit": MAX_REMOVED},
            )
        self._removed[identity] = now + _KEPT_OUT

    def require_own_room(self) -> LiveKitRoom:
        """Return the caller's own room.

        Raises:
            RoomNotOwn: the avatar is in another kind of room.
        """
        if self._spec.livekit_room is None:
            raise RoomNotOwn(self._session_id)
        return self._spec.livekit_room

    def _signed(self, own: LiveKitRoom, viewers: Iterable[Viewer]) -> tuple[ViewerAccess, ...]:
        rooms = self._servers.of_room(own.name, tenant=own.tenant)
        if rooms is None:
            raise RoomNotAllowed(own.name, "the operator has changed the rooms since", field="session_id")
        now = self._utc_now()
        return tuple(rooms.named_viewer(own.name, viewer, now=now) for viewer in viewers)


async def remove_viewer(session: "SessionActor", identity: str, rooms: RoomControl) -> None:
    """Put a viewer out of the room of a session, and keep it out.

    What is to be kept out is in the registry before LiveKit is called, so that another process goes on with it.

    Raises:
        SessionEnded: the session is over.
        RoomNotOwn, InvalidField, CapacityExhausted: see `SessionViewers.keep_out`; also for an agent of others.
        RoomUnreachable: LiveKit has not put the viewer out; `ViewerWatch` keeps trying.
    """
    session.require_alive()
    own = session.viewers.require_own_room()
    occupants: Sequence[Occupant] | None
    try:
        occupants = await rooms.occupants(own.name, tenant=own.tenant)
    except AudienceUnknown:
        occupants = None
    found = [one for one in occupants or () if one.identity == identity]
    if any(one.is_agent for one in found):
        raise InvalidField("identity is that of an agent, and only viewers can be removed", field="identity")
    await session.keep_out(identity)
    if occupants is None:
        raise RoomUnreachable(_NOT_PUT_OUT)
    if found:
        try:
            await rooms.remove(own.name, identity, tenant=own.tenant)
        except AudienceUnknown:
            raise RoomUnreachable(_NOT_PUT_OUT) from None
