"""Look into callers' own LiveKit rooms: who is there, and who can see the avatar; and removal of participants."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.telemetry.limited_log import LimitedLog

if TYPE_CHECKING:
    import aiohttp
    from livekit.api.room_service import RoomService

_log = LimitedLog(structlog.get_logger(__name__))

_DEADLINE_S: Final = 3.0
"""Longest wait for the answer about one room."""
_ABSENT: Final = "not_found"
"""Twirp's code for a room or a participant that does not exist."""


class AudienceUnknown(Exception):
    """No answer, or none that says anything: nothing is known about the room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """Participant of a room."""

    identity: str
    can_see: bool
    """True for everybody who can see or hear the avatar; False for programs that publish or talk."""
    is_agent: bool
    """True for avatars and other agents."""


class Audience:
    """Client of the LiveKit servers' room service. The creator closes it."""

    def __init__(self, servers: RoomServers, *, deadline_s: float = _DEADLINE_S) -> None:
        """Prepare; connects with the first call.

        Args:
            servers: LiveKit servers, by tenant.
            deadline_s: Longest wait for the answer about one room.
        """
        self._servers = servers
        self._deadline_s = deadline_s
        self._session: aiohttp.ClientSession | None = None

    async def occupants(self, room: str, *, tenant: str) -> Sequence[Occupant]:
        """Return the participants of a room; empty also for a room that does not exist.

        Args:
            room: Name of the room.
            tenant: Tenant whose LiveKit server has the room.

        Raises:
            AudienceUnknown: the server cannot be asked, does not answer in time, or refuses.
        """
        from livekit.api import ListParticipantsRequest  # noqa: PLC0415 - see `_ask`

        answer = await self._ask(
            room, tenant, lambda service: service.list_participants(ListParticipantsRequest(room=room))
        )
        return () if answer is None else tuple(map(_occupant, answer.participants))

    async def remove(self, room: str, identity: str, *, tenant: str) -> None:
        """Put a participant out of a room; one that is not there counts as put out.

        Args:
            room: Name of the room.
            identity: Identity of the participant.
            tenant: Tenant whose LiveKit server has the room.

        Raises:
            AudienceUnknown: the server cannot be asked, does not answer in time, or refuses.
        """
        from livekit.api import RoomParticipantIdentity  # noqa: PLC0415 - see `_ask`

        await self._ask(
            room,
            tenant,
            lambda service: service.remove_participant(RoomParticipantIdentity(room=room, identity=identity)),
        )

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, room: str, tenant: str, call: "Callable[[RoomService], Awaitable[Any]]") -> Any:
        """Return the answer of a room's server; None if the room or the participant does not exist."""
        # The imports take half a second: paid only where sessions have rooms of their own.
        from livekit.api.room_service import RoomService  # noqa: PLC0415
        from livekit.api.twirp_client import ServerError  # noqa: PLC0415

        signer = self._servers.of_room(room, tenant=tenant)
        if signer is None:
            raise AudienceUnknown("no LiveKit server for the room")
        config = signer.config
        service = RoomService(self._connections(), config.url, config.api_key, config.api_secret, failover=False)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await call(service)
        except Exception as error:
            if isinstance(error, ServerError) and error.code == _ABSENT:
                return None
            # The library raises errors of aiohttp, of protobuf and of its own, and none says anything of the room.
            _log.warning("rooms.unreachable", room=room, tenant=tenant, error=type(error).__name__)
            raise AudienceUnknown(type(error).__name__) from error

    def _connections(self) -> "aiohttp.ClientSession":
        if self._session is None:
            from liveavatar_gateway.rooms.connections import connections  # noqa: PLC0415 - see `_ask`

            self._session = connections()
        return self._session


def _occupant(participant: Any) -> Occupant:
    """Return a participant as far as the gateway cares.

    Programs that publish or talk, and those who are gone or may not subscribe, see nothing. A recording sees for
    others, and a phone caller hears the avatar: both count.
    """
    kinds = type(participant)
    is_agent = participant.kind == kinds.AGENT
    is_blind = is_agent or participant.kind == kinds.INGRESS or participant.state == kinds.DISCONNECTED
    may_subscribe = not participant.HasField("permission") or bool(participant.permission.can_subscribe)
    return Occupant(identity=participant.identity, can_see=may_subscribe and not is_blind, is_agent=is_agent)
