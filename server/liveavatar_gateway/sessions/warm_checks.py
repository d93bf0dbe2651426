"""Regular checks of warm sessions and reservations: each proves that it can still speak."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from liveavatar_gateway.sessions.warm_session import WarmSession
from liveavatar_gateway.upstream.pool import Pool

_log = structlog.get_logger(__name__)

_MAX_AT_ONCE: Final = 8
"""Checks under way at once: each is a call of REST, of which starts and stops need most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmChecksConfig:
    """Watch over warm sessions."""

    check_s: float = 20.0
    """Time between two checks of a session. Lower finds a dead one sooner, and asks LiveAvatar more often."""


class WarmChecks:
    """Checks of all warm sessions of this process. `run` is its one task."""

    def __init__(
        self,
        config: WarmChecksConfig,
        pool: Pool,
        sessions: Callable[[], Mapping[str, Iterable[WarmSession]]],
    ) -> None:
        """Prepare; nothing is checked before `run`.

        Args:
            config: Time between the checks.
            pool: Runs the checks to their end.
            sessions: Returns the sessions that can be taken, by profile.
        """
        self._config = config
        self._pool = pool
        self._sessions = sessions
        self._slots = asyncio.Semaphore(_MAX_AT_ONCE)
        self._busy: set[str] = set()
        """Profiles whose sessions are being checked."""

    async def run(self) -> None:
        """Check all sessions regularly, until cancelled."""
        while True:
            await asyncio.sleep(self._config.check_s)
            self.begin()

    def begin(self) -> None:
        """Begin to check the sessions of each profile, unless its last check still waits for LiveAvatar."""
        for profile, sessions in self._sessions().items():
            if profile not in self._busy:
                self._busy.add(profile)
                self._pool.run(self._check_all(profile, tuple(sessions)), name=f"warm/{profile}/check")

    async def _check_all(self, profile: str, sessions: Iterable[WarmSession]) -> None:
        try:
            await asyncio.gather(*(self._check(warm) for warm in sessions))
        finally:
            self._busy.discard(profile)

    async def _check(self, warm: WarmSession) -> None:
        async with self._slots:
            try:
                await warm.check()
            except Exception:  # noqa: BLE001 - a fault with one session must not end the checks of the others
                _log.exception("warm.check_crashed", warm=warm.id)
