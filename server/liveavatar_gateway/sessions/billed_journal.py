"""Journal of a session's LiveAvatar sessions that also counts their minutes."""

import asyncio
import time
from datetime import datetime
from typing import Protocol

from liveavatar_gateway.sessions.billing import Billing, Payer
from liveavatar_gateway.sessions.journal import SessionJournal
from liveavatar_gateway.upstream.journal import UpstreamJournal
from liveavatar_gateway.upstream.model import Started


class TakingJournal(UpstreamJournal, Protocol):
    """Journal of a session, which may take over a LiveAvatar session of another one."""

    async def take_over(self, started: Started, source: SessionJournal) -> None:
        """Save that a running session belongs to this one from now on, see `SessionJournal.take_over`."""


class BilledJournal:
    """Journal in front of another one; see `upstream.journal.UpstreamJournal`."""

    def __init__(self, journal: TakingJournal, billing: Billing, payer: Payer) -> None:
        self._journal = journal
        self._billing = billing
        self._payer = payer
        self._has_avatar = False
        self.has_begun = False
        """True once a LiveAvatar session was about to be started."""
        self.minted_s: float | None = None
        """Monotonic time just before the latest start at LiveAvatar; None before."""
        self._pending: set[str] = set()
        """LiveAvatar sessions that run, or of which nobody knows yet that they do not."""
        self._was_billed = False
        self._is_settled = asyncio.Event()
        self._is_settled.set()

    @property
    def payer(self) -> Payer:
        """Session that pays."""
        return self._payer

    async def require_budget(self) -> None:
        """Refuse the first avatar if the budget is spent.

        Raises:
            BudgetExhausted, RegistryUnavailable: see `Billing.require`.
        """
        await self._billing.require(self._payer)

    async def minted(self, upstream_session_id: str, *, account: str = "", permit_id: str = "") -> None:
        """Record a session that is about to be started, and count its first minute.

        Raises:
            BudgetExhausted, RegistryUnavailable: nothing may be started.
        """
        self.has_begun = True
        self._pending.add(upstream_session_id)
        self._is_settled.clear()
        try:
            await self._billing.reserve(upstream_session_id, self._payer, follows=self._has_avatar)
            try:
                await self._journal.minted(upstream_session_id, account=account, permit_id=permit_id)
            except BaseException:
                await self._billing.refund(upstream_session_id)
                raise
        except BaseException:
            self._settle(upstream_session_id)
            raise
        self.minted_s = time.monotonic()

    async def started(self, started: Started) -> None:
        """Record a running session."""
        follows, self._has_avatar = self._has_avatar, True
        self._billing.started(
            started.session_id, self._payer, max_duration_s=started.max_duration_s, follows=follows
        )
        await self._journal.started(started)

    async def take_over(self, started: Started, source: SessionJournal) -> None:
        """Record that a running session belongs to this one from now on, and pay for its further minutes.

        Raises:
            RegistryUnavailable, OwnerMoved: nothing changed, see `SessionJournal.take_over`.
        """
        self.has_begun = True
        await self._journal.take_over(started, source)
        self._has_avatar = True
        self._billing.transfer(started.session_id, self._payer)

    def adopted(self, started: Started, started_at: datetime | None) -> None:
        """Count the minutes of a session that another process started."""
        self._has_avatar = True
        self._billing.adopt(
            started.session_id, self._payer, started_at=started_at, max_duration_s=started.max_duration_s
        )

    async def stopped(self, upstream_session_id: str) -> None:
        """Remove the record of a session that no longer runs."""
        self._was_billed = True
        self._settle(upstream_session_id)
        self._billing.stopped(upstream_session_id)
        await self._journal.stopped(upstream_session_id)

    async def not_started(self, upstream_session_id: str) -> None:
        """Remove the record of a session that was never billed, and give its minute back."""
        self._settle(upstream_session_id)
        await self._billing.refund(upstream_session_id)
        await self._journal.not_started(upstream_session_id)

    async def was_billed(self, *, wait_s: float) -> bool:
        """Return whether LiveAvatar billed anything, once each start that was sent is known to run no more.

        A start of which that is not known after `wait_s` counts as billed.
        """
        try:
            async with asyncio.timeout(wait_s):
                await self._is_settled.wait()
        except TimeoutError:
            return True
        return self._was_billed

    def _settle(self, upstream_session_id: str) -> None:
        self._pending.discard(upstream_session_id)
        if not self._pending:
            self._is_settled.set()

    async def ended(self, played_s: float) -> None:
        """Count the played time of the session, which has ended."""
        await self._billing.ended(self._payer, played_s)
