"""Drain: a process leaves service, and may return while it has not exited."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from liveavatar_gateway.core.errors import Draining
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.upstream.socket import read_what_arrived
from liveavatar_gateway.upstream.standstill import STOOD_STILL_S, PatientTimer, patient_timeout

_log = structlog.get_logger(__name__)


class WarmKeeper(Protocol):
    """Keeper of sessions that no caller has yet."""

    def close(self) -> None:
        """Begin to end them, and keep none until `reopen`."""

    def reopen(self) -> None:
        """Keep some again."""


class Drain:
    """State of service of a process: new sessions accepted or refused, and the deadline of living ones.

    `begin` is for operators: sessions continue as they are until the deadline, and `cancel` undoes it. `finish`
    is for a process that exits: sessions are ended once they are silent, and nothing undoes it.
    """

    def __init__(
        self,
        directory: Directory,
        publish_health: Callable[[bool], Awaitable[None]],
        *,
        warm: Sequence[WarmKeeper] = (),
    ) -> None:
        """Begin in service.

        Args:
            directory: Sessions of the process.
            publish_health: Called at each change, with True if the process is in service.
            warm: Keepers of sessions that no caller has yet, which end when the drain begins.
        """
        self._directory = directory
        self._publish_health = publish_health
        self._warm = warm
        self._timer: PatientTimer | None = None
        self._finishing = False
        self.deadline: datetime | None = None
        """End of the drain, past or to come; None in service."""

    async def begin(self, grace_s: float) -> datetime:
        """Refuse new sessions, announce the drain to all streams, and end living sessions after `grace_s` seconds.

        Returns the deadline. A second call sets a new one.

        Raises:
            Draining: the process exits.
        """
        self._require_running()
        self._stop_timer()
        self.deadline = self._announce(grace_s, takes_speech=True)
        # After a standstill, an operator's cancellation may still be unread.
        self._timer = PatientTimer(grace_s, self._end)
        await self._publish_health(False)
        return self.deadline

    def _announce(self, grace_s: float, *, takes_speech: bool) -> datetime:
        deadline = datetime.now(UTC) + timedelta(seconds=grace_s)
        self._directory.refuse_new()
        for keeper in self._warm:
            keeper.close()
        living = self._directory.living()
        _log.info("drain.began", sessions=len(living), grace_s=grace_s, exits=self._finishing)
        for session in living:
            with bulkhead("drain.failed", session.id):
                session.go_away(deadline, takes_speech=takes_speech)
        return deadline

    def _end(self) -> None:
        self._timer = None
        _log.info("drain.ended", sessions=len(self._directory.living()))
        self._directory.end_all(EndReason.DRAINED)

    async def cancel(self) -> bool:
        """Accept sessions again and let living ones stay; return False if no drain was running.

        Raises:
            Draining: the process exits.
        """
        self._require_running()
        if self.deadline is None:
            return False
        self._stop_timer()
        self.deadline = None
        self._directory.accept_new()
        for keeper in self._warm:
            keeper.reopen()
        living = self._directory.living()
        _log.info("drain.cancelled", sessions=len(living))
        for session in living:
            with bulkhead("drain.failed", session.id):
                session.cancel_go_away()
        await self._publish_health(True)
        return True

    async def finish(self, grace_s: float, reserve_s: float) -> None:
        """Refuse new sessions, let each living one finish its speech, then end it.

        Returns when all have ended, or at the end of the grace.

        Args:
            grace_s: Longest time until the end of all sessions.
            reserve_s: Part of that time for stopping them.
        """
        self._finishing = True
        self._stop_timer()
        end_s = asyncio.get_running_loop().time() + max(0.0, grace_s - reserve_s)
        living = self._directory.living()
        self.deadline = self._announce(grace_s, takes_speech=False)
        await self._publish_health(False)
        async with asyncio.TaskGroup() as tasks:
            for session in living:
                work = _finish_in_bulkhead(session, end_s, reserve_s)
                tasks.create_task(work, name=f"session-{session.id}/drain")
        _log.info("drain.ended", sessions=len(living))

    def _require_running(self) -> None:
        if self._finishing:
            raise Draining

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _finish_in_bulkhead(session: SessionActor, end_s: float, reserve_s: float) -> None:
    with bulkhead("drain.failed", session.id):
        await _finish(session, end_s, reserve_s)


async def _finish(session: SessionActor, end_s: float, reserve_s: float) -> None:
    attachment = session.attachments.add()
    loop = asyncio.get_running_loop()
    try:
        while session.speaks and not session.over and loop.time() < end_s:
            await attachment.wakeup.wait(end_s - loop.time())
            if loop.time() > end_s + STOOD_STILL_S:
                # Speech may have ended while the process stood still.
                await read_what_arrived()
    finally:
        attachment.release()
    session.end(EndReason.DRAINED)
    with contextlib.suppress(TimeoutError):
        async with patient_timeout(max(reserve_s, end_s + reserve_s - loop.time())):
            await session.finished.wait()
