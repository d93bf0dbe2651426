"""All avatars of one emulator: the tasks they live in, and the rooms they own on the LiveKit server."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import aiohttp
import structlog
from livekit import api

from liveavatar_emulator.avatar.participant import Participant
from liveavatar_emulator.config import LiveKitServer
from liveavatar_emulator.rooms import RoomParticipant

EMPTY_TIMEOUT_S = 300
"""LiveKit removes a room of ours that nobody has joined for this long, should we die before we can."""
CALL_TIMEOUT_S = 5.0
CLEAR_TIMEOUT_S = 8.0
LOOK_PERIOD_S = 0.5
"""How often rooms that were closed are looked for while somebody may hold a valid token for one."""
LOOKED_FOR_AT_ONCE = 200

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?")

_log = structlog.stdlib.get_logger()


class _WithoutTokens(logging.Filter):
    """The SDK's own log lines, without the tokens some of them hold: a refused one is logged whole."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, and let it pass."""
        record.msg = _TOKEN.sub("(token)", record.getMessage())
        record.args = ()
        return True


class Stage:
    """Where avatars live. Used as a context manager: at its end every avatar has left and its room is gone."""

    def __init__(self, livekit: LiveKitServer) -> None:
        self.livekit = livekit
        self._lives: dict[asyncio.Task[None], Participant] = {}
        self._client: api.LiveKitAPI | None = None
        self._tasks = asyncio.TaskGroup()
        self._closed_until_s: dict[str, float] = {}
        """Rooms that must not come back, with the monotonic time at which the last token for each has ended."""
        self._keeper: asyncio.Task[None] | None = None
        # Drawing stays off the event loop, which has the clocks of all sessions.
        self._draughtsman = ThreadPoolExecutor(max_workers=1, thread_name_prefix="faces")

    async def __aenter__(self) -> Self:
        """Open the connection to the room service."""
        logging.getLogger("livekit").addFilter(_WithoutTokens())
        self._client = api.LiveKitAPI(
            self.livekit.url,
            self.livekit.api_key,
            self.livekit.api_secret,
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
            failover=False,
        )
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See every avatar out."""
        await self.clear()
        if self._keeper is not None:
            self._keeper.cancel()
        await self._tasks.__aexit__(kind, error, trace)
        if self._client is not None:
            await self._client.aclose()
        self._draughtsman.shutdown(wait=False)

    def admit(
        self,
        session_id: str,
        seat: RoomParticipant,
        *,
        quality: str,
        encoding: str,
        joined: Callable[[], None],
        lost: Callable[[], None],
    ) -> Participant:
        """Send an avatar on its way into a room; it tells when it is there."""
        avatar = Participant(
            session_id=session_id,
            seat=seat,
            quality=quality,
            encoding=encoding,
            rooms=self,
            draughtsman=self._draughtsman,
            joined=joined,
            lost=lost,
        )
        task = self._tasks.create_task(avatar.run(), name=f"session-{session_id}/avatar")
        self._lives[task] = avatar
        task.add_done_callback(lambda done: self._lives.pop(done, None))
        return avatar

    async def clear(self) -> None:
        """Make every avatar leave, and return when all have, or after `CLEAR_TIMEOUT_S`."""
        for avatar in self._lives.values():
            avatar.leave()
        if not self._lives:
            return
        began_s = time.monotonic()
        _, pending = await asyncio.wait(set(self._lives), timeout=CLEAR_TIMEOUT_S)
        for task in pending:
            task.cancel()
        _log.info("stage.cleared", seconds=round(time.monotonic() - began_s, 3), given_up=len(pending))

    # -- rooms
    # -------------------------------------------------------------------------------------------------

    async def create(self, name: str) -> None:
        """Make a room."""
        await self._service.create_room(api.CreateRoomRequest(name=name, empty_timeout=EMPTY_TIMEOUT_S))

    async def close(self, name: str, tokens_valid_s: float) -> None:
        """Remove a room, and remove it again whenever a token that is still valid has made it again.

        A LiveKit server with its default settings makes the room of whoever joins with a valid token.
        """
        self._closed_until_s[name] = time.monotonic() + tokens_valid_s
        await self._delete(name)
        if self._keeper is None or self._keeper.done():
            self._keeper = self._tasks.create_task(self._keep_closed(), name="rooms/keep-closed")

    async def _keep_closed(self) -> None:
        """Look for closed rooms until no token for one can be valid any more."""
        while self._closed_until_s:
            await asyncio.sleep(LOOK_PERIOD_S)
            now_s = time.monotonic()
            for name in [name for name, until_s in self._closed_until_s.items() if until_s <= now_s]:
                del self._closed_until_s[name]
            names = list(self._closed_until_s)
            for first in range(0, len(names), LOOKED_FOR_AT_ONCE):
                for name in await self._existing(names[first : first + LOOKED_FOR_AT_ONCE]):
                    _log.info("room.closed_again", room=name)
                    await self._delete(name)

    async def _existing(self, names: list[str]) -> list[str]:
        """Return those of `names` that the server has now; none while it cannot be asked."""
        try:
            found = await self._service.list_rooms(api.ListRoomsRequest(names=names))
        except (aiohttp.ClientError, TimeoutError, api.ServerError):
            return []
        return [room.name for room in found.rooms]

    async def _delete(self, name: str) -> None:
        try:
            await self._service.delete_room(api.DeleteRoomRequest(room=name))
        except api.ServerError as error:
            if error.code != api.ServerErrorCode.NOT_FOUND:
                _log.warning("room.not_deleted", room=name, error=error.code)
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.warning("room.not_deleted", room=name, error=type(error).__name__)

    @property
    def _service(self) -> api.room_service.RoomService:
        if self._client is None:
            raise RuntimeError("the stage is not open")
        return self._client.room
