"""Operation of the pool: what operators see of accounts, and their verbs."""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from liveavatar_gateway.core.errors import AccountNotFound
from liveavatar_gateway.pool.account_health import AccountState, Trouble
from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.account_limits import AccountState as SharedState
from liveavatar_gateway.pool.overview import AccountStatus, AccountUse, PoolStatus
from liveavatar_gateway.upstream.account import Account
from liveavatar_gateway.upstream.accounts import Accounts
from liveavatar_gateway.upstream.bounds import bounded
from liveavatar_gateway.upstream.permits import Permits

_log = structlog.get_logger(__name__)

_MAX_ERROR_CHARS: Final = 300
_DRAINING: Final = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReload:
    """Result of reading the files of the pool again."""

    changed: Sequence[str] = ()
    """Contents that changed."""
    failed: Sequence[str] = ()
    """Contents that cannot be used, each with its cause."""
    retried: Sequence[str] = ()
    """Accounts whose refused keys are tried again."""


ReadFiles = Callable[[], Awaitable[PoolReload]]
"""Reads the files of accounts and keys again."""


async def no_files() -> PoolReload:
    """Return an empty result: no file could be read again."""
    return PoolReload()


class PoolOperations:
    """Views and verbs of operators. What they decide about accounts is in the registry, so it holds for all."""

    def __init__(self, accounts: Accounts, permits: Permits, *, read_files: ReadFiles = no_files) -> None:
        """Prepare.

        Args:
            accounts: Accounts of this process.
            permits: Permits of all processes.
            read_files: Reads the files of accounts and keys again.
        """
        self._accounts = accounts
        self._permits = permits
        self._read_files = read_files

    # --- views

    async def fresh(self) -> PoolStatus:
        """Return the pool as the registry has it now.

        Raises:
            RegistryUnavailable: the registry cannot be read.
        """
        await self._permits.refresh()
        return self.status()

    def status(self) -> PoolStatus:
        """Return the pool as this process last saw it."""
        now_s = time.monotonic()
        shown = sorted(self._shown(), key=lambda account: account.name)
        overview = self._permits.overview(
            {
                one.id: AccountLimit(
                    name=one.id,
                    limit=one.spec.max_sessions,
                    usable=one.health.trouble(now_s, sandbox=True) is None,
                )
                for one in shown
            }
        )
        uses = {use.name: use for use in overview.accounts}
        return PoolStatus(
            accounts=[_status(one, uses[one.id], now_s) for one in shown],
            overview=replace(
                overview,
                warm=[replace(warm, account=self._accounts.name_of(warm.account)) for warm in overview.warm],
            ),
        )

    def _shown(self) -> Sequence[Account]:
        """Return the accounts without those of former keys on which nothing runs any more."""
        busy = {row.account for row in self._permits.book.permits.values()}
        return [one for one in self._accounts if not one.spec.is_former or one.id in busy]

    def knows(self, name: str) -> bool:
        """Return whether an account has this name."""
        return self._find(name) is not None

    def _find(self, name: str) -> Account | None:
        return next((one for one in self._shown() if one.name == name), None)

    # --- verbs

    async def pause(self, name: str) -> AccountStatus:
        """Let no process start a session on an account until `resume`; callers wait.

        Raises:
            AccountNotFound: no account has this name.
            RegistryUnavailable: nothing has changed.
        """
        return (await self._change(name, lambda state, _now_s: state.pause(), "pool.paused"))[0]

    async def resume(self, name: str) -> tuple[AccountStatus, bool]:
        """Start sessions on an account again; return False beside it if it was neither paused nor draining.

        Raises:
            AccountNotFound: no account has this name.
            RegistryUnavailable: nothing has changed.
        """
        status, before = await self._change(name, lambda state, _now_s: state.resume(), "pool.resumed")
        return status, before.paused or before.draining

    async def drain(self, name: str, grace_s: float | None) -> AccountStatus:
        """Let no process start a session on an account until `resume`, and end its sessions after a grace.

        Args:
            name: Name of the account.
            grace_s: Time until the remaining sessions are ended; None to let them end by themselves.

        Raises:
            AccountNotFound: no account has this name.
            RegistryUnavailable: nothing has changed.
        """
        wait_s = math.inf if grace_s is None else grace_s
        return (await self._change(name, lambda state, now_s: state.drain(now_s + wait_s), "pool.draining"))[0]

    async def set_limit(self, name: str, limit: int | None) -> AccountStatus:
        """Change the limit of an account; None for the configured one.

        Raises:
            AccountNotFound: no account has this name.
            RegistryUnavailable: nothing has changed.
        """
        return (await self._change(name, lambda state, _now_s: state.use_limit(limit), "pool.limit_set"))[0]

    async def reload(self) -> PoolReload:
        """Read the files of accounts and keys again, and try refused keys again."""
        refused = [one.name for one in self._accounts if one.health.has_bad_key]
        read = await self._read_files()
        # Also where no file names the keys, as with a key in a variable.
        self._accounts.renew_keys()
        return replace(read, retried=refused)

    async def _change(
        self, name: str, change: Callable[[SharedState, float], SharedState], event: str
    ) -> tuple[AccountStatus, SharedState]:
        account = self._find(name)
        if account is None:
            raise AccountNotFound(name)
        states: list[SharedState] = []

        def note(state: SharedState, now_s: float) -> SharedState:
            states.append(state)
            return change(state, now_s)

        await self._permits.update_account(account.id, note)
        # At once; the other processes see it when they read the book next.
        account.health.note_drain(draining=self._permits.book.account(account.id).draining)
        (status,) = [one for one in self.status().accounts if one.name == name]
        _log.info(event, account=name, state=status.state, limit=status.use.limit)
        return status, states[-1]


def _status(account: Account, use: AccountUse, now_s: float) -> AccountStatus:
    health = account.health
    trouble = health.trouble(now_s)
    state = _state(account, use)
    return AccountStatus(
        name=account.name,
        state=state,
        use=use,
        configured_limit=account.spec.max_sessions,
        trouble=trouble.value if trouble is not None else _shared_trouble(use),
        retry_in_s=None if trouble is None else health.retry_in_s(now_s),
        breaker=health.breaker.state,
        last_error="" if health.error is None else bounded(health.error.message, _MAX_ERROR_CHARS),
        credits=health.credits,
        budget=health.budget,
        cost=account.spec.cost,
    )


def _state(account: Account, use: AccountUse) -> str:
    if account.spec.state is AccountState.RETIRED:
        return AccountState.RETIRED.value
    if use.draining:
        return _DRAINING
    return AccountState.PAUSED.value if use.paused else account.spec.state.value


def _shared_trouble(use: AccountUse) -> str:
    if use.draining:
        return Trouble.DRAINING.value
    return Trouble.PAUSED.value if use.paused else ""
