"""Who is told of each session at LiveAvatar before it can cost anything, and after it cannot any more."""

from typing import Protocol

from liveavatar_gateway.upstream.model import Started


class UpstreamJournal(Protocol):
    """Keeps account of the sessions that may be billed, so that a crash leaves none that nobody knows."""

    async def minted(self, upstream_session_id: str) -> None:
        """A session is about to be started.

        Raises:
            RegistryUnavailable: that cannot be kept, so it must not be started.
        """

    async def started(self, started: Started) -> None:
        """It runs, and this is how it is reached."""

    async def stopped(self, upstream_session_id: str) -> None:
        """It does not run, or not any more."""
