"""Look into callers' own LiveKit rooms: is there anybody who can see the avatar."""

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import structlog

from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.rooms.tokens import LiveKitConfig
from liveavatar_gateway.telemetry.limited_log import LimitedLog

if TYPE_CHECKING:
    import aiohttp

_log = LimitedLog(structlog.get_logger(__name__))

_DEADLINE_S: Final = 3.0
"""Longest wait for the answer about one room."""
_ABSENT: Final = "not_found"
"""Twirp's code for a room that does not exist."""


class AudienceUnknown(Exception):
    """No answer, or none that says anything: nothing is known about the room."""


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

    async def has_viewer(self, room: str, *, tenant: str, avatars: Collection[str]) -> bool:
        """Return True if anybody in a room can see the avatar; False also for a room that does not exist.

        Args:
            room: Name of the room.
            tenant: Tenant whose LiveKit server has the room.
            avatars: Identities of avatars, which are no viewers.

        Raises:
            AudienceUnknown: the server cannot be asked, does not answer in time, or refuses.
        """
        signer = self._servers.of_room(room, tenant=tenant)
        if signer is None:
            raise AudienceUnknown("no LiveKit server for the room")
        try:
            async with asyncio.timeout(self._deadline_s):
                found = await self._participants(signer.config, room)
        except Exception as error:
            # The library raises errors of aiohttp, of protobuf and of its own, and none says anything of the room.
            _log.warning("rooms.unreachable", room=room, tenant=tenant, error=type(error).__name__)
            raise AudienceUnknown(type(error).__name__) from error
        return any(_can_see(one) and one.identity not in avatars for one in found)

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _participants(self, config: LiveKitConfig, room: str) -> Collection[Any]:
        # The imports take half a second: paid only where sessions have rooms of their own.
        from livekit.api import ListParticipantsRequest  # noqa: PLC0415
        from livekit.api.room_service import RoomService  # noqa: PLC0415
        from livekit.api.twirp_client import ServerError  # noqa: PLC0415

        service = RoomService(self._connections(), config.url, config.api_key, config.api_secret, failover=False)
        try:
            answer = await service.list_participants(ListParticipantsRequest(room=room))
        except ServerError as error:
            if error.code == _ABSENT:
                return ()
            raise
        return tuple(answer.participants)

    def _connections(self) -> "aiohttp.ClientSession":
        if self._session is None:
            from liveavatar_gateway.rooms.connections import connections  # noqa: PLC0415 - see above

            self._session = connections()
        return self._session


def _can_see(participant: Any) -> bool:
    """Return False for programs that publish or talk, and for those who are gone or may not subscribe.

    A recording sees for others, and a phone caller hears the avatar: both count.
    """
    kinds = type(participant)
    if participant.kind in (kinds.AGENT, kinds.INGRESS) or participant.state == kinds.DISCONNECTED:
        return False
    return not participant.HasField("permission") or bool(participant.permission.can_subscribe)
