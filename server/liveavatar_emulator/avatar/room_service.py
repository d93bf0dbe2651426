"""Rooms of the emulator on the LiveKit server: created, deleted, and kept deleted while tokens are valid."""

import asyncio
import time
from types import TracebackType
from typing import Self

import aiohttp
import structlog
from livekit import api

from liveavatar_emulator.config import LiveKitServer

EMPTY_TIMEOUT_S = 300
"""Time after which LiveKit deletes an empty room that the emulator could not delete itself."""
CALL_TIMEOUT_S = 5.0
CHECK_PERIOD_S = 0.5
"""Period of the check for deleted rooms that a holder of a valid token has created again."""
ROOMS_PER_CHECK = 200

_log = structlog.stdlib.get_logger()


class RoomService:
    """Client of LiveKit's room service, used as a context manager."""

    def __init__(self, livekit: LiveKitServer) -> None:
        self._livekit = livekit
        self._client: api.LiveKitAPI | None = None
        self._tasks = asyncio.TaskGroup()
        self._closed_until_s: dict[str, float] = {}
        """Deleted rooms, each with the monotonic time at which its last token expires."""
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the HTTP client."""
        self._client = api.LiveKitAPI(
            self._livekit.url,
            self._livekit.api_key,
            self._livekit.api_secret,
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
            failover=False,
        )
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the checks and close the HTTP client."""
        if self._keeper is not None:
            self._keeper.cancel()
        await self._tasks.__aexit__(kind, error, trace)
        if self._client is not None:
            await self._client.aclose()

    async def create(self, name: str) -> None:
        """Create a room; an existing room is fine."""
        await self._rooms.create_room(api.CreateRoomRequest(name=name, empty_timeout=EMPTY_TIMEOUT_S))

    async def close(self, name: str, tokens_valid_s: float) -> None:
        """Delete a room with its participants, and delete it again whenever a valid token has created it anew.

        A LiveKit server with default settings creates the room of any participant with a valid token.
        """
        self._closed_until_s[name] = time.monotonic() + tokens_valid_s
        await self._delete(name)
        if self._keeper is None or self._keeper.done():
            self._keeper = self._tasks.create_task(self._keep_closed(), name="rooms/keep-closed")

    async def _keep_closed(self) -> None:
        """Check deleted rooms until all their tokens have expired."""
        while self._closed_until_s:
            await asyncio.sleep(CHECK_PERIOD_S)
            now_s = time.monotonic()
            for name in [name for name, until_s in self._closed_until_s.items() if until_s <= now_s]:
                del self._closed_until_s[name]
            names = list(self._closed_until_s)
            for first in range(0, len(names), ROOMS_PER_CHECK):
                for name in await self._existing(names[first : first + ROOMS_PER_CHECK]):
                    _log.info("room.closed_again", room=name)
                    await self._delete(name)

    async def _existing(self, names: list[str]) -> list[str]:
        """Return those of `names` that exist on the server; none while the server does not respond."""
        try:
            found = await self._rooms.list_rooms(api.ListRoomsRequest(names=names))
        except (aiohttp.ClientError, TimeoutError, api.ServerError):
            return []
        return [room.name for room in found.rooms]

    async def _delete(self, name: str) -> None:
        try:
            await self._rooms.delete_room(api.DeleteRoomRequest(room=name))
        except api.ServerError as error:
            if error.code != api.ServerErrorCode.NOT_FOUND:
                _log.warning("room.not_deleted", room=name, error=error.code)
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.warning("room.not_deleted", room=name, error=type(error).__name__)

    @property
    def _rooms(self) -> api.room_service.RoomService:
        if self._client is None:
            raise RuntimeError("the room service is not open")
        return self._client.room
