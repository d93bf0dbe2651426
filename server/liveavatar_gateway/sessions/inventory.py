"""Which process drives which session, as operators see it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.registry.base import Registry, StoredSession
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.sessions.sweeper import Sweeper

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedSession:
    """A session and the process that drives it."""

    session: SessionActor
    """As it is, or as its owner left it."""
    owner: str
    """Name of the process in leases."""
    epoch: int
    """Counts its owners."""
    lease_left_s: float | None = None
    """How long the owner may be silent before its lease is over; None when it has none, or nothing to keep."""


class Inventory:
    """What is known of this process and of all that share its registry."""

    def __init__(self, registry: Registry, directory: Directory, sweeper: Sweeper, *, lease_s: float) -> None:
        """Look at the parts of a gateway whose leases last `lease_s`."""
        self._registry = registry
        self._directory = directory
        self._sweeper = sweeper
        self._lease_s = lease_s

    @property
    def owner(self) -> str:
        """Name of this process."""
        return self._registry.owner

    @property
    def adopted_count(self) -> int:
        """Sessions taken over from dead processes since the start of this one."""
        return self._sweeper.adopted_count

    @property
    def swept_count(self) -> int:
        """Sessions of dead processes that were ended upstream since the start of this one."""
        return self._sweeper.swept_count

    async def page(self, token: str, size: int) -> tuple[Sequence[OwnedSession], str]:
        """Sessions of the registry newest first, behind the one that `token` names, and the next page's token.

        Raises:
            InvalidField: the token was never given out.
            RegistryUnavailable: nobody can tell.
        """
        if token and await self._registry.find(token) is None:
            raise InvalidField("page_token is unknown; list from the start", field="page_token")
        rows = await self._registry.page(token, size + 1)
        found = [owned for row in rows[:size] if (owned := self._owned(row)) is not None]
        return found, rows[size - 1].session_id if len(rows) > size else ""

    def _owned(self, row: StoredSession) -> OwnedSession | None:
        try:
            session = self._directory.look(row)
        except Exception:  # noqa: BLE001 - one row that cannot be shown must not hide the others
            _log.exception("session.not_shown", session=row.session_id)
            return None
        if session is None:
            return None
        left_s = None
        if row.seen_mono_s is not None and not row.ended:
            left_s = max(0.0, row.seen_mono_s + self._lease_s - time.monotonic())
        return OwnedSession(session=session, owner=row.owner, epoch=row.epoch, lease_left_s=left_s)
