"""Overview of the pool for operators: what the book says about accounts, tenants and warm sessions. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from liveavatar_gateway.pool.account_health import RateBudget
from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.book import Book, PermitKind, PermitRow, PermitState
from liveavatar_gateway.pool.breaker import BreakerState
from liveavatar_gateway.pool.fair_order import Shares, TenantShare

MAX_TENANTS: Final = 1000
"""Most tenants in an overview: those that wait longest come first."""
MAX_PROFILES: Final = 1000
"""Most profiles in an overview."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUse:
    """Use of an account by all processes on the registry."""

    name: str
    """Name of the account in the registry."""
    limit: int
    """Permits that may be in use now; 0 while the account grants none."""
    allowed: int
    """The same as if the account granted permits: its limit without sessions of other programs."""
    set_limit: int | None = None
    """Limit that an operator set in place of the configured one."""
    learned: int | None = None
    """Limit that refusals show."""
    foreign: int = 0
    """Sessions of other programs."""
    held: int = 0
    settling: int = 0
    suspect: int = 0
    warm: int = 0
    """Permits of warm and prepared sessions, which are among the others."""
    paused: bool = False
    draining: bool = False
    drain_left_s: float | None = None
    """Time until the end of the sessions that remain; None without a drain, and without a deadline."""

    @property
    def used(self) -> int:
        """Number of permits in use."""
        return self.held + self.settling + self.suspect


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantUse:
    """Use of the pool by a tenant."""

    name: str
    share: TenantShare
    used: int = 0
    """Permits of running sessions."""
    waiting: int = 0
    longest_wait_s: float = 0.0
    """Time for which its first waiter has waited; 0 without a waiter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUse:
    """Warm sessions of a profile on an account."""

    profile: str
    account: str
    warm: int = 0
    """Sessions without a caller."""
    reserved: int = 0
    """Sessions that a caller has prepared and not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOverview:
    """Pool at a time."""

    accounts: Sequence[AccountUse] = ()
    tenants: Sequence[TenantUse] = ()
    """Tenants with permits, with waiters or with a share of their own; those that wait longest come first."""
    other_tenants: int = 0
    """Number of tenants that are left out."""
    warm: Sequence[WarmUse] = ()
    waiting: int = 0
    blocked_s: float = 0.0
    """Time for which nothing is granted, since the registry lost permits; 0 in general."""
    shares: Shares = field(default_factory=Shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountStatus:
    """Account as operators see it."""

    name: str
    """Name for people."""
    state: str
    """`active`, `paused`, `draining` or `retired`."""
    use: AccountUse
    """Figures of all processes on the registry."""
    configured_limit: int
    trouble: str
    """Cause for which this process starts nothing on it now; empty without one."""
    retry_in_s: float | None
    """Time until the trouble may be over; None if only an operator can end it, and without a trouble."""
    breaker: BreakerState
    last_error: str
    credits: float | None
    budget: RateBudget | None
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """Pool as operators see it; accounts have their names for people."""

    accounts: Sequence[AccountStatus]
    overview: PoolOverview


def overview_of(book: Book, accounts: Mapping[str, AccountLimit], shares: Shares, now_s: float) -> PoolOverview:
    """Return an overview of a book.

    Args:
        book: The book.
        accounts: Accounts to show, as this process has them.
        shares: Weights, floors and ceilings.
        now_s: Present time.
    """
    rows = [row for row in book.permits.values() if row.in_use(now_s)]
    by_account: dict[str, list[PermitRow]] = {}
    for row in rows:
        by_account.setdefault(row.account, []).append(row)
    tenants = sorted(_tenants(book, rows, shares, now_s), key=_by_wait)
    warm = sorted(_warm(rows), key=lambda one: (one.profile, one.account))
    return PoolOverview(
        accounts=[_account(book, one, by_account.get(one.name, ()), now_s) for one in accounts.values()],
        tenants=tenants[:MAX_TENANTS],
        other_tenants=max(0, len(tenants) - MAX_TENANTS),
        warm=warm[:MAX_PROFILES],
        waiting=len(book.waiters),
        blocked_s=max(0.0, book.blocked_until_s - now_s),
        shares=shares,
    )


def _account(book: Book, account: AccountLimit, rows: Sequence[PermitRow], now_s: float) -> AccountUse:
    state = book.account(account.name)
    states = Counter(row.state for row in rows)
    until_s = state.drain_until_s
    return AccountUse(
        name=account.name,
        limit=state.effective(account, now_s),
        allowed=state.allowed(account.limit, now_s),
        set_limit=state.limit,
        learned=state.learned_below(account.limit if state.limit is None else state.limit, now_s),
        foreign=state.foreign_count(now_s),
        held=states[PermitState.HELD],
        settling=states[PermitState.SETTLING],
        suspect=states[PermitState.SUSPECT],
        warm=sum(row.kind is not PermitKind.CALLER and row.state is PermitState.HELD for row in rows),
        paused=state.paused,
        draining=state.draining,
        drain_left_s=None if until_s is None or math.isinf(until_s) else max(0.0, until_s - now_s),
    )


def _tenants(book: Book, rows: Iterable[PermitRow], shares: Shares, now_s: float) -> Iterable[TenantUse]:
    used = Counter(row.tenant for row in rows if row.counts_for_tenant)
    waiting = Counter(waiter.tenant for waiter in book.waiters.values())
    since_s: dict[str, float] = {}
    for waiter in book.waiters.values():
        since_s[waiter.tenant] = min(since_s.get(waiter.tenant, now_s), waiter.since_s)
    for name in {*used, *waiting, *shares.by_tenant}:
        share = shares.of(name)
        if used[name] or waiting[name] or share != shares.default:
            yield TenantUse(
                name=name,
                share=share,
                used=used[name],
                waiting=waiting[name],
                longest_wait_s=max(0.0, now_s - since_s.get(name, now_s)),
            )


def _by_wait(tenant: TenantUse) -> tuple[float, int, int, str]:
    return -tenant.longest_wait_s, -tenant.waiting, -tenant.used, tenant.name


def _warm(rows: Iterable[PermitRow]) -> Iterable[WarmUse]:
    kinds: Counter[tuple[str, str, PermitKind]] = Counter(
        (row.profile, row.account, row.kind)
        for row in rows
        if row.kind is not PermitKind.CALLER and row.counts_for_tenant
    )
    for profile, account in {(profile, account) for profile, account, _ in kinds}:
        yield WarmUse(
            profile=profile,
            account=account,
            warm=kinds[profile, account, PermitKind.WARM],
            reserved=kinds[profile, account, PermitKind.RESERVED],
        )
