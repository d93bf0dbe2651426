"""All LiveAvatar accounts of this process: choice, reload, balances, and sessions of other programs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    GatewayError,
    UpstreamCreditsExhausted,
    UpstreamUnauthenticated,
)
from liveavatar_gateway.pool.account_health import PASSING, AccountState, Trouble, order_of
from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.upstream.account import Account, AccountSpec
from liveavatar_gateway.upstream.avatars import Avatar, with_sandbox
from liveavatar_gateway.upstream.model import AvatarRequest

_log = structlog.get_logger(__name__)

_TICK_S: Final = 0.5
_RECHECK_S: Final = 2.0
"""Time between two lists of active sessions if the first has unknown ones: they may have just ended."""
_SEVERITY: Final = (
    Trouble.RATE_LIMITED,
    Trouble.BREAKER_OPEN,
    Trouble.NO_CREDITS,
    Trouble.KEY_REFUSED,
    Trouble.PAUSED,
    Trouble.DRAINING,
    Trouble.RETIRED,
)
"""Troubles in the order in which they usually end: callers are told of the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountsConfig:
    """Periods at which accounts are looked at."""

    credits_s: float = 60.0
    """Time between two reads of a balance."""
    broke_s: float = 5.0
    """The same while the account is out of credits. Lower notices added credits sooner."""
    foreign_s: float = 30.0
    """Time between two searches for sessions of other programs."""


class ForeignSessions:
    """Sessions of an account that no gateway on the registry started, seen in two lists in a row."""

    def __init__(self) -> None:
        self._before: frozenset[str] = frozenset()
        self.is_certain = True
        """False if the last list had sessions that the one before had not."""

    def note(self, unknown: Iterable[str]) -> int:
        """Take note of the unknown sessions of a list, and return how many of them the last list had too.

        A session that ended between the list and the look into the registry is unknown in one list alone.
        """
        now = frozenset(unknown)
        count = len(now & self._before)
        self.is_certain = now <= self._before
        self._before = now
        return count


@dataclass(slots=True, kw_only=True)
class _Watch:
    """Times of one account's next reads."""

    credits_at_s: float
    foreign_at_s: float
    foreign: ForeignSessions
    task: asyncio.Task[None] | None = None
    check: asyncio.Task[None] | None = None
    """Read of the balance after a refusal that it explains or refutes."""


class Accounts:
    """Accounts by their names in the registry. The creator closes them; `run` is their one task.

    Invariant: an account is never forgotten while the process lives, since its sessions may have to be stopped. An
    account that leaves the configuration counts as retired.
    """

    def __init__(
        self,
        specs: Sequence[AccountSpec],
        config: AccountsConfig,
        *,
        open_account: Callable[[AccountSpec], Account],
        ours: Callable[[Sequence[str]], Awaitable[Collection[str]]],
        on_foreign: Callable[[str, int], object] = lambda _id, _count: None,
        free_shares: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Open all accounts; nothing is called yet.

        Args:
            specs: Accounts as they are configured; at least one.
            config: Periods.
            open_account: Opens an account with its REST client.
            ours: Returns those of the given LiveAvatar sessions that the registry knows.
            on_foreign: Called with an account and the number of its sessions that other programs started.
            free_shares: Returns the part of each account's permits that is free.
        """
        self._config = config
        self._open = open_account
        self._ours = ours
        self._on_foreign = on_foreign
        self._free_shares = free_shares
        self._accounts: dict[str, Account] = {}
        self._ids: dict[str, str] = {}
        self._watches: dict[str, _Watch] = {}
        for spec in specs:
            self._add(spec)

    def __iter__(self) -> Iterator[Account]:
        return iter(tuple(self._accounts.values()))

    def _add(self, spec: AccountSpec) -> None:
        self._accounts[spec.id] = self._open(spec)
        self._note_ids(spec)
        now_s = time.monotonic()
        self._watches[spec.id] = _Watch(
            credits_at_s=now_s + self._config.credits_s,
            foreign_at_s=now_s + self._config.foreign_s,
            foreign=ForeignSessions(),
        )

    def _note_ids(self, spec: AccountSpec) -> None:
        for name in (*spec.former_ids, spec.id):
            self._ids[name] = spec.id

    @property
    def own_ids(self) -> Sequence[str]:
        """Names under which sessions are in the registry that continue here."""
        return [name for name, account in self._ids.items() if not self._accounts[account].spec.is_former]

    @property
    def former_ids(self) -> Sequence[str]:
        """Names under which sessions of former keys are in the registry, which are ended."""
        return [name for name, account in self._ids.items() if self._accounts[account].spec.is_former]

    @property
    def max_sessions(self) -> int:
        """Configured concurrent sessions of all accounts that may start some."""
        return sum(one.spec.max_sessions for one in self if one.spec.state is not AccountState.RETIRED)

    @property
    def pending_stops(self) -> int:
        """Stops that LiveAvatar has not confirmed."""
        return sum(one.stopper.pending for one in self)

    @property
    def pending_stop_ids(self) -> set[str]:
        """LiveAvatar's ids of sessions whose stop is not confirmed yet."""
        return set().union(*(one.stopper.pending_ids for one in self))

    @property
    def session_ids(self) -> frozenset[str]:
        """LiveAvatar's ids of all sessions that this process has or is about to have."""
        return frozenset().union(*(one.session_ids for one in self))

    @property
    def first(self) -> Account:
        """First account."""
        return next(iter(self._accounts.values()))

    def find(self, account_id: str) -> Account | None:
        """Return an account by a name that the registry has for it; None for an unknown one."""
        return self._accounts.get(self._ids.get(account_id, ""))

    def name_of(self, account_id: str) -> str:
        """Return the name for people of an account in the registry; its id if it is unknown here."""
        known = self.find(account_id)
        return account_id if known is None else known.name

    def of_session(self, account_id: str) -> Account:
        """Return the account of a session in the registry; for an empty name, the first account.

        Sessions from before the registry kept names of accounts have none.

        Raises:
            KeyError: the account is unknown; no other account's key may be used for its sessions.
        """
        return self._accounts[self._ids[account_id]] if account_id else self.first

    # --- choice

    def usable(
        self, request: AvatarRequest, tenant: str, *, without: Collection[str] = (), now_s: float
    ) -> Sequence[str]:
        """Return the accounts that may serve a request, in the order in which they are used.

        Empty if none may start a session now. Otherwise those whose trouble is passing come last: a caller that
        waits for a permit may get one of theirs.
        """
        rivals = [one for one in self._serving(request, tenant) if one.id not in without]
        troubles = {one.id: one.health.trouble(now_s, sandbox=request.sandbox) for one in rivals}
        shares = self._free_shares()
        order = order_of(one.candidate(shares.get(one.id, 0.0)) for one in rivals)
        well = [name for name in order if troubles[name] is None]
        return [*well, *(name for name in order if troubles[name] in PASSING)] if well else []

    def are_more(
        self,
        request: AvatarRequest,
        tenant: str,
        names: Collection[str],
        *,
        without: Collection[str] = (),
        now_s: float,
    ) -> bool:
        """Return whether `usable` has accounts that are not among these names."""
        serving = [one for one in self._serving(request, tenant) if one.id not in without]
        if all(one.id in names for one in serving):
            return False
        troubles = {one.id: one.health.trouble(now_s, sandbox=request.sandbox) for one in serving}
        return None in troubles.values() and any(
            name not in names and (trouble is None or trouble in PASSING) for name, trouble in troubles.items()
        )

    def retry_in_s(
        self,
        request: AvatarRequest,
        tenant: str,
        troubles: Collection[Trouble],
        *,
        without: Collection[str] = (),
        now_s: float,
    ) -> float | None:
        """Return the time until an account may be usable that only these troubles keep back; None without one."""
        times = [
            one.health.retry_in_s(now_s, sandbox=request.sandbox) or 0.0
            for one in self._serving(request, tenant)
            if one.id not in without and one.health.trouble(now_s, sandbox=request.sandbox) in troubles
        ]
        return min(times, default=None)

    def limits(self) -> Mapping[str, AccountLimit]:
        """Return the limits of all accounts that an operator lets start sessions."""
        now_s = time.monotonic()
        return {
            one.id: AccountLimit(
                name=one.id,
                limit=one.spec.max_sessions,
                usable=one.health.trouble(now_s, sandbox=True) is None,
            )
            for one in self
            if one.spec.state is AccountState.ACTIVE
        }

    def refusal(self, request: AvatarRequest, tenant: str, now_s: float) -> GatewayError:
        """Return the error for a request that no account can serve now: the error that ends soonest."""
        return self._least(self._serving(request, tenant), now_s, sandbox=request.sandbox)

    @staticmethod
    def _least(accounts: Iterable[Account], now_s: float, *, sandbox: bool) -> GatewayError:
        troubles = [
            (_SEVERITY.index(trouble), one.refusal(now_s, sandbox=sandbox))
            for one in accounts
            if (trouble := one.health.trouble(now_s, sandbox=sandbox)) is not None
        ]
        if troubles:
            return min(troubles, key=lambda pair: pair[0])[1]
        return CapacityExhausted(
            "no account of the gateway may be used for this avatar and this caller; the operator's file of "
            "accounts decides",
            scope="upstream_account",
            retry_after_s=60.0,
        )

    def working(self) -> Sequence[Account]:
        """Return the accounts that start sessions and whose keys work."""
        return [one for one in self if one.spec.state is not AccountState.RETIRED and not one.health.has_bad_key]

    def are_hopeless(self, names: Collection[str], *, sandbox: bool) -> bool:
        """Return whether none of these accounts will start a session without an operator's help."""
        now_s = time.monotonic()
        found = [one for name in names if (one := self.find(name)) is not None]
        troubles = [one.health.trouble(now_s, sandbox=sandbox) for one in found]
        return bool(troubles) and all(one is not None and one not in PASSING for one in troubles)

    def refusal_of(self, names: Collection[str], *, sandbox: bool) -> GatewayError:
        """Return the error for a caller that waited for these accounts in vain."""
        now_s = time.monotonic()
        found = [one for name in names if (one := self.find(name)) is not None]
        return self._least(found, now_s, sandbox=sandbox)

    def _serving(self, request: AvatarRequest, tenant: str) -> Iterable[Account]:
        return (one for one in self if one.spec.serves(request, tenant))

    # --- reload

    def use(self, specs: Sequence[AccountSpec]) -> bool:
        """Use changed accounts from now on; return False if nothing changed."""
        known = {one.id: one.spec for one in self}
        given = {spec.id: spec for spec in specs}
        left = {
            name: replace(spec, state=AccountState.RETIRED) for name, spec in known.items() if name not in given
        }
        changed = False
        for name, wanted in {**left, **given}.items():
            if name not in known:
                changed = True
                self._add(wanted)
                _log.info("account.added", account=wanted.name)
                continue
            # Sessions that were started with an earlier key stay those of the account.
            spec = replace(wanted, former_ids=known[name].former_ids | wanted.former_ids)
            if known[name] == spec:
                continue
            changed = True
            key_changed = self._accounts[name].use(spec)
            self._note_ids(spec)
            _log.info(
                "account.changed",
                account=spec.name,
                state=spec.state.value,
                new_key=key_changed,
                max_sessions=spec.max_sessions,
            )
        return changed

    def renew_keys(self) -> Sequence[str]:
        """Try refused keys again, as an operator asks for; return the names of their accounts."""
        refused = [one for one in self if one.health.has_bad_key]
        for one in refused:
            one.health.renew_key()
            # The next read of the balance shows whether the key works.
            watch = self._watches[one.id]
            watch.credits_at_s = 0.0
        return [one.name for one in refused]

    # --- what LiveAvatar says

    def check(self, account: Account, error: GatewayError) -> None:
        """Read the balance of an account now, if it shows whether a refusal of LiveAvatar stands."""
        if isinstance(error, UpstreamUnauthenticated | UpstreamCreditsExhausted):
            watch = self._watches[account.id]
            if watch.check is None or watch.check.done():
                watch.check = asyncio.create_task(
                    self._poll_credits(account), name=f"account-{account.name}/check"
                )

    async def checked(self, request: AvatarRequest, tenant: str, *, timeout_s: float) -> None:
        """Wait for the checks of accounts that may serve a request."""
        pending = [
            check
            for one in self._serving(request, tenant)
            if (check := self._watches[one.id].check) is not None and not check.done()
        ]
        if pending:
            await asyncio.wait(pending, timeout=max(0.0, timeout_s))

    async def probe(self) -> str:
        """Return the balance of an account that works; proves that a session could start.

        Raises:
            GatewayError: no account works; the error of the first.
        """
        active = [one for one in self if one.spec.state is AccountState.ACTIVE]
        results = await asyncio.gather(*(self._read_credits(one) for one in active), return_exceptions=True)
        best = [text for text in results if isinstance(text, str)]
        if best:
            return max(best, key=_number)
        for error in results:
            if isinstance(error, BaseException):
                raise error
        raise CapacityExhausted("all accounts are paused", scope="upstream_account", retry_after_s=30.0)

    async def _read_credits(self, account: Account) -> str:
        if account.health.has_bad_key:
            # A refused key is not tried again until it changes.
            raise account.refusal(time.monotonic(), sandbox=True)
        with account.checked_key():
            text = await account.rest.credits_left()
        left = _number(text)
        account.health.note_credits(None if left == float("-inf") else left, time.monotonic())
        return text

    async def avatars(self) -> Sequence[Avatar]:
        """Return the avatars of all accounts that work.

        Raises:
            GatewayError: none answered.
        """
        asked = self.working()
        results = await asyncio.gather(*(one.rest.avatars() for one in asked), return_exceptions=True)
        found: dict[str, Avatar] = {}
        for account, result in zip(asked, results, strict=True):
            if isinstance(result, BaseException):
                continue
            for one in result:
                if account.spec.avatars is None or one.id in account.spec.avatars:
                    known = found.get(one.id)
                    # An avatar of an account for some tenants is no concern of the others.
                    tenants = (
                        account.spec.tenants if known is None else _either(known.tenants, account.spec.tenants)
                    )
                    found[one.id] = replace(one, tenants=tenants)
        failure = next((result for result in results if isinstance(result, BaseException)), None)
        if not found and failure is not None:
            raise failure
        return with_sandbox(found.values())

    def trouble(self) -> str:
        """Return the reason for which no account starts a session now; empty if one does, or will in a moment."""
        now_s = time.monotonic()
        active = [one for one in self if one.spec.state is not AccountState.RETIRED]
        troubles = [one.health.trouble(now_s, sandbox=True) for one in active]
        if None in troubles or Trouble.RATE_LIMITED in troubles:
            return ""
        return self._least(active, now_s, sandbox=True).reason

    def look_for_foreign(self, account_id: str) -> None:
        """Search soon for sessions of other programs: LiveAvatar reports more than the gateway has."""
        watch = self._watches[account_id]
        watch.foreign_at_s = 0.0

    async def run(self) -> None:
        """Read balances and search for sessions of other programs, until cancelled."""
        try:
            while True:
                for account_id, watch in tuple(self._watches.items()):
                    if watch.task is None or watch.task.done():
                        watch.task = self._look(self._accounts[account_id], watch)
                await asyncio.sleep(_TICK_S)
        finally:
            for watch in self._watches.values():
                for task in (watch.task, watch.check):
                    if task is not None:
                        task.cancel()

    def _look(self, account: Account, watch: _Watch) -> asyncio.Task[None] | None:
        now_s = time.monotonic()
        if account.spec.state is AccountState.RETIRED or account.health.has_bad_key:
            return None
        if account.health.is_out_of_credits(now_s):
            watch.credits_at_s = min(watch.credits_at_s, now_s + self._config.broke_s)
        if now_s >= watch.credits_at_s:
            watch.credits_at_s = now_s + self._config.credits_s
            return asyncio.create_task(self._poll_credits(account), name=f"account-{account.name}/credits")
        if now_s >= watch.foreign_at_s:
            watch.foreign_at_s = now_s + self._config.foreign_s
            return asyncio.create_task(self._poll_foreign(account, watch), name=f"account-{account.name}/foreign")
        return None

    async def _poll_credits(self, account: Account) -> None:
        try:
            await self._read_credits(account)
        except GatewayError as error:
            _log.info("account.credits_unknown", account=account.name, reason=error.reason)
        except Exception:  # noqa: BLE001 - the root of its task
            _log.exception("account.poll_crashed", account=account.name)

    async def _poll_foreign(self, account: Account, watch: _Watch) -> None:
        try:
            with account.checked_key():
                active = await account.rest.active()
            # In this order: a session is in the registry before it is in LiveAvatar's list.
            known = {*account.session_ids, *account.stopper.pending_ids, *await self._ours(active)}
            count = watch.foreign.note(set(active) - known)
            if not watch.foreign.is_certain:
                watch.foreign_at_s = time.monotonic() + _RECHECK_S
            self._on_foreign(account.id, count)
        except GatewayError as error:
            _log.info("account.sessions_unknown", account=account.name, reason=error.reason)
        except Exception:  # noqa: BLE001 - the root of its task
            _log.exception("account.poll_crashed", account=account.name)

    # --- end

    async def give_up_stops(self) -> None:
        """Cancel all pending stops, at the end of the process."""
        for one in self:
            await one.stopper.give_up()

    async def aclose(self) -> None:
        """Close the REST clients."""
        for one in self:
            await one.rest.aclose()


def _either(tenants: frozenset[str] | None, others: frozenset[str] | None) -> frozenset[str] | None:
    """Return the tenants of two accounts; None stands for everybody."""
    return None if tenants is None or others is None else tenants | others


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("-inf")
