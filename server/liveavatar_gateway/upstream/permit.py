"""Permit for one session: what its holder reports of the session, and when it is returned."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from liveavatar_gateway.pool.book import Book, PermitKind, PermitRow, Place
from liveavatar_gateway.pool.fair_order import Shares
from liveavatar_gateway.upstream.settling import Settling

PermitChange = Callable[[Book, Shares, float], object]
"""Change of the book at a time; it may be applied twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitWish:
    """Wishes of a caller for a permit."""

    tenant: str = ""
    session_id: str = ""
    """Session of the gateway."""
    accounts: Sequence[str] | None = None
    """Accounts that avatar and tenant may use, the preferred first; None for all."""
    kind: PermitKind = PermitKind.CALLER
    profile: str = ""
    """Profile of a warm session."""
    at_most: int | None = None
    """Most warm sessions of the profile, of all processes; None for no bound."""


QueuePlace = Place
"""Place of a caller in the queue, and its expected wait."""

ANYTHING: Final = PermitWish()
"""Wish for a permit of any account."""


class PermitHost(Protocol):
    """Permits of the process, as a single permit uses them."""

    def settling_of(self, account: str) -> Settling:
        """Return the learned pause of an account."""

    def limit_of(self, account: str) -> int | None:
        """Return the effective limit of an account; None for an account that is not configured."""

    def is_refusal_temporary(self, permit: "Permit") -> bool:
        """Return True if LiveAvatar's refusal is attributed to a session that it has not freed yet."""

    def explains_refusal(self, permit: "Permit") -> bool:
        """Return True if a session ended so recently that LiveAvatar may still count it."""

    def note_refusal(self, account: str, *, learned: bool) -> None:
        """Count a refusal of LiveAvatar because an account is full."""

    def step_after_refusal(self, permit: "Permit") -> float:
        """Return the pause for which a refused permit settles."""

    def change(self, permit: "Permit", change: PermitChange) -> None:
        """Write a change of a permit that goes on."""

    def end(self, permit: "Permit", change: PermitChange) -> None:
        """Write the end of a permit."""


class Permit:
    """Right to run one session, until `release` or `refuse`. It is in the registry for all that time."""

    def __init__(self, permits: PermitHost, row: PermitRow, *, number: int, waited: bool) -> None:
        self._permits = permits
        self._returned = False
        self.row = row
        """Permit as the registry has it."""
        self.number = number
        """Order of arrival of its caller, who keeps the place in the queue after a refusal."""
        self.waited = waited
        """True if the caller waited in the queue."""
        self.may_retry = False
        """Set by `refuse`: LiveAvatar is likely to accept a session soon."""

    @property
    def id(self) -> str:
        """Id in the registry."""
        return self.row.id

    @property
    def account(self) -> str:
        """Name of the account on which the session runs."""
        return self.row.account

    @property
    def had_refusals(self) -> bool:
        """True if LiveAvatar refused earlier starts with this permit."""
        return self.row.refusal_count > 0

    @property
    def ended_at_s(self) -> float | None:
        """Monotonic time at which the previous session ended; None if unknown or long ago."""
        return self.row.ended_at_s

    def accept(self) -> None:
        """Record that LiveAvatar started a session with this permit."""
        if self.row.ended_at_s is None:
            return
        now_s = time.monotonic()
        settling = self._permits.settling_of(self.account)
        settling.accepted(now_s - self.row.ended_at_s, had_refusals=self.had_refusals, now_s=now_s)
        self.row = replace(self.row, ended_at_s=None, refusal_count=0)
        self._permits.change(self, lambda book, _shares, _now_s: book.accepted(self.id))

    def refuse(self) -> None:
        """Return the permit because LiveAvatar reports a full account.

        If sessions end while other callers wait, LiveAvatar has probably not freed one yet: the permit then
        settles, longer after each refusal. Otherwise other programs use the account, or it allows fewer sessions
        than is configured, which is learned.
        """
        if self._returned:
            return
        self._returned = True
        self.may_retry = self._permits.is_refusal_temporary(self)
        settle_s = self._permits.step_after_refusal(self) if self.may_retry else 0.0
        learn = not self._permits.explains_refusal(self)
        self._permits.note_refusal(self.account, learned=learn)
        self._permits.end(
            self,
            lambda book, shares, now_s: book.refused(
                self.id, shares, now_s, settle_s=settle_s, learn=learn, settles=self.may_retry
            ),
        )

    def release(self, *, settle: bool) -> None:
        """Return the permit; `settle` if a session ran, because LiveAvatar frees the session a little later."""
        if self._returned:
            return
        self._returned = True
        settle_s = self._permits.settling_of(self.account).pause_s
        limit = self._permits.limit_of(self.account)
        self._permits.end(
            self,
            lambda book, shares, now_s: book.release(
                self.id, shares, now_s, ran=settle, settle_s=settle_s, limit=limit
            ),
        )

    def transfer(
        self, *, tenant: str | None = None, kind: PermitKind | None = None, session_id: str | None = None
    ) -> None:
        """Give the permit another tenant, purpose or session, as when a caller takes a warm session."""
        self.row = replace(
            self.row,
            tenant=self.row.tenant if tenant is None else tenant,
            kind=self.row.kind if kind is None else kind,
            session_id=self.row.session_id if session_id is None else session_id,
        )
        self._permits.change(
            self,
            lambda book, shares, now_s: book.transfer(
                self.id, shares, now_s, tenant=tenant, kind=kind, session_id=session_id
            ),
        )

    @property
    def upstream_session_id(self) -> str:
        """LiveAvatar session that the permit pays for; the registry learns it when the session is added there."""
        return self.row.upstream_session_id

    def pays_for(self, upstream_session_id: str) -> None:
        """Record the LiveAvatar session that is about to start with this permit."""
        self.row = replace(self.row, upstream_session_id=upstream_session_id)

    def abandon(self) -> None:
        """Leave the permit to the process that drives the session now."""
        if not self._returned:
            self._returned = True
            self._permits.end(self, lambda book, _shares, _now_s: book.abandon(self.id))
