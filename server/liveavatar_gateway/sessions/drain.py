"""Takes a process out of service, and back in while there is time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from liveavatar_gateway.core.errors import Draining
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.upstream.socket import read_what_arrived
from liveavatar_gateway.upstream.standstill import STOOD_STILL_S, PatientTimer, patient_timeout

_log = structlog.get_logger(__name__)


class Drain:
    """Whether a process takes sessions, and until when those that live may stay.

    `begin` is what operators do: sessions go on as they are until the deadline, and `take_back` undoes it.
    `finish` is what a process does that exits: sessions are ended once they are silent, and nothing undoes it.
    """

    def __init__(self, directory: Directory, tell_health: Callable[[bool], Awaitable[None]]) -> None:
        """Begin in service.

        Args:
            directory: Whose sessions.
            tell_health: Is called with whether the process serves, when that changes.
        """
        self._directory = directory
        self._tell_health = tell_health
        self._timer: PatientTimer | None = None
        self._finishing = False
        self.deadline: datetime | None = None
        """When sessions that still live are ended, or were; None in service."""

    async def begin(self, grace_s: float) -> datetime:
        """Take no new sessions, tell all streams to go away, and end what still lives after `grace_s` seconds.

        Returns the deadline. Called again, it sets another one.

        Raises:
            Draining: the process exits.
        """
        self._require_running()
        self._stop_timer()
        self.deadline = self._announce(grace_s, takes_speech=True)
        # An operator may have taken it back while the process stood still.
        self._timer = PatientTimer(grace_s, self._end)
        await self._tell_health(False)
        return self.deadline

    def _announce(self, grace_s: float, *, takes_speech: bool) -> datetime:
        deadline = datetime.now(UTC) + timedelta(seconds=grace_s)
        self._directory.draining = True
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

    async def take_back(self) -> bool:
        """Take sessions again and let those that live stay; False when there was no drain.

        Raises:
            Draining: the process exits.
        """
        self._require_running()
        if self.deadline is None:
            return False
        self._stop_timer()
        self.deadline = None
        self._directory.draining = False
        living = self._directory.living()
        _log.info("drain.taken_back", sessions=len(living))
        for session in living:
            with bulkhead("drain.failed", session.id):
                session.cancel_go_away()
        await self._tell_health(True)
        return True

    async def finish(self, grace_s: float, reserve_s: float) -> None:
        """Take no new sessions, let each finish what it says, then end it.

        Returns when all have ended, or when the grace is over.

        Args:
            grace_s: How long speech may go on.
            reserve_s: How much of that is kept for stopping.
        """
        self._finishing = True
        self._stop_timer()
        end_s = asyncio.get_running_loop().time() + max(0.0, grace_s - reserve_s)
        living = self._directory.living()
        self.deadline = self._announce(grace_s, takes_speech=False)
        await self._tell_health(False)
        async with asyncio.TaskGroup() as tasks:
            for session in living:
                work = _finish_apart(session, end_s, reserve_s)
                tasks.create_task(work, name=f"session-{session.id}/drain")
        _log.info("drain.ended", sessions=len(living))

    def _require_running(self) -> None:
        if self._finishing:
            raise Draining

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _finish_apart(session: SessionActor, end_s: float, reserve_s: float) -> None:
    with bulkhead("drain.failed", session.id):
        await _finish(session, end_s, reserve_s)


async def _finish(session: SessionActor, end_s: float, reserve_s: float) -> None:
    hold = session.holds.hold()
    loop = asyncio.get_running_loop()
    try:
        while session.core.speech.active and not session.core.over and loop.time() < end_s:
            await hold.signal.wait(end_s - loop.time())
            if loop.time() > end_s + STOOD_STILL_S:
                # What it said may have ended while the process stood still.
                await read_what_arrived()
    finally:
        hold.release()
    session.end(EndReason.DRAINED)
    with contextlib.suppress(TimeoutError):
        async with patient_timeout(max(reserve_s, end_s + reserve_s - loop.time())):
            await session.finished.wait()
