"""Drains of accounts: sessions of this process on an account that an operator empties."""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog

from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.pool.book import PermitKind, PermitRow
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.upstream.accounts import Accounts
from liveavatar_gateway.upstream.permits import Permits

_log = structlog.get_logger(__name__)

CHECK_S: Final = 1.0
"""Interval at which drains are looked at."""
_SAME_S: Final = 1.0
"""Difference of two computations of the same deadline, at most."""


class WithoutCaller(Protocol):
    """Sessions that no caller has, such as warm ones."""

    def end_drained(self, warm_id: str, /) -> bool:
        """End a session whose account is drained; returns False if the id is not that of one."""


class AccountDrains:
    """Announces the deadlines of drained accounts to their sessions, and ends these sessions at the deadlines.

    The decision is in the registry, so each process does this for its own sessions, adopted ones included.
    """

    def __init__(
        self,
        accounts: Accounts,
        permits: Permits,
        living: Callable[[], Iterable[SessionActor]],
        *,
        warm: WithoutCaller | None = None,
        reserved: WithoutCaller | None = None,
    ) -> None:
        """Prepare.

        Args:
            accounts: Accounts of this process.
            permits: Permits of all processes.
            living: Returns the sessions of this process that have not ended.
            warm: Warm sessions, which end at the begin of a drain: nobody waits for them.
            reserved: Prepared sessions, which end at the deadline: their callers may come.
        """
        self._accounts = accounts
        self._permits = permits
        self._living = living
        self._warm = warm
        self._reserved = reserved
        self._announced: dict[str, datetime] = {}
        """Deadline that each session was sent."""

    def check(self) -> None:
        """Look at all accounts and sessions once."""
        book = self._permits.book
        for account in self._accounts:
            account.health.note_drain(draining=book.account(account.id).draining)
        deadlines = {row.session_id: book.account(row.account).drain_until_s for row in self._permits.held}
        for row in self._permits.held:
            if row.kind is not PermitKind.CALLER and (until_s := deadlines[row.session_id]) is not None:
                self._end_without_caller(row, is_over=time.monotonic() >= until_s)
        living = {session.id: session for session in self._living()}
        for session_id, session in living.items():
            with bulkhead("drain.failed", session_id):
                self._check(session, deadlines.get(session_id))
        self._announced = {name: deadline for name, deadline in self._announced.items() if name in living}

    def _end_without_caller(self, row: PermitRow, *, is_over: bool) -> None:
        if row.kind is PermitKind.WARM and self._warm is not None:
            self._warm.end_drained(row.session_id)
        elif row.kind is PermitKind.RESERVED and is_over and self._reserved is not None:
            self._reserved.end_drained(row.session_id)

    def _check(self, session: SessionActor, until_s: float | None) -> None:
        if session.over:
            return
        if until_s is None or until_s == float("inf"):
            self._withdraw(session)
            return
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            _log.info("session.account_drained", session=session.id)
            session.end(EndReason.DRAINED)
            return
        self._announce(session, datetime.now(UTC) + timedelta(seconds=left_s))

    def _announce(self, session: SessionActor, deadline: datetime) -> None:
        known = self._announced.get(session.id)
        if session.draining_until is not None and session.draining_until != known:
            # The drain of the process, which has a deadline of its own.
            return
        if known is None or abs((known - deadline).total_seconds()) > _SAME_S:
            self._announced[session.id] = deadline
            session.go_away(deadline, takes_speech=True)

    def _withdraw(self, session: SessionActor) -> None:
        if (known := self._announced.pop(session.id, None)) is not None and session.draining_until == known:
            session.cancel_go_away()

    async def watch(self) -> None:
        """Look at all accounts and sessions regularly, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            self.check()
