"""Host of all room avatars of one emulator: the tasks they run in, and the rooms they need."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import structlog

from liveavatar_emulator.avatar.participant import Participant
from liveavatar_emulator.avatar.room_service import RoomService
from liveavatar_emulator.config import LiveKitServer
from liveavatar_emulator.rooms import RoomAccess

CLEAR_TIMEOUT_S = 8.0

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?")

_log = structlog.stdlib.get_logger()


class _WithoutTokens(logging.Filter):
    """Log filter that removes tokens from the SDK's lines: the SDK logs a refused token in full."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Remove tokens from the record, and pass it."""
        record.msg = _TOKEN.sub("(token)", record.getMessage())
        record.args = ()
        return True


class AvatarHost:
    """Host of avatars, used as a context manager: at its end all avatars have left and their rooms are deleted."""

    def __init__(self, livekit: LiveKitServer) -> None:
        self.livekit = livekit
        self._avatars: dict[asyncio.Task[None], Participant] = {}
        self._rooms = RoomService(livekit)
        self._tasks = asyncio.TaskGroup()
        # Drawing would block the event loop, which runs the timers of all sessions.
        self._drawing_executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="faces")

    async def __aenter__(self) -> Self:
        """Open the room service."""
        logging.getLogger("livekit").addFilter(_WithoutTokens())
        await self._rooms.__aenter__()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make every avatar leave, and close the room service."""
        await self.clear()
        await self._tasks.__aexit__(kind, error, trace)
        await self._rooms.__aexit__(kind, error, trace)
        self._drawing_executor.shutdown(wait=False)

    def join(
        self,
        session_id: str,
        access: RoomAccess,
        *,
        quality: str,
        encoding: str,
        has_video: bool,
        joined: Callable[[], None],
        lost: Callable[[], None],
        heard: Callable[[str, bytes], None] | None = None,
    ) -> Participant:
        """Start joining a room with a new avatar; `joined` is called once it is in the room.

        With `heard`, the avatar listens to users, and passes on the name and audio of each; empty audio ends it.
        """
        avatar = Participant(
            session_id=session_id,
            access=access,
            quality=quality,
            encoding=encoding,
            has_video=has_video,
            rooms=self._rooms,
            drawing_executor=self._drawing_executor,
            joined=joined,
            lost=lost,
            heard=heard,
        )
        task = self._tasks.create_task(avatar.run(), name=f"session-{session_id}/avatar")
        self._avatars[task] = avatar
        task.add_done_callback(lambda done: self._avatars.pop(done, None))
        return avatar

    async def clear(self) -> None:
        """Make every avatar leave, and return when all have left, or after `CLEAR_TIMEOUT_S`."""
        for avatar in self._avatars.values():
            avatar.leave()
        if not self._avatars:
            return
        began_s = time.monotonic()
        _, pending = await asyncio.wait(set(self._avatars), timeout=CLEAR_TIMEOUT_S)
        for task in pending:
            task.cancel()
        _log.info("avatars.left", seconds=round(time.monotonic() - began_s, 3), cancelled=len(pending))
