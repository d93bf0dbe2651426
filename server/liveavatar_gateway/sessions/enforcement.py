"""Ends of running sessions that their tenants may not have any more."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog

from liveavatar_gateway.auth.quotas import Quotas
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.session import SessionActor

_log = structlog.get_logger(__name__)

CHECK_S: Final = 1.0
"""Interval at which running sessions are checked."""


class Tenants(Protocol):
    """Tenants, as the file of tenants has them now."""

    def is_active(self, tenant: str, /) -> bool:
        """Return False for a tenant that was suspended or removed."""

    def quotas(self, tenant: str, /) -> Quotas | None:
        """Return the quotas of a tenant; None for a tenant without limits."""


class Holder(Protocol):
    """Keeper of avatars that wait for callers of tenants."""

    def end_suspended(self, is_active: Callable[[str], bool], /) -> None:
        """End those of tenants that were suspended or removed."""


class Enforcer:
    """Checks of the sessions that run in this process, against the present file of tenants."""

    def __init__(
        self,
        living: Callable[[], Iterable[SessionActor]],
        tenants: Tenants,
        *,
        reservations: Holder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            living: Returns the sessions that have not ended.
            tenants: Present tenants.
            reservations: Avatars that wait for callers of the tenants; None for none.
            clock: Monotonic clock, seconds.
        """
        self._living = living
        self._tenants = tenants
        self._reservations = reservations
        self._clock = clock

    def check(self) -> None:
        """End the sessions of suspended tenants, and those that have lasted as long as their quota allows."""
        for session in self._living():
            with bulkhead("session.end_failed", session.id):
                self._check(session)
        if self._reservations is not None:
            with bulkhead("session.end_failed", ""):
                self._reservations.end_suspended(self._tenants.is_active)

    def _check(self, session: SessionActor) -> None:
        if session.over:
            return
        if not self._tenants.is_active(session.tenant):
            _log.info("session.tenant_suspended", session=session.id, tenant=session.tenant)
            session.end(EndReason.TENANT_SUSPENDED)
            return
        quotas = self._tenants.quotas(session.tenant)
        if quotas is not None and session.age_s(self._clock()) >= quotas.max_session_s:
            _log.info("session.over_quota", session=session.id, tenant=session.tenant, quota="max_session_s")
            session.end(EndReason.MAX_DURATION)

    async def watch(self) -> None:
        """Check all sessions regularly, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            self.check()
