"""LiveAvatar's list of active sessions, read once for all sessions of an account that have no socket."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

import structlog

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.upstream.standstill import patient_timeout

_log = structlog.get_logger(__name__)

_DEADLINE_S: Final = 15.0
"""Longest wait for all pages of the list."""


class ActiveCall(Protocol):
    """Single read of the list."""

    async def active(self) -> Sequence[str]:
        """Return the ids of all sessions that run on the account.

        Raises:
            GatewayError: LiveAvatar did not answer.
        """


RunTask = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Runs work to its end even if the task that awaits it is cancelled."""


class ActiveSessions:
    """Ids of the sessions that run on one account, as old as its readers allow.

    LiveAvatar limits calls of a key per second: the list costs one call for a hundred sessions, and a look at each
    session would cost a hundred.
    """

    def __init__(self, call: ActiveCall) -> None:
        self._call = call
        self._ids: frozenset[str] | None = None
        self._asked_s = -float("inf")
        """Monotonic time at which the latest read began."""
        self._reading: asyncio.Task[None] | None = None

    async def ids(self, run: RunTask, *, max_age_s: float) -> frozenset[str] | None:
        """Return the list; None if LiveAvatar does not answer. Readers at the same time share one call.

        Args:
            run: Runs the call.
            max_age_s: Age up to which an earlier list is good enough, or an earlier failure stands.
        """
        if self._reading is None and time.monotonic() - self._asked_s >= max_age_s:
            self._reading = run(self._read())
        if self._reading is not None:
            await asyncio.shield(self._reading)
        return self._ids

    async def _read(self) -> None:
        self._asked_s = time.monotonic()
        try:
            async with patient_timeout(_DEADLINE_S):
                self._ids = frozenset(await self._call.active())
        except (GatewayError, TimeoutError) as error:
            self._ids = None
            reason = error.reason if isinstance(error, GatewayError) else "UPSTREAM_TIMEOUT"
            _log.info("upstream.active_unknown", reason=reason)
        finally:
            self._reading = None
