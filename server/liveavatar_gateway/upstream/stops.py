"""Sees to it that every started session is stopped: no session is paid for that nobody has."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog

from liveavatar_gateway.core.errors import GatewayError, UpstreamUnauthenticated

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopConfig:
    """How hard a stop is tried."""

    first_wait_s: float = 0.5
    """Wait before the second round of tries; doubles."""
    max_wait_s: float = 15.0
    """Longest wait between rounds. Lower stops sooner after an outage, higher calls less during one."""
    give_up_s: float = 300.0
    """LiveAvatar reaps what nobody is connected to after about 200 s: later stops change nothing."""


class Stopper(Protocol):
    """What can stop a session."""

    async def stop(self, session_id: str, reason: str) -> bool:
        """Stop it; False when it had ended before."""


class RetiredKey:
    """Stops what was started with an API key that is no more in use, with that key while it still works."""

    def __init__(self, retired: Stopper, current: Stopper) -> None:
        """Take what stops with the retired key, and what does with the one in use."""
        self._retired = retired
        self._current = current

    async def stop(self, session_id: str, reason: str) -> bool:
        """Stop a session; False when it had ended before."""
        try:
            return await self._retired.stop(session_id, reason)
        except UpstreamUnauthenticated:
            # Revoked: a newer key of the same account can stop it; for another account's it is no session.
            _log.warning("upstream.retired_key_refused", upstream_session=session_id)
            return await self._current.stop(session_id, reason)


class Stops:
    """Runs stops to their end, whatever becomes of those who asked for them.

    A stop belongs to this object, not to the task that awaits it: cancelling that task leaves the stop running.
    """

    def __init__(self, config: StopConfig, stopper: Stopper) -> None:
        self._config = config
        self._stopper = stopper
        self._running: set[asyncio.Task[bool]] = set()

    @property
    def pending(self) -> int:
        """Stops that are not confirmed yet."""
        return len(self._running)

    async def stop(self, session_id: str, reason: str) -> bool:
        """Stop a session; returns when LiveAvatar confirms. False when it had ended before or was given up."""
        # The set keeps the task: the loop itself holds tasks weakly.
        task = asyncio.create_task(self._until_stopped(session_id, reason), name=f"session-{session_id}/stop")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def give_up(self) -> None:
        """Stop trying, at the end of the process."""
        running = set(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _until_stopped(self, session_id: str, reason: str) -> bool:
        waited_s, wait_s = 0.0, self._config.first_wait_s
        while True:
            try:
                return await self._stopper.stop(session_id, reason)
            except GatewayError as error:
                if waited_s >= self._config.give_up_s:
                    _log.error("upstream.stop_failed", upstream_session=session_id, reason=error.reason)
                    return False
                _log.warning(
                    "upstream.stop_retry", upstream_session=session_id, reason=error.reason, wait_s=wait_s
                )
            await asyncio.sleep(wait_s)
            waited_s += wait_s
            wait_s = min(wait_s * 2, self._config.max_wait_s)
