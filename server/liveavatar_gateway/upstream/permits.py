"""Permits for sessions on LiveAvatar's accounts, with a fair queue that all processes on a registry share."""

import asyncio
import functools
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from liveavatar_gateway.core.errors import CapacityExhausted, RegistryUnavailable
from liveavatar_gateway.pool.account_limits import FREED_WITHIN_S, AccountLimit, AccountState
from liveavatar_gateway.pool.book import Book, PermitKind, PermitRow, PermitState, Place, Waiter
from liveavatar_gateway.pool.fair_order import EQUAL_SHARES, Shares
from liveavatar_gateway.pool.overview import PoolOverview, overview_of
from liveavatar_gateway.registry.database import BUSY_MS
from liveavatar_gateway.registry.pool import MemoryPool, PoolStore
from liveavatar_gateway.upstream.permit import ANYTHING, Permit, PermitChange, PermitWish, QueuePlace
from liveavatar_gateway.upstream.settling import Settling
from liveavatar_gateway.upstream.shared_book import RETRY_S, SharedBook, Terms

__all__ = ["ANYTHING", "Permit", "PermitKind", "PermitWish", "Permits", "PermitsConfig", "QueuePlace"]

_log = structlog.get_logger(__name__)

DEFAULT_ACCOUNT: Final = "default"
"""Name of the only account where no others are configured."""
_BUSY_S: Final = BUSY_MS / 1000
"""Wait for the registry that every caller bears, also one that does not wait for a permit."""
_MOST_BUSY_S: Final = 10.0
"""Longest wait for it: a thousand callers that enter at once take some seconds."""
_INSTANT_S: Final = 0.001
"""Least time to the deadline of a caller that does not wait: such a caller still takes a permit that is free."""
_UNKNOWN_S: Final = 60.0
"""Age of a permit of this process that nobody here has, after which it is returned."""
_LEAST_RETRY_S: Final = 1.0
_MAX_RETRY_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitsConfig:
    """Number of concurrent sessions, and bounds of the waiting queue."""

    limit: int = 1
    """Concurrent sessions: the account's concurrency limit. LiveAvatar refuses sessions above it (code 4032)."""
    max_waiting: int = 100
    """Size of the waiting queue; the next caller is refused at once. Higher bridges longer peaks but lets callers
    wait in vain."""
    wait_s: float = 30.0
    """Longest wait of a caller without a deadline of its own."""
    settle_s: float = 1.0
    """Time for which a permit stays in use after a stop, since LiveAvatar needs about a second to free the
    session. Lower risks code 4032. Grows automatically, up to 8 s, while LiveAvatar takes longer."""


@dataclass(slots=True)
class _Caller:
    """Caller of this process in the queue."""

    waiter: Waiter
    granted: asyncio.Future[PermitRow]
    on_wait: Callable[[QueuePlace], object]
    place: QueuePlace


@dataclass(frozen=True, slots=True)
class _Entry:
    """Result of entering the queue."""

    waiter: Waiter
    permit: PermitRow | None
    place: Place
    refusal: str = ""
    """Reason why the caller may not wait."""


class PermitsMeter(Protocol):
    """Counter of waits and refusals."""

    def waited(self, outcome: str, seconds: float) -> None:
        """Record the end of a wait: granted, refused or left."""

    def refused(self, account: str, *, learned: bool) -> None:
        """Record a refusal of LiveAvatar because an account is full."""


class Permits:
    """Permits of all accounts, shared by all processes on a registry.

    The registry holds permits and queue, and whichever process changes them decides for all. This object changes
    them when callers of this process come and go, and polls while any of them waits. A change that cannot be
    written is kept, and written when the registry works again.
    """

    def __init__(
        self,
        config: PermitsConfig,
        store: PoolStore | None = None,
        *,
        accounts: Callable[[], Mapping[str, AccountLimit]] | None = None,
        shares: Callable[[], Shares] = lambda: EQUAL_SHARES,
        loss_pause_s: float = 10.0,
        meter: PermitsMeter | None = None,
        name_of: Callable[[str], str] = lambda account: account,
        former_names: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Prepare; nothing is read or written yet.

        Args:
            config: Bounds of the queue, and the limit of the only account without `accounts`.
            store: Registry; None for permits of this process alone.
            accounts: Present accounts by name.
            shares: Present weights, floors and ceilings of the tenants.
            loss_pause_s: Time for which nothing is granted after the registry lost permits.
            meter: Counts waits and refusals.
            name_of: Returns the name of an account for the meter.
            former_names: Names of the present accounts by the names that the registry may still have for them.
        """
        self._config = config
        only = {DEFAULT_ACCOUNT: AccountLimit(name=DEFAULT_ACCOUNT, limit=config.limit)}
        self._accounts = accounts or (lambda: only)
        self._shares = shares
        self._meter = meter
        self._name_of = name_of
        self._settling: dict[str, Settling] = {}
        self._held: dict[str, Permit] = {}
        self._callers: dict[str, _Caller] = {}
        self._shared = SharedBook(
            store or MemoryPool(),
            self,
            accounts=self._accounts,
            shares=shares,
            loss_pause_s=loss_pause_s,
            former_names=former_names,
        )
        self._polling: asyncio.Task[None] | None = None

    # --- figures

    @property
    def limit(self) -> int:
        """Number of sessions that may run concurrently on all accounts; a trouble of one does not change it."""
        now_s = time.monotonic()
        return sum(self._shared.book.limit(replace(one, usable=True), now_s) for one in self._accounts().values())

    def limit_of(self, account: str) -> int | None:
        """Return the effective limit of an account; None for an account that is not configured."""
        known = self._accounts().get(account)
        return None if known is None else self._shared.book.limit(known, time.monotonic())

    @property
    def used(self) -> int:
        """Number of permits in use, of all processes."""
        now_s = time.monotonic()
        return sum(self._shared.book.used(name, now_s) for name in self._accounts())

    @property
    def waiting(self) -> int:
        """Number of callers in the queue, of all processes."""
        return len(self._shared.book.waiters)

    @property
    def is_full(self) -> bool:
        """True if the next caller would be refused at once: all permits are used and the queue is full."""
        return self.used >= self.limit and self.waiting >= self._config.max_waiting

    @property
    def book(self) -> Book:
        """Book as this process last saw it; not to be changed."""
        return self._shared.book

    @property
    def settling(self) -> Settling:
        """Learned pause of the first account."""
        return self.settling_of(next(iter(self._accounts()), DEFAULT_ACCOUNT))

    def settling_of(self, account: str) -> Settling:
        """Return the learned pause of an account: the time for which a permit stays in use after a session."""
        return self._settling.setdefault(account, Settling(self._config.settle_s))

    def is_refusal_temporary(self, permit: Permit) -> bool:
        """Return True if LiveAvatar's refusal is attributed to a session that it has not freed yet."""
        full_until_s = self._shared.book.account(permit.account).full_until_s
        return permit.waited or bool(self._shared.book.waiters) or time.monotonic() < full_until_s

    def explains_refusal(self, permit: Permit) -> bool:
        """Return True if a session ended so recently that LiveAvatar may still count it."""
        now_s = time.monotonic()
        if permit.ended_at_s is not None:
            # On a busy account some session has always just ended, which says nothing about this permit's.
            return now_s < permit.ended_at_s + FREED_WITHIN_S
        return self._shared.book.account(permit.account).explains_refusal(now_s)

    def step_after_refusal(self, permit: Permit) -> float:
        """Return the pause for which a refused permit settles."""
        ended_at_s = permit.ended_at_s
        waited_s = 0.0 if ended_at_s is None else time.monotonic() - ended_at_s
        return self.settling_of(permit.account).refused(waited_s)

    def note_refusal(self, account: str, *, learned: bool) -> None:
        """Count a refusal of LiveAvatar because an account is full."""
        if self._meter is not None:
            self._meter.refused(self._name_of(account), learned=learned)

    # --- callers

    async def acquire(
        self,
        wish: PermitWish = ANYTHING,
        *,
        wait_s: float | None = None,
        refused: Permit | QueuePlace | None = None,
        on_wait: Callable[[QueuePlace], object] = lambda _place: None,
    ) -> Permit:
        """Wait for a permit, at most `wait_s` seconds (default: the configured wait).

        Args:
            wish: Tenant and session of the caller, and the accounts that it may use.
            wait_s: Longest wait, seconds.
            refused: Permit that LiveAvatar refused, or place of an earlier wait; its caller keeps its place in the
                queue.
            on_wait: Called when the caller enters the queue, and when its place changes. What it raises at first
                keeps the caller out.

        Raises:
            CapacityExhausted: the queue is full, or no permit came free in time.
            RegistryUnavailable: the registry cannot be changed.
        """
        began_s = time.monotonic()
        outcome = "granted"
        try:
            return await self._acquire(wish, wait_s=wait_s, refused=refused, on_wait=on_wait)
        except CapacityExhausted:
            outcome = "refused"
            raise
        except asyncio.CancelledError:
            outcome = "left"
            raise
        except BaseException:
            outcome = ""
            raise
        finally:
            # Warm sessions wait for what nobody else wants.
            if self._meter is not None and outcome and wish.kind is not PermitKind.WARM:
                self._meter.waited(outcome, time.monotonic() - began_s)

    async def _acquire(
        self,
        wish: PermitWish,
        *,
        wait_s: float | None,
        refused: Permit | QueuePlace | None,
        on_wait: Callable[[QueuePlace], object],
    ) -> Permit:
        wait_s = self._config.wait_s if wait_s is None else wait_s
        waiter = Waiter(
            id=str(uuid.uuid4()),
            tenant=wish.tenant,
            owner=self._shared.owner,
            number=0 if refused is None else refused.number,
            accounts=tuple(self._accounts() if wish.accounts is None else wish.accounts),
            deadline_s=0.0,
            session_id=wish.session_id,
            kind=wish.kind,
            profile=wish.profile,
            at_most=wish.at_most,
        )
        until_s = time.monotonic() + wait_s
        enter = functools.partial(
            self._enter,
            waiter=waiter,
            until_s=until_s,
            waits=wait_s > 0,
            max_waiting=self._config.max_waiting,
            is_new=refused is None,
        )
        try:
            entry = await self._shared.transact_within(min(max(_BUSY_S, wait_s), _MOST_BUSY_S), enter)
        except BaseException:
            self._withdraw(waiter.id)
            raise
        if entry.permit is not None:
            return self._granted(entry.permit, entry.waiter, waited=refused is not None)
        if entry.refusal:
            raise self._exhausted(entry.refusal, entry.waiter, entry.place)
        return await self._wait(entry, wait_s, until_s, on_wait)

    @staticmethod
    def _enter(
        book: Book,
        terms: Terms,
        now_s: float,
        *,
        waiter: Waiter,
        until_s: float,
        waits: bool,
        max_waiting: int,
        is_new: bool,
    ) -> _Entry:
        """Enter the queue, and leave it again with a permit or a refusal; runs in a transaction."""
        accounts, shares = terms.accounts, terms.shares
        left_s = max(until_s - time.monotonic(), _INSTANT_S)
        waiter = book.enter(replace(waiter, deadline_s=now_s + left_s), shares, now_s)
        book.grant(accounts, shares, now_s)
        if (permit := book.permits.get(waiter.id)) is not None:
            return _Entry(waiter, permit, Place(0, 0.0))
        place = book.positions(accounts, shares, now_s).get(waiter.id) or Place(len(book.waiters), None)
        refusal = ""
        if not waits:
            refusal = "none came free in 0.0 s"
        elif is_new and book.overflows(waiter, shares, max_waiting):
            refusal = f"{len(book.waiters) - 1} callers already wait"
        if refusal:
            book.leave(waiter.id)
        return _Entry(waiter, None, place, refusal)

    async def _wait(
        self, entry: _Entry, wait_s: float, until_s: float, on_wait: Callable[[QueuePlace], object]
    ) -> Permit:
        waiter = entry.waiter
        granted: asyncio.Future[PermitRow] = asyncio.get_running_loop().create_future()
        caller = self._callers[waiter.id] = _Caller(waiter, granted, on_wait, entry.place)
        self._poll()
        try:
            on_wait(entry.place)
            # wait, not wait_for or timeout: a permit that arrives together with the deadline must not be lost.
            await asyncio.wait([granted], timeout=max(0.0, until_s - time.monotonic()))
            self._callers.pop(waiter.id)
            row = granted.result() if granted.done() else await self._leave(waiter.id)
        except BaseException:
            self._withdraw(waiter.id)
            raise
        finally:
            self._callers.pop(waiter.id, None)
        if row is None:
            raise self._exhausted(f"none came free in {max(0.0, wait_s):.1f} s", waiter, caller.place)
        return self._granted(row, waiter, waited=True)

    async def _leave(self, waiter_id: str) -> PermitRow | None:
        """Leave the queue at the deadline; returns a permit that was granted meanwhile."""

        def leave(book: Book, _terms: Terms, _now_s: float) -> PermitRow | None:
            book.leave(waiter_id)
            return book.permits.get(waiter_id)

        try:
            return await self._shared.transact_within(_BUSY_S, leave)
        except RegistryUnavailable:
            self._withdraw(waiter_id)
            return None

    def _granted(self, row: PermitRow, waiter: Waiter, *, waited: bool) -> Permit:
        permit = Permit(self, row, number=waiter.number, waited=waited)
        self._held[row.id] = permit
        return permit

    def _withdraw(self, waiter_id: str) -> None:
        """Leave the queue, and return a permit that was granted meanwhile."""

        def withdraw(book: Book, shares: Shares, now_s: float) -> None:
            book.leave(waiter_id)
            book.release(waiter_id, shares, now_s, ran=False)

        self._shared.later(withdraw)

    def count_foreign(self, account: str, count: int) -> None:
        """Record the number of sessions that other programs have on an account."""

        def record(book: Book, _shares: Shares, now_s: float) -> None:
            book.accounts[account] = book.account(account).count_foreign(count, now_s)

        if count or self._shared.book.account(account).foreign:
            self._shared.later(record)

    def callers_in_need(self, *, payer: str, freed: Iterable[str]) -> Sequence[Waiter]:
        """Return the callers in the queue whom a warm session that is given up would help.

        Not those whose tenant may have no more permits, unless the session counts for that tenant, nor those for
        whom a permit is about to come free.

        Args:
            payer: Tenant for which the permits of the warm sessions count.
            freed: Accounts of other warm sessions that are being given up.
        """
        now_s, book, shares = time.monotonic(), self._shared.book, self._shares()
        callers = [
            waiter
            for waiter in book.waiters.values()
            if waiter.kind is not PermitKind.WARM
            and waiter.deadline_s > now_s
            and (waiter.tenant == payer or not book.is_at_ceiling(waiter.tenant, shares))
        ]
        settling = (
            row.account for row in book.permits.values() if row.state is PermitState.SETTLING and row.in_use(now_s)
        )
        for account in (*freed, *settling):
            served = next((waiter for waiter in callers if account in waiter.accounts), None)
            if served is not None:
                callers.remove(served)
        return callers

    def is_at_ceiling(self, tenant: str) -> bool:
        """Return whether a tenant has as many permits as it may have, of all processes."""
        return self._shared.book.is_at_ceiling(tenant, self._shares())

    def grants(self, account: str) -> bool:
        """Return whether permits of an account are granted once some are free."""
        return (self.limit_of(account) or 0) > 0

    def overview(self, accounts: Mapping[str, AccountLimit]) -> PoolOverview:
        """Return an overview of the book as this process last saw it, with these accounts."""
        return overview_of(self._shared.book, accounts, self._shares(), time.monotonic())

    @property
    def held(self) -> Sequence[PermitRow]:
        """Permits of this process."""
        return [permit.row for permit in self._held.values()]

    @property
    def has_callers(self) -> bool:
        """True if callers of this process wait."""
        return bool(self._callers)

    def see(self, book: Book, places: Mapping[str, Place]) -> None:
        """Tell waiting callers what a new state of the book has for them; called by the book."""
        now_s = time.monotonic()
        for caller in self._callers.values():
            if caller.granted.done():
                continue
            row = book.permits.get(caller.waiter.id)
            if row is not None:
                caller.granted.set_result(row)
            elif caller.waiter.id not in book.waiters and now_s < caller.waiter.deadline_s:
                # The registry lost its data, or took this process for dead.
                self._shared.later(functools.partial(_enter_again, caller.waiter))
            elif (place := places.get(caller.waiter.id)) is not None:
                self._report(caller, place)

    def adopt(self, wish: PermitWish, upstream_session_id: str) -> Permit:
        """Return the permit of a session that already runs, even if all permits are used."""
        account = next(iter(wish.accounts or self._accounts()), DEFAULT_ACCOUNT)
        row = PermitRow(
            id=str(uuid.uuid4()),
            account=account,
            tenant=wish.tenant,
            owner=self._shared.owner,
            session_id=wish.session_id,
            upstream_session_id=upstream_session_id,
            kind=wish.kind,
            profile=wish.profile,
            since_s=time.monotonic(),
        )
        permit = Permit(self, row, number=0, waited=False)
        # Known under its upstream session until the registry has said which permit that is.
        self._shared.later(lambda book, _shares, _now_s: book.adopt(row))
        self._held[row.id] = permit
        return permit

    # --- changes, called by `Permit`

    def change(self, permit: Permit, change: PermitChange) -> None:
        """Write a change of a permit that goes on."""
        if permit.id in self._held:
            self._shared.later(change)

    def end(self, permit: Permit, change: PermitChange) -> None:
        """Write the end of a permit."""
        self._held.pop(permit.id, None)
        self._shared.later(change)

    async def update_account(
        self, name: str, change: Callable[[AccountState, float], AccountState]
    ) -> AccountState:
        """Change what all processes know of an account: a pause, a limit, sessions of other programs.

        Args:
            name: Name of the account.
            change: Returns the new state from the present one and the present time; run on another thread.

        Raises:
            RegistryUnavailable: the registry cannot be changed; nothing was.
        """

        def update(book: Book, _terms: Terms, now_s: float) -> AccountState:
            state = book.accounts[name] = change(book.account(name), now_s)
            return state

        return await self._shared.transact(update)

    async def refresh(self) -> None:
        """Write all changes that wait, grant what can be granted, and read the book.

        Raises:
            RegistryUnavailable: the registry cannot be changed; the changes are kept.
        """
        await self._shared.refresh()

    async def close(self) -> None:
        """Write the last changes, within bounds. Another process frees what cannot be written."""
        if self._polling is not None:
            self._polling.cancel()
        await self._shared.close()

    async def run(self, period_s: float) -> None:
        """Restore permits that the registry lost, and read the book, until cancelled."""
        while True:
            try:
                await self.refresh()
                self._return_unknown()
            except RegistryUnavailable as error:
                _log.warning("permits.not_renewed", reason=error.reason)
            await asyncio.sleep(period_s)

    def _return_unknown(self) -> None:
        """Return permits of this process that nobody here has, as after a fault: nobody else would free them."""
        now_s = time.monotonic()
        for row in list(self._shared.book.permits.values()):
            is_own = row.owner == self._shared.owner and row.state is PermitState.HELD
            is_known = row.id in self._held or row.id in self._callers
            if is_own and not is_known and now_s > row.since_s + _UNKNOWN_S and not row.upstream_session_id:
                _log.error("permits.unknown", permit=row.id, session=row.session_id)
                self._withdraw(row.id)

    @staticmethod
    def _report(caller: _Caller, place: Place) -> None:
        before, caller.place = caller.place, place
        if before.position != place.position:
            caller.on_wait(place)

    def _poll(self) -> None:
        if self._polling is None or self._polling.done():
            self._polling = asyncio.get_running_loop().create_task(self._poll_while_waiting(), name="permits/poll")

    async def _poll_while_waiting(self) -> None:
        while self._callers:
            await asyncio.sleep(self._shared.pause_s)
            try:
                if await self._shared.is_outdated():
                    await self.refresh()
            except RegistryUnavailable:
                # Callers wait on, each until its deadline.
                await asyncio.sleep(RETRY_S)
            except Exception:  # noqa: BLE001 - root of its task: callers depend on it
                _log.exception("permits.poll_crashed")
                await asyncio.sleep(RETRY_S)

    def _exhausted(self, cause: str, waiter: Waiter, place: Place) -> CapacityExhausted:
        limit = sum(self.limit_of(account) or 0 for account in waiter.accounts if account in self._accounts())
        expected_s = place.expected_wait_s
        wait = "" if expected_s is None else f", expected wait {expected_s:.0f} s"
        values: dict[str, object] = {"limit": limit, "waiting": self.waiting, "position": place.position}
        if expected_s is not None:
            values["expected_wait_s"] = round(expected_s, 1)
        message = (
            f"all {limit} sessions of the account are in use and {cause} "
            f"(position {place.position} in the queue{wait}); "
            "end a session, wait longer, or raise GATEWAY_MAX_SESSIONS if the account allows more"
        )
        if waiter.accounts and all(self._shared.book.account(account).paused for account in waiter.accounts):
            message = f"the operator has paused the accounts on which this session could start, and {cause}"
        return CapacityExhausted(
            message,
            scope="upstream_account",
            retry_after_s=_LEAST_RETRY_S
            if expected_s is None
            else min(max(expected_s, _LEAST_RETRY_S), _MAX_RETRY_S),
            values=values,
        )


def _enter_again(waiter: Waiter, book: Book, shares: Shares, now_s: float) -> None:
    if waiter.id not in book.waiters and waiter.id not in book.permits:
        book.enter(waiter, shares, now_s)
