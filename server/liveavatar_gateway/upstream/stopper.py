"""Stops of LiveAvatar sessions, retried until confirmed, so that no abandoned session is billed."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final, Protocol

import structlog

from liveavatar_gateway.core.errors import GatewayError, UpstreamUnauthenticated

_log = structlog.get_logger(__name__)

_MAX_RETRY_AFTER_S: Final = 15.0
"""Longest accepted `Retry-After` of a stop, because the session is billed until it is stopped."""


@unique
class Stopped(Enum):
    """Result of a stop."""

    NOW = "now"
    """LiveAvatar confirmed the stop."""
    BEFORE = "before"
    """LiveAvatar reported that the session had ended before the first try."""
    EITHER = "either"
    """The session had ended when the stop was repeated, perhaps through an earlier try whose answer was lost."""
    NEVER = "never"
    """LiveAvatar confirmed no try until the stop was given up."""

    @property
    def counts(self) -> bool:
        """True if this stop, as far as known, ended the session."""
        return self in (Stopped.NOW, Stopped.EITHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopConfig:
    """Retry policy of a stop."""

    first_wait_s: float = 0.5
    """Wait before the second try; doubles with each try."""
    max_wait_s: float = 15.0
    """Longest wait between tries. Lower stops sooner after an outage, higher makes fewer calls during one."""
    give_up_s: float = 4000.0
    """Time after which a stop is given up. LiveAvatar ends a session at its limit, which is at most an hour as far
    as known. Its clean-up after about 200 s is not reliable, because viewers may keep a room alive."""
    late_start_s: float = 15.0
    """Time for which an abandoned start may still take effect: until then an unknown session may still start."""


_LATE_START_PAUSE_S: Final = 1.0
"""Longest wait between two tries while a start may take effect late, because its session would be billed."""


class StopCall(Protocol):
    """Single try to stop a session."""

    async def stop(self, session_id: str, reason: str) -> Stopped:
        """Try once to stop a session and return NOW or BEFORE.

        Raises:
            GatewayError: the result is unknown; try again.
        """


class RetiredKey:
    """Stops sessions started with a retired API key, with that key as long as LiveAvatar accepts it."""

    def __init__(self, retired: StopCall, others: Callable[[], Sequence[StopCall]]) -> None:
        """Combine the stop calls of the retired key and of all accounts that the session may belong to."""
        self._retired = retired
        self._others = others

    async def stop(self, session_id: str, reason: str) -> Stopped:
        """Try once to stop a session, see `StopCall`."""
        try:
            return await self._retired.stop(session_id, reason)
        except UpstreamUnauthenticated as error:
            # The key was revoked. A newer key of the same account can stop the session; for a key of another
            # account the session does not exist.
            _log.warning("upstream.retired_key_refused", upstream_session=session_id)
            calls, failure = self._others(), error
        if not calls:
            raise failure
        return await _stop_with_any(calls, session_id, reason)


class RefusedKey:
    """Stop call of an account whose key LiveAvatar refuses: its sessions are unknown until it has another key."""

    def __init__(self, refusal: GatewayError) -> None:
        self._refusal = refusal

    async def stop(self, session_id: str, reason: str) -> Stopped:  # noqa: ARG002 - those of `StopCall`
        """Fail, see `StopCall`."""
        raise self._refusal


async def _stop_with_any(calls: Sequence[StopCall], session_id: str, reason: str) -> Stopped:
    """Stop a session that one of several accounts has; BEFORE only if all of them report so."""
    failure: GatewayError | None = None
    for call in calls:
        try:
            if await call.stop(session_id, reason) is Stopped.NOW:
                return Stopped.NOW
        except GatewayError as error:
            failure = error
    if failure is not None:
        raise failure
    return Stopped.BEFORE


class Stopper:
    """Runs each stop until LiveAvatar confirms it, even if the caller is cancelled.

    A stop runs in a task of this object: cancelling the awaiting task leaves the stop running.
    """

    def __init__(self, config: StopConfig, call: StopCall) -> None:
        self._config = config
        self._call = call
        self._running: dict[str, asyncio.Task[Stopped]] = {}

    @property
    def pending(self) -> int:
        """Number of stops that are not confirmed yet."""
        return len(self._running)

    @property
    def pending_ids(self) -> set[str]:
        """LiveAvatar's ids of the sessions whose stop is not confirmed yet."""
        return set(self._running)

    async def stop(self, session_id: str, reason: str, *, may_be_starting: bool = False) -> Stopped:
        """Stop a session; return when LiveAvatar confirms the stop, or when it is given up.

        A second stop of the same session joins the first. `may_be_starting` means that the answer to the start was
        lost: if LiveAvatar does not know the session yet, the stop is repeated for a while.
        """
        # The dict keeps the task alive: the loop itself holds tasks weakly.
        task = self._running.get(session_id)
        if task is None:
            absent_s = self._config.late_start_s if may_be_starting else 0.0
            work = self._until_stopped(session_id, reason, absent_s)
            task = asyncio.create_task(work, name=f"session-{session_id}/stop")
            self._running[session_id] = task
            task.add_done_callback(lambda _: self._running.pop(session_id, None))
        return await asyncio.shield(task)

    async def give_up(self) -> None:
        """Cancel all pending stops, at the end of the process."""
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
                stopped = await self._call.stop(session_id, reason)
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
