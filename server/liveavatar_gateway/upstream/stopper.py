"""Sees to it that every started session is stopped: no session is paid for that nobody has."""

import asyncio
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final, Protocol

import structlog

from liveavatar_gateway.core.errors import GatewayError, UpstreamUnauthenticated

_log = structlog.get_logger(__name__)

_MAX_RETRY_AFTER_S: Final = 15.0
"""Longest wait that LiveAvatar can ask for between two tries: what is not stopped is billed."""


@unique
class Stopped(Enum):
    """Result of a stop."""

    NOW = "now"
    """LiveAvatar confirmed it."""
    BEFORE = "before"
    """LiveAvatar says that the session was gone when it was asked for the first time."""
    EITHER = "either"
    """It was gone when the stop was repeated: through our own first try, perhaps, whose answer was lost."""
    NEVER = "never"
    """LiveAvatar did not confirm it in all the time that it was tried."""

    @property
    def counts(self) -> bool:
        """True if this stop ended the session, as far as can be known."""
        return self in (Stopped.NOW, Stopped.EITHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopConfig:
    """How hard a stop is tried."""

    first_wait_s: float = 0.5
    """Wait before the second round of tries; doubles."""
    max_wait_s: float = 15.0
    """Longest wait between rounds. Lower stops sooner after an outage, higher calls less during one."""
    give_up_s: float = 4000.0
    """How long it is tried. The longest limit that is known of is an hour, after which LiveAvatar ends a session
    by itself; its clean-up after some 200 s is no proof, since viewers may keep a room."""
    late_start_s: float = 15.0
    """How long a start that nobody waits for may still take effect: for so long absence is no proof of an end."""


_LATE_START_PAUSE_S: Final = 1.0
"""Longest wait between two looks for a start that takes effect late: what it starts is billed for as long."""


class StopCall(Protocol):
    """What can stop a session."""

    async def stop(self, session_id: str, reason: str) -> Stopped:
        """Try once to stop it: NOW or BEFORE.

        Raises:
            GatewayError: nobody knows; to be tried again.
        """


class RetiredKey:
    """Stops what was started with an API key that is no more in use, with that key while it still works."""

    def __init__(self, retired: StopCall, current: StopCall) -> None:
        """Take what stops with the retired key, and what does with the one in use."""
        self._retired = retired
        self._current = current

    async def stop(self, session_id: str, reason: str) -> Stopped:
        """Try once to stop a session, see `StopCall`."""
        try:
            return await self._retired.stop(session_id, reason)
        except UpstreamUnauthenticated:
            # Revoked: a newer key of the same account can stop it; for another account's it is no session.
            _log.warning("upstream.retired_key_refused", upstream_session=session_id)
            return await self._current.stop(session_id, reason)


class Stopper:
    """Runs stops to their end, whatever becomes of those who asked for them.

    A stop belongs to this object, not to the task that awaits it: cancelling that task leaves the stop running.
    """

    def __init__(self, config: StopConfig, stopper: StopCall) -> None:
        self._config = config
        self._stopper = stopper
        self._running: dict[str, asyncio.Task[Stopped]] = {}

    @property
    def pending(self) -> int:
        """Stops that are not confirmed yet."""
        return len(self._running)

    @property
    def pending_ids(self) -> set[str]:
        """LiveAvatar's ids of the sessions whose stop is not confirmed yet."""
        return set(self._running)

    async def stop(self, session_id: str, reason: str, *, may_be_starting: bool = False) -> Stopped:
        """Stop a session; returns when LiveAvatar confirms, or when that is given up.

        A second stop of the same session joins the first. One that `may_be_starting` was asked to start, and
        nobody has heard the answer: where LiveAvatar does not know it yet, the stop is repeated for a while.
        """
        # The dict keeps the task: the loop itself holds tasks weakly.
        task = self._running.get(session_id)
        if task is None:
            absent_s = self._config.late_start_s if may_be_starting else 0.0
            work = self._until_stopped(session_id, reason, absent_s)
            task = asyncio.create_task(work, name=f"session-{session_id}/stop")
            self._running[session_id] = task
            task.add_done_callback(lambda _: self._running.pop(session_id, None))
        return await asyncio.shield(task)

    async def give_up(self) -> None:
        """Stop trying, at the end of the process."""
        running = set(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _until_stopped(self, session_id: str, reason: str, absent_s: float) -> Stopped:
        waited_s, wait_s = 0.0, self._config.first_wait_s
        repeated = False
        while True:
            try:
                stopped = await self._stopper.stop(session_id, reason)
            except GatewayError as error:
                if waited_s >= self._config.give_up_s:
                    _log.error("upstream.stop_failed", upstream_session=session_id, reason=error.reason)
                    return Stopped.NEVER
                pause_s = max(wait_s, min(error.retry_after_s or 0.0, _MAX_RETRY_AFTER_S))
                _log.warning(
                    "upstream.stop_retry", upstream_session=session_id, reason=error.reason, wait_s=pause_s
                )
                repeated = True
            else:
                if stopped is not Stopped.BEFORE or waited_s >= absent_s:
                    return Stopped.EITHER if repeated and stopped is Stopped.BEFORE else stopped
                pause_s = min(wait_s, _LATE_START_PAUSE_S)
            await asyncio.sleep(pause_s)
            waited_s += pause_s
            wait_s = min(wait_s * 2, self._config.max_wait_s)
