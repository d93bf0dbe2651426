"""Journal of LiveAvatar sessions, written before a session can be billed and after it no longer is."""

from typing import Protocol

from liveavatar_gateway.upstream.model import Started


class UpstreamJournal(Protocol):
    """Record of the sessions that may be billed, so that a crash leaves no unknown session."""

    async def minted(self, upstream_session_id: str, *, account: str = "", permit_id: str = "") -> None:
        """Record a session that is about to be started on an account, and the permit that it uses.

        Raises:
            RegistryUnavailable: the record cannot be written, so the session must not be started.
        """

    async def started(self, started: Started) -> None:
        """Record a running session with its addresses and tokens."""

    async def stopped(self, upstream_session_id: str) -> None:
        """Remove the record of a session that no longer runs."""

    async def not_started(self, upstream_session_id: str) -> None:
        """Remove the record of a session that was not started, so that it was not billed."""
