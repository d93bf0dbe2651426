"""LiveAvatar account as this process uses it: REST API, permits, and the stopper of its sessions."""

import asyncio
from dataclasses import dataclass, field

import structlog

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.upstream.model import RemoteStatus
from liveavatar_gateway.upstream.permits import Permits, PermitsConfig
from liveavatar_gateway.upstream.rest import Rest
from liveavatar_gateway.upstream.stopper import StopConfig, Stopper

_log = structlog.get_logger(__name__)

_STATUS_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountConfig:
    """Limits of one account, and the retry policy of its stops."""

    permits: PermitsConfig = field(default_factory=PermitsConfig)
    stop: StopConfig = field(default_factory=StopConfig)


class Account:
    """Account of one API key. The creator of `rest` closes it."""

    def __init__(self, config: AccountConfig, rest: Rest) -> None:
        self.config = config
        self.rest = rest
        self.permits = Permits(config.permits)
        self.stopper = Stopper(config.stop, rest)
        self._session_ids: set[str] = set()

    @property
    def session_ids(self) -> frozenset[str]:
        """LiveAvatar's ids of all sessions that this process has or is about to have."""
        return frozenset(self._session_ids)

    def add_session(self, session_id: str) -> None:
        """Record a session that this process has or is about to have."""
        self._session_ids.add(session_id)

    def remove_session(self, session_id: str) -> None:
        """Record that this process no longer has a session. Idempotent."""
        self._session_ids.discard(session_id)

    async def remote_status(self, session_id: str) -> RemoteStatus:
        """Return LiveAvatar's record of a session; not over if LiveAvatar does not answer in time."""
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                return await self.rest.remote_status(session_id)
        except (GatewayError, TimeoutError):
            _log.info("upstream.status_unknown", upstream_session=session_id)
            return RemoteStatus(over=False)
