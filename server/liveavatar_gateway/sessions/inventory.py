"""Inventory for operators: sessions of all processes that share a registry, each with its owner."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.registry.base import Registry, StoredSession
from liveavatar_gateway.sessions.adoption import Adoption
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.view import SessionView
from liveavatar_gateway.sessions.warm_record import is_warm
from liveavatar_gateway.telemetry.limited_log import LimitedLog

_log = LimitedLog(structlog.get_logger(__name__))


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedSession:
    """A session and the process that drives it."""

    session: SessionView
    """Present state, or the state that its owner saved last."""
    owner: str
    """Id of the process in leases."""
    epoch: int
    """Number of the owner, counted from 1."""
    lease_left_s: float | None = None
    """Time until the lease of the owner is over; None without a lease, or after the end of the session."""


class Inventory:
    """Sessions and counts of this process, and sessions of all that share its registry."""

    def __init__(self, registry: Registry, directory: Directory, adoption: Adoption, *, lease_s: float) -> None:
        """Prepare for processes whose leases last `lease_s`."""
        self._registry = registry
        self._directory = directory
        self._adoption = adoption
        self._lease_s = lease_s

    @property
    def owner(self) -> str:
        """Id of this process."""
        return self._registry.owner

    @property
    def adopted_count(self) -> int:
        """Number of sessions taken over from dead processes since the start of this process."""
        return self._adoption.adopted_count

    @property
    def swept_count(self) -> int:
        """Number of sessions of dead processes that this process ended since its start."""
        return self._adoption.swept_count

    async def page(self, token: str, size: int) -> tuple[Sequence[OwnedSession], str]:
        """Return a page of sessions, newest first, and the token of the next page.

        Args:
            token: Token of the page; empty for the first.
            size: Number of sessions.

        Raises:
            InvalidField: the token is unknown.
            RegistryUnavailable: the registry cannot be read.
        """
        if token and await self._registry.find(token) is None:
            raise InvalidField("page_token is unknown; list from the start", field="page_token")
        rows = await self._registry.page(token, size + 1)
        sessions = [owned for stored in rows[:size] if (owned := self._owned(stored)) is not None]
        return sessions, rows[size - 1].session_id if len(rows) > size else ""

    def _owned(self, stored: StoredSession) -> OwnedSession | None:
        if is_warm(stored):
            # `pool show` has those that nobody has taken.
            return None
        try:
            session = self._directory.view_of(stored)
        except Exception:  # noqa: BLE001 - a session that cannot be shown must not hide the others
            _log.exception("session.not_shown", session=stored.session_id)
            return None
        if session is None:
            return None
        left_s = None
        if stored.seen_mono_s is not None and not stored.ended:
            left_s = max(0.0, stored.seen_mono_s + self._lease_s - time.monotonic())
        return OwnedSession(session=session, owner=stored.owner, epoch=stored.epoch, lease_left_s=left_s)
