"""Journal of a session's LiveAvatar sessions that also counts their minutes."""

from datetime import datetime

from liveavatar_gateway.sessions.billing import Billing, Payer
from liveavatar_gateway.upstream.journal import UpstreamJournal
from liveavatar_gateway.upstream.model import Started


class BilledJournal:
    """Journal in front of another one; see `upstream.journal.UpstreamJournal`."""

    def __init__(self, journal: UpstreamJournal, billing: Billing, payer: Payer) -> None:
        self._journal = journal
        self._billing = billing
        self._payer = payer
        self._has_avatar = False

    async def require_budget(self) -> None:
        """Refuse the first avatar if the budget is spent.

        Raises:
            BudgetExhausted, RegistryUnavailable: see `Billing.require`.
        """
        await self._billing.require(self._payer)

    async def minted(self, upstream_session_id: str) -> None:
        """Record a session that is about to be started, and count its first minute.

        Raises:
            BudgetExhausted, RegistryUnavailable: nothing may be started.
        """
        await self._billing.reserve(upstream_session_id, self._payer, follows=self._has_avatar)
        try:
            await self._journal.minted(upstream_session_id)
        except BaseException:
            await self._billing.refund(upstream_session_id)
            raise

    async def started(self, started: Started) -> None:
        """Record a running session."""
        follows, self._has_avatar = self._has_avatar, True
        self._billing.started(
            started.session_id, self._payer, max_duration_s=started.max_duration_s, follows=follows
        )
        await self._journal.started(started)

    def adopted(self, started: Started, started_at: datetime | None) -> None:
        """Count the minutes of a session that another process started."""
        self._has_avatar = True
        self._billing.adopt(
            started.session_id, self._payer, started_at=started_at, max_duration_s=started.max_duration_s
        )

    async def stopped(self, upstream_session_id: str) -> None:
        """Remove the record of a session that no longer runs."""
        self._billing.stopped(upstream_session_id)
        await self._journal.stopped(upstream_session_id)

    async def not_started(self, upstream_session_id: str) -> None:
        """Remove the record of a session that was never billed, and give its minute back."""
        await self._billing.refund(upstream_session_id)
        await self._journal.not_started(upstream_session_id)

    async def ended(self, played_s: float) -> None:
        """Count the played time of the session, which has ended."""
        await self._billing.ended(self._payer, played_s)
