"""Book of the pool: permits and waiters of all processes on a registry, and the decisions about them.

Pure: time is an argument, monotonic seconds of the registry's clock. The same class runs in the transactions of
the registry, in the simulator and in property tests. Rows are immutable, so that a copy of the book is cheap.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from liveavatar_gateway.pool.account_limits import FREED_WITHIN_S, AccountLimit, AccountState
from liveavatar_gateway.pool.fair_order import (
    DEFAULT_DURATION_S,
    MIN_WEIGHT,
    SMOOTHING,
    Shares,
    TenantTime,
    entry_time,
)
from liveavatar_gateway.pool.grant_order import GrantOrder
from liveavatar_gateway.pool.rows import TRANSITIONS, PermitKind, PermitRow, PermitState, Waiter

__all__ = ["TRANSITIONS", "Book", "Grant", "PermitKind", "PermitRow", "PermitState", "Place", "Waiter"]

_MAX_TENANTS: Final = 10_000
"""Tenants without permits and waiters whose time is remembered."""
_OVERDUE_S: Final = 60.0
"""Time after its deadline for which a waiter that nobody removed is kept."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Decision to give a waiter a permit."""

    waiter: Waiter
    permit: PermitRow


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a waiter in the order in which the next permits are granted."""

    position: int
    """1 for the next."""
    expected_wait_s: float | None
    """Expected wait, seconds; None when nothing allows an estimate."""
    number: int = 0
    """Order of arrival of the waiter, by which it keeps its place when it waits again; 0 when unknown."""


@dataclass(slots=True)
class Book:
    """State of the pool.

    Invariant: `grant` never brings the permits in use on an account above its effective limit.
    """

    permits: dict[str, PermitRow] = field(default_factory=dict)
    waiters: dict[str, Waiter] = field(default_factory=dict)
    tenants: dict[str, TenantTime] = field(default_factory=dict)
    accounts: dict[str, AccountState] = field(default_factory=dict)
    duration_s: float | None = None
    """Smoothed mean duration of sessions of all tenants; None before any has ended."""
    last_number: int = 0
    blocked_until_s: float = float("-inf")
    """Time until which nothing is granted, since permits may be missing from the book."""
    generation: str = ""
    """Name of this book; another name shows that the registry lost its data."""
    running: frozenset[str] = frozenset()
    """LiveAvatar sessions of suspect permits that may run; the registry sets it for each change."""

    def copy(self) -> "Book":
        """Return a copy that can be changed apart."""
        return replace(
            self,
            permits=dict(self.permits),
            waiters=dict(self.waiters),
            tenants=dict(self.tenants),
            accounts=dict(self.accounts),
        )

    # --- limits

    def account(self, name: str) -> AccountState:
        """Return the observations of an account."""
        return self.accounts.get(name) or AccountState(name=name)

    def used(self, account: str, now_s: float) -> int:
        """Return the number of permits in use on an account."""
        return sum(row.account == account and row.in_use(now_s) for row in self.permits.values())

    def _used_by_account(self, now_s: float) -> Counter[str]:
        return Counter(row.account for row in self.permits.values() if row.in_use(now_s))

    def free_shares(self, accounts: Mapping[str, AccountLimit], now_s: float) -> Mapping[str, float]:
        """Return the part of each account's permits that is free, from 0 to 1."""
        used = self._used_by_account(now_s)
        limits = {name: self.limit(account, now_s) for name, account in accounts.items()}
        return {name: max(0.0, 1 - used[name] / limit) if limit else 0.0 for name, limit in limits.items()}

    def limit(self, account: AccountLimit, now_s: float) -> int:
        """Return the effective limit of an account."""
        return self.account(account.name).effective(account, now_s)

    def held_by(self, tenant: str) -> int:
        """Return the permits that count against floor and ceiling of a tenant."""
        return sum(row.tenant == tenant and row.counts_for_tenant for row in self.permits.values())

    def warm_count(self, profile: str) -> int:
        """Return the number of warm sessions of a profile, of all processes."""
        return sum(
            row.kind is PermitKind.WARM and row.profile == profile and row.state is not PermitState.SETTLING
            for row in self.permits.values()
        )

    def is_at_ceiling(self, tenant: str, shares: Shares) -> bool:
        """Return whether a tenant has as many permits as it may have."""
        ceiling = shares.of(tenant).ceiling
        return ceiling is not None and self.held_by(tenant) >= ceiling

    # --- the queue

    def enter(self, waiter: Waiter, shares: Shares, now_s: float) -> Waiter:
        """Add a waiter; returns it with its number. The queue has no bound here: see `overflows`."""
        number = waiter.number
        if not number:
            self.last_number += 1
            number = self.last_number
        waiter = replace(waiter, number=number, since_s=waiter.since_s or now_s)
        if not any(other.tenant == waiter.tenant for other in self.waiters.values()):
            self._begin_to_wait(waiter.tenant, shares, now_s)
        self.waiters[waiter.id] = waiter
        return waiter

    def overflows(self, waiter: Waiter, shares: Shares, max_waiting: int) -> bool:
        """Return whether a newcomer that got no permit is beyond the bound of the queue or of its tenant."""
        bound = shares.of(waiter.tenant).max_waiting
        of_tenant = sum(other.tenant == waiter.tenant for other in self.waiters.values())
        return len(self.waiters) > max_waiting or (bound is not None and of_tenant > bound)

    def leave(self, waiter_id: str) -> None:
        """Remove a waiter. Idempotent."""
        self.waiters.pop(waiter_id, None)

    def _begin_to_wait(self, tenant: str, shares: Shares, now_s: float) -> None:
        waiting = {other.tenant for other in self.waiters.values()}
        if not waiting:
            # Nobody waited, so that nobody had too little: what was used until now does not count.
            self.tenants = {
                name: replace(time, settled=-self._elapsed(name, shares, now_s))
                for name, time in self.tenants.items()
            }
        known = self._tenant(tenant)
        elapsed = self._elapsed(tenant, shares, now_s)
        reference = min((self._used_time(of, shares, now_s) for of in waiting), default=0.0)
        present_s = sum(row.cost_s(now_s) for row in self._charged(tenant))
        leeway = (present_s + known.charge_s) / _weight(shares, tenant)
        begin = entry_time(known.settled + elapsed, reference, leeway)
        self.tenants[tenant] = replace(known, settled=begin - elapsed)

    def _elapsed(self, tenant: str, shares: Shares, now_s: float) -> float:
        """Return the virtual time that a tenant's present permits have used up to now."""
        elapsed_s = sum(max(0.0, now_s - row.since_s) for row in self._charged(tenant))
        return elapsed_s / _weight(shares, tenant)

    def _used_time(self, tenant: str, shares: Shares, now_s: float) -> float:
        return self._tenant(tenant).settled + self._elapsed(tenant, shares, now_s)

    def _tenant(self, tenant: str) -> TenantTime:
        return self.tenants.get(tenant) or TenantTime(
            tenant=tenant, duration_s=self.duration_s or DEFAULT_DURATION_S
        )

    def _charged(self, tenant: str) -> Iterable[PermitRow]:
        return (row for row in self.permits.values() if row.tenant == tenant and row.counts_for_tenant)

    def _time(self, tenant: str, shares: Shares, now_s: float) -> float:
        """Return the virtual time of a tenant, its present permits included."""
        cost_s = sum(row.cost_s(now_s) for row in self._charged(tenant))
        return self._tenant(tenant).settled + cost_s / _weight(shares, tenant)

    # --- grants

    def grant(self, accounts: Mapping[str, AccountLimit], shares: Shares, now_s: float) -> list[Grant]:
        """Give free permits to waiters in fair order, as many as there are.

        Args:
            accounts: Accounts of this process; others grant nothing.
            shares: Weights, floors and ceilings of the tenants.
            now_s: Present time.
        """
        if now_s < self.blocked_until_s or not self.waiters:
            return []
        used = self._used_by_account(now_s)
        free = {name: self.limit(account, now_s) - used[name] for name, account in accounts.items()}
        if not any(count > 0 for count in free.values()):
            return []
        order = self._order(shares, now_s)
        grants: list[Grant] = []
        while (chosen := self._next(order, free)) is not None:
            waiter, account = chosen
            grants.append(self._grant(waiter, account, order, now_s))
            free[account] -= 1
        return grants

    def _order(self, shares: Shares, now_s: float) -> GrantOrder:
        waiters = [waiter for waiter in self.waiters.values() if waiter.deadline_s > now_s]
        tenants = {waiter.tenant for waiter in waiters}
        return GrantOrder(
            waiters,
            self.permits.values(),
            shares,
            times={tenant: self._time(tenant, shares, now_s) for tenant in tenants},
            charges_s={tenant: self._tenant(tenant).charge_s for tenant in tenants},
        )

    def _next(self, order: GrantOrder, free: Mapping[str, int]) -> tuple[Waiter, str] | None:
        if not any(count > 0 for count in free.values()):
            return None
        for _, tenant, waiters in order.lanes():
            if order.is_at_ceiling(tenant):
                continue
            for waiter in waiters:
                if waiter.at_most is not None and self.warm_count(waiter.profile) >= waiter.at_most:
                    continue
                for account in waiter.accounts:
                    if free.get(account, 0) > 0 and order.keeps_floors(tenant, account, free):
                        return waiter, account
        return None

    def _grant(self, waiter: Waiter, account: str, order: GrantOrder, now_s: float) -> Grant:
        freed = self._freed(account, now_s)
        charge_s = self._tenant(waiter.tenant).charge_s
        permit = PermitRow(
            id=waiter.id,
            account=account,
            tenant=waiter.tenant,
            owner=waiter.owner,
            session_id=waiter.session_id,
            kind=waiter.kind,
            profile=waiter.profile,
            since_s=now_s,
            charged_s=charge_s,
            ended_at_s=freed.ended_at_s if freed is not None else self._recent_end_s(account, now_s),
            refusal_count=freed.refusal_count if freed is not None else 0,
        )
        if freed is not None:
            del self.permits[freed.id]
        del self.waiters[waiter.id]
        self.permits[permit.id] = permit
        self.tenants.setdefault(waiter.tenant, self._tenant(waiter.tenant))
        order.granted(waiter)
        return Grant(waiter, permit)

    def _freed(self, account: str, now_s: float) -> PermitRow | None:
        """Return the permit that has settled longest, which the next session of the account follows."""
        settled = (row for row in self.permits.values() if row.account == account and not row.in_use(now_s))
        return min(settled, key=lambda row: (row.until_s or 0.0, row.id), default=None)

    def _recent_end_s(self, account: str, now_s: float) -> float | None:
        state = self.account(account)
        return state.ended_at_s if state.explains_refusal(now_s) else None

    # --- permits

    def release(
        self,
        permit_id: str,
        shares: Shares,
        now_s: float,
        *,
        ran: bool,
        settle_s: float = 0.0,
        limit: int | None = None,
    ) -> None:
        """End a permit. Idempotent.

        Args:
            permit_id: The permit.
            shares: Weights of the tenants.
            now_s: Present time.
            ran: A session ran.
            settle_s: Time for which the permit stays in use then, since LiveAvatar frees a session a little after
                its end.
            limit: Limit of the account, by which an end on a full account is recognised; None when unknown.
        """
        row = self.permits.get(permit_id)
        if row is None or row.state is PermitState.SETTLING:
            return
        self._settle_charge(row, shares, now_s, learn=ran)
        if not ran:
            del self.permits[permit_id]
            return
        was_full = limit is None or self.used(row.account, now_s) >= limit
        self.accounts[row.account] = self.account(row.account).note_end(now_s, was_full=was_full)
        self._change(row, state=PermitState.SETTLING, until_s=now_s + settle_s, ended_at_s=now_s, refusal_count=0)

    def refused(
        self,
        permit_id: str,
        shares: Shares,
        now_s: float,
        *,
        settles: bool,
        settle_s: float,
        learn: bool,
    ) -> None:
        """End a permit because LiveAvatar reports a full account (code 4032).

        Args:
            permit_id: The permit.
            shares: Weights of the tenants.
            now_s: Present time.
            settles: A session that ended probably explains the refusal.
            settle_s: Time for which the permit stays in use then.
            learn: No such session explains the refusal, so the account allows no more than what runs now.
        """
        row = self.permits.get(permit_id)
        if row is None or row.state is PermitState.SETTLING:
            return
        self._settle_charge(row, shares, now_s, learn=False)
        if learn:
            others = self.used(row.account, now_s) - 1
            self.accounts[row.account] = self.account(row.account).learn(others, now_s)
        if not settles:
            del self.permits[permit_id]
            return
        self._change(
            row,
            state=PermitState.SETTLING,
            until_s=now_s + settle_s,
            ended_at_s=now_s if row.ended_at_s is None else row.ended_at_s,
            refusal_count=row.refusal_count + 1,
        )

    def accepted(self, permit_id: str) -> None:
        """Record that LiveAvatar started a session in a permit."""
        row = self.permits.get(permit_id)
        if row is not None and (row.refusal_count or row.ended_at_s is not None):
            self._change(row, refusal_count=0, ended_at_s=None)

    def link(self, permit_id: str, upstream_session_id: str) -> None:
        """Record the LiveAvatar session that a permit pays for."""
        row = self.permits.get(permit_id)
        if row is not None and row.state is not PermitState.SETTLING:
            self._change(row, upstream_session_id=upstream_session_id)

    def transfer(
        self,
        permit_id: str,
        shares: Shares,
        now_s: float,
        *,
        tenant: str | None = None,
        session_id: str | None = None,
        kind: PermitKind | None = None,
    ) -> bool:
        """Give a permit that is held another tenant, session or purpose; False when it is not held."""
        row = self.permits.get(permit_id)
        if row is None or row.state is PermitState.SETTLING:
            return False
        if tenant is not None and tenant != row.tenant:
            self._settle_charge(row, shares, now_s, learn=False)
            self._change(row, tenant=tenant, since_s=now_s, charged_s=self._tenant(tenant).charge_s)
            self.tenants.setdefault(tenant, self._tenant(tenant))
        row = self.permits[permit_id]
        self._change(
            row,
            session_id=row.session_id if session_id is None else session_id,
            kind=row.kind if kind is None else kind,
        )
        return True

    def adopt(self, row: PermitRow) -> None:
        """Let the permit of a process that continues a LiveAvatar session replace the permit of its former owner.

        Without a former permit in the book, the permit is added above the limit if need be: the session runs.
        """
        known = self._of_upstream(row.upstream_session_id)
        if known is not None:
            del self.permits[known.id]
            # The account may have another name by now, as when its key has become one of several.
            row = replace(row, since_s=known.since_s, charged_s=known.charged_s)
        self.permits[row.id] = row

    def _of_upstream(self, upstream_session_id: str) -> PermitRow | None:
        of_upstream = (
            row
            for row in self.permits.values()
            if row.upstream_session_id == upstream_session_id and row.state is not PermitState.SETTLING
        )
        return next(of_upstream, None) if upstream_session_id else None

    def abandon(self, permit_id: str) -> None:
        """Record that another process drives the session of a permit, or ends it."""
        row = self.permits.get(permit_id)
        if row is not None and row.state is PermitState.HELD:
            self._change(row, state=PermitState.SUSPECT)

    def restore(self, rows: Iterable[PermitRow], now_s: float) -> bool:
        """Add permits that the book lost; returns whether any was missing."""
        lost = False
        for row in rows:
            known = self.permits.get(row.id)
            if known is None and self._of_upstream(row.upstream_session_id) is None:
                self.permits[row.id] = replace(row, since_s=min(row.since_s, now_s))
                lost = True
            elif known is not None and known.state is PermitState.SUSPECT:
                # Its process was taken for dead, and lives.
                self._change(known, state=PermitState.HELD, owner=row.owner)
        return lost

    def block(self, until_s: float) -> None:
        """Grant nothing until a time, by which all processes have restored their permits."""
        self.blocked_until_s = max(self.blocked_until_s, until_s)

    # --- dead processes and old rows

    @property
    def owners(self) -> frozenset[str]:
        """Processes that hold permits or have waiters."""
        held = {row.owner for row in self.permits.values() if row.state is PermitState.HELD}
        return frozenset(held | {waiter.owner for waiter in self.waiters.values()})

    def suspect(self, owner: str) -> None:
        """Record the death of a process: its waiters leave, and its permits stay in use until `confirm`."""
        self.drop_waiters(owner)
        for row in list(self.permits.values()):
            if row.owner == owner and row.state is PermitState.HELD:
                self._change(row, state=PermitState.SUSPECT)

    def drop_waiters(self, owner: str) -> None:
        """Remove the waiters of a process that stands still; it enters them again when it continues."""
        for waiter in [waiter for waiter in self.waiters.values() if waiter.owner == owner]:
            del self.waiters[waiter.id]

    @property
    def suspects(self) -> list[PermitRow]:
        """Permits of dead processes."""
        return [row for row in self.permits.values() if row.state is PermitState.SUSPECT]

    def rename_accounts(self, names: Mapping[str, str]) -> None:
        """Let permits of dead processes count for accounts that have other names now.

        Args:
            names: Present names by former names.
        """
        for row in self.suspects:
            self._change(row, account=names.get(row.account, row.account))

    def confirm(self, shares: Shares, now_s: float, *, settle_s: float) -> None:
        """Free the permits of dead processes whose sessions are not among `running`.

        Args:
            shares: Weights of the tenants.
            now_s: Present time.
            settle_s: Time for which a permit stays in use after its session was stopped.
        """
        for row in self.suspects:
            if row.upstream_session_id not in self.running:
                self.release(row.id, shares, now_s, ran=bool(row.upstream_session_id), settle_s=settle_s)

    def tidy(self, now_s: float) -> None:
        """Remove rows that decide nothing any more."""
        for row in list(self.permits.values()):
            if not row.in_use(now_s) and now_s >= (row.until_s or 0.0) + FREED_WITHIN_S:
                del self.permits[row.id]
        for waiter in list(self.waiters.values()):
            if now_s > waiter.deadline_s + _OVERDUE_S:
                del self.waiters[waiter.id]
        if len(self.tenants) > _MAX_TENANTS:
            busy = {row.tenant for row in self.permits.values()}
            busy |= {waiter.tenant for waiter in self.waiters.values()}
            self.tenants = {name: time for name, time in self.tenants.items() if name in busy}

    def next_change_s(self, now_s: float) -> float | None:
        """Return the time at which a permit comes free, or a block ends, without an event; None without any."""
        times = [row.until_s for row in self.permits.values() if row.until_s is not None and row.until_s > now_s]
        if self.blocked_until_s > now_s:
            times.append(self.blocked_until_s)
        return min(times, default=None)

    # --- forecast

    def positions(self, accounts: Mapping[str, AccountLimit], shares: Shares, now_s: float) -> dict[str, Place]:
        """Return the place of each waiter: the order in which the next permits go to the present waiters."""
        order = self._order(shares, now_s)
        per_permit_s = self._seconds_per_permit(accounts, now_s)
        blocked_s = max(0.0, self.blocked_until_s - now_s)
        return {
            waiter.id: Place(
                rank, None if per_permit_s is None else blocked_s + rank * per_permit_s, number=waiter.number
            )
            for rank, waiter in enumerate(order.forecast(), 1)
        }

    def _seconds_per_permit(self, accounts: Mapping[str, AccountLimit], now_s: float) -> float | None:
        """Return the mean time between two permits that come free."""
        slot_count = sum(self.limit(account, now_s) for account in accounts.values())
        return self.duration_s / slot_count if slot_count and self.duration_s is not None else None

    # --- rows

    def _settle_charge(self, row: PermitRow, shares: Shares, now_s: float, *, learn: bool) -> None:
        held_s = max(0.0, now_s - row.since_s)
        known, weight = self._tenant(row.tenant), _weight(shares, row.tenant)
        self.tenants[row.tenant] = known.ended(held_s, weight) if learn else known.settle(held_s, weight)
        if learn:
            before_s = held_s if self.duration_s is None else self.duration_s
            self.duration_s = before_s + (held_s - before_s) * SMOOTHING

    def _change(self, row: PermitRow, **changes: object) -> None:
        changed = replace(row, **changes)  # type: ignore[arg-type]  # names and types are those of the row
        if changed.state is not row.state and changed.state not in TRANSITIONS[row.state]:
            raise AssertionError(f"a permit cannot go from {row.state} to {changed.state}")
        self.permits[row.id] = changed


def _weight(shares: Shares, tenant: str) -> float:
    return max(shares.of(tenant).weight, MIN_WEIGHT)
