"""Sweeper: periodic search for sessions of dead processes, so that nobody pays for an avatar out of reach."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from liveavatar_gateway.core.errors import GatewayError, RegistryUnavailable
from liveavatar_gateway.registry.base import StoredSession
from liveavatar_gateway.registry.factory import fingerprint
from liveavatar_gateway.sessions.adoption import Adoption
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.upstream.account import Account
from liveavatar_gateway.upstream.pool import Pool

_log = structlog.get_logger(__name__)

_PURGE_PERIOD_S = 60.0
_STOP_WAIT_S = 5.0
"""Longest wait of a caller that needs a permit for stops of orphans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweeperConfig:
    """Period of the search."""

    sweep_s: float = 2.0
    """Time between searches. Lower ends orphans sooner; each search reads the registry once."""


class Sweeper:
    """Search for orphans, which continue in the directory or are ended. `run` is its task."""

    def __init__(
        self,
        config: SweeperConfig,
        journals: JournalWriter,
        pool: Pool,
        *,
        directory: Directory,
        adoption: Adoption,
    ) -> None:
        """Prepare.

        Args:
            config: Period of the search.
            journals: Registry of the sessions.
            pool: LiveAvatar sessions of this process.
            directory: Continues orphans.
            adoption: Claims of orphans.
        """
        self._config = config
        self._journals = journals
        self._pool = pool
        self._directory = directory
        self._adoption = adoption
        self._purge_at_s = 0.0
        self._other_accounts: Mapping[str, int] = {}

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._config.sweep_s)

    async def sweep(self) -> None:
        """Search once; orphans continue in the directory, or are ended by tasks of the pool. Raises nothing."""
        try:
            await self._sweep_all()
        except Exception:  # noqa: BLE001 - nothing may end the search, since orphans cost money
            _log.exception("sweep.crashed")

    async def _sweep_all(self) -> None:
        registry = self._journals.registry
        try:
            for stored in await registry.orphans():
                await self._sweep_one(stored)
            if time.monotonic() >= self._purge_at_s:
                self._purge_at_s = time.monotonic() + _PURGE_PERIOD_S
                await registry.purge()
                self._log_other_accounts(await registry.other_accounts())
        except RegistryUnavailable as error:
            self._journals.note_outage(error)

    def _log_other_accounts(self, others: Mapping[str, int]) -> None:
        """Log each change of the orphans that cannot be ended without their key: somebody pays for them."""
        if others != self._other_accounts:
            for account, count in others.items():
                _log.warning("sweep.other_key", key_fingerprint=fingerprint(account), sessions=count)
        self._other_accounts = dict(others)

    async def _sweep_one(self, stored: StoredSession) -> None:
        try:
            if self._adoption.is_lost(stored):
                await self._adoption.begin_to_end(stored)
            elif not self._directory.draining:
                await self._directory.adopt(stored)
        except RegistryUnavailable:
            raise
        except Exception:  # noqa: BLE001 - a session that cannot be adopted must not keep the others running
            _log.exception("sweep.failed_for_one", session=stored.session_id)

    async def find_orphans(self) -> int:
        """Stop orphans because the account is full; returns the number of LiveAvatar sessions that were stopped.

        Only sessions in the registry are stopped: others may use the account too.
        """
        stopped = 0
        try:
            stopped += await self._stop_lost()
            stopped += await self._stop_unused()
        except RegistryUnavailable as error:
            self._journals.note_outage(error)
        _log.info("sweep.for_capacity", stopped=stopped)
        return stopped

    async def _stop_lost(self) -> int:
        """End lost sessions of dead processes."""
        orphans = await self._journals.registry.orphans()
        ending = [task for stored in orphans if (task := await self._end_if_lost(stored)) is not None]
        if not ending:
            return 0
        done, _ = await asyncio.wait(ending, timeout=_STOP_WAIT_S)
        return sum(task.result() for task in done if task.exception() is None)

    async def _stop_unused(self) -> int:
        """Stop LiveAvatar sessions of this process that it no longer uses, on all accounts at once."""
        searches = [
            self._pool.run(self._stop_unused_of(account), name=f"account-{account.name}/stop-unused")
            for account in self._pool.accounts.working()
        ]
        if not searches:
            return 0
        # An account that does not answer keeps nobody from what the others free.
        done, _ = await asyncio.wait(searches, timeout=_STOP_WAIT_S)
        return sum(task.result() for task in done)

    async def _stop_unused_of(self, account: Account) -> int:
        registry = self._journals.registry
        stopping = []
        try:
            active = await account.rest.active()
            for upstream_session_id, session_id in (await registry.session_ids(active)).items():
                stored = await registry.find(session_id)
                is_own = stored is not None and stored.owner == registry.owner
                # Of all accounts: two keys of the file may be of one LiveAvatar account.
                is_used = upstream_session_id in self._pool.accounts.session_ids
                if is_own and not is_used and not self._adoption.is_claiming(session_id):
                    work = self._adoption.stop(upstream_session_id, account=account.id)
                    stopping.append(self._pool.run(work, name=f"session-{session_id}/stop-orphan"))
        except RegistryUnavailable as error:
            self._journals.note_outage(error)
        except GatewayError as error:
            _log.warning("sweep.failed", account=account.name, reason=error.reason)
        if not stopping:
            return 0
        done, _ = await asyncio.wait(stopping, timeout=_STOP_WAIT_S)
        return sum(task.result() for task in done)

    async def _end_if_lost(self, stored: StoredSession) -> asyncio.Task[int] | None:
        try:
            return await self._adoption.begin_to_end(stored) if self._adoption.is_lost(stored) else None
        except RegistryUnavailable:
            raise
        except Exception:  # noqa: BLE001 - a session that cannot be ended must not keep the others running
            _log.exception("sweep.failed_for_one", session=stored.session_id)
            return None
