"""Takes over what dead processes left: nobody pays for an avatar that nobody can reach."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from liveavatar_gateway.core.errors import GatewayError, OwnerMoved, RegistryUnavailable
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.registry.base import Fence, HandleHash, Payload, StoredSession
from liveavatar_gateway.registry.factory import fingerprint
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.record import read_record, requested_end
from liveavatar_gateway.sessions.restore import current_upstream
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.upstream.pool import Pool
from liveavatar_gateway.upstream.stopper import Stopper

_log = structlog.get_logger(__name__)

_STOP_REASON = "USER_DISCONNECTED"
_TIDY_EVERY_S = 60.0
_STOP_WAIT_S = 5.0
"""How long a caller that wants a place waits for stops of orphans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweeperConfig:
    """How orphans are looked for."""

    sweep_s: float = 2.0
    """How often. Lower ends them sooner; each look is one read of the registry."""
    renew_s: float = 2.5
    """How long a process may have lived on unseen after its last renewal."""
    keep_s: float = 600.0
    """How long the final records of ended ones are kept."""


class _Remains:
    """A session of a dead process that is being ended."""

    def __init__(self, session_id: str, facts: Payload) -> None:
        self.id = session_id
        self._facts = facts

    def facts(self) -> Payload:
        return self._facts

    def handle_hashes(self) -> Iterable[HandleHash]:
        return ()

    def moved(self, error: OwnerMoved) -> None:
        """Nothing to do: whoever has it now ends it."""

    def end_for(self, reason: EndReason) -> None:
        """Nothing to do: it is being ended."""


class Sweeper:
    """Claims sessions of dead processes: they go on, or end when nobody wants them. `run` is its task."""

    def __init__(
        self,
        config: SweeperConfig,
        books: JournalWriter,
        pool: Pool,
        directory: Directory,
        *,
        retired: Mapping[str, Stopper] | None = None,
    ) -> None:
        """Prepare.

        Args:
            config: How orphans are looked for.
            books: What is known of sessions.
            pool: Where sessions go on.
            directory: Where sessions of dead processes go on.
            retired: What stops sessions that were made with a retired key, by the name of its account.
        """
        self.adopted_count = 0
        """Sessions of dead processes that go on here."""
        self.swept_count = 0
        """Sessions of dead processes that were ended."""
        self._config = config
        self._books = books
        self._pool = pool
        self._directory = directory
        self._tidy_at_s = 0.0
        self._retired = retired or {}
        self._others: Mapping[str, int] = {}
        directory.take_over = self.take_over

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._config.sweep_s)

    async def sweep(self) -> None:
        """Look once; what is found goes on in the directory, or is ended by tasks of the pool. Raises nothing."""
        try:
            await self._sweep_all()
        except Exception:  # noqa: BLE001 - nothing may end the search for what is paid for, or keep from starting
            _log.exception("sweep.crashed")

    async def _sweep_all(self) -> None:
        registry = self._books.registry
        try:
            for row in await registry.orphans():
                await self._sweep_one(row)
            if time.monotonic() >= self._tidy_at_s:
                self._tidy_at_s = time.monotonic() + _TIDY_EVERY_S
                await registry.tidy()
                self._name_others(await registry.other_accounts())
        except RegistryUnavailable as error:
            self._books.note_outage(error)

    def _name_others(self, others: Mapping[str, int]) -> None:
        """Say once what cannot be ended for want of its key: somebody pays for it."""
        if others != self._others:
            for account, count in others.items():
                _log.warning("sweep.other_key", key_fingerprint=fingerprint(account), sessions=count)
        self._others = dict(others)

    async def _sweep_one(self, row: StoredSession) -> None:
        try:
            if self.is_lost(row):
                await self.begin_to_end(row)
            elif not self._directory.draining:
                await self.take_over(row)
        except RegistryUnavailable:
            raise
        except Exception:  # noqa: BLE001 - one session that cannot be taken over must not keep others paid for
            _log.exception("sweep.failed_for_one", session=row.session_id)

    def is_lost(self, row: StoredSession) -> bool:
        """Whether a session of a dead process waited in vain for its callers to come back, or cannot go on."""
        if row.account != self._books.registry.account:
            # Made with a retired key: its callers are those of a gateway that is no more.
            return True
        return self.left_s(row) <= 0.0 or current_upstream(row, read_record(row)) is None

    def left_s(self, row: StoredSession) -> float:
        """How long a session of a dead process still waits for its callers to come back, seconds.

        They lost it when its process died, at the latest a renewal after that was last seen. Before this boot, or
        where it left in order, nobody waits any more; nor where its end is wanted.
        """
        try:
            record = read_record(row)
        except ValueError:
            return 0.0
        if row.seen_mono_s is None or row.end_wanted or record.end_reason is not None:
            return 0.0
        grace_s = record.spec.detach_grace_s
        until_s = record.detached_until_mono_s
        if until_s is None:
            until_s = row.seen_mono_s + self._config.renew_s + grace_s
        return min(grace_s, until_s - time.monotonic())

    async def take_over(self, row: StoredSession) -> SessionActor | None:
        """Go on with a session of a dead process; None when it cannot be, or somebody else was faster."""
        if self.is_lost(row):
            await self.begin_to_end(row)
            return None
        grace_s = self.left_s(row)
        # Seen through when the caller that asked for it gives up: a claimed session is driven or ended.
        claiming = self._pool.run(self._claim(row, grace_s), name=f"session-{row.session_id}/claim")
        return await asyncio.shield(claiming)

    async def _claim(self, row: StoredSession, grace_s: float) -> SessionActor | None:
        fence = await self._books.registry.claim(row)
        if fence is None:
            return None
        session = self._directory.adopt(row, read_record(row), fence, grace_s=grace_s)
        if session is None:
            self._run_end(row, fence)
            return None
        self.adopted_count += 1
        self._pool.metrics.taken_over(adopted=True)
        for other in row.upstreams:
            if (
                started := session.avatars.started
            ) is not None and other.upstream_session_id != started.session_id:
                work = self._stop_other(other.upstream_session_id, may_be_starting=other.access is None)
                self._pool.run(work, name=f"session-{row.session_id}/stop-other")
        return session

    async def _stop_other(self, upstream_session_id: str, *, may_be_starting: bool = False) -> bool:
        """Stop what nobody has: it was being replaced, or was to replace another, when its process died."""
        stops = self._pool.account.stopper
        stopped = (await stops.stop(upstream_session_id, _STOP_REASON, may_be_starting=may_be_starting)).counts
        try:
            await self._books.registry.drop_upstream(upstream_session_id)
        except RegistryUnavailable as error:
            self._books.note_outage(error)
        return stopped

    async def begin_to_end(self, row: StoredSession) -> asyncio.Task[int] | None:
        """Claim a session and end it; None when somebody else was faster. The task returns what was stopped."""
        claiming = self._pool.run(self._claim_to_end(row), name=f"session-{row.session_id}/claim")
        return await asyncio.shield(claiming)

    async def _claim_to_end(self, row: StoredSession) -> asyncio.Task[int] | None:
        fence = await self._books.registry.claim(row)
        return None if fence is None else self._run_end(row, fence)

    def _run_end(self, row: StoredSession, fence: Fence) -> asyncio.Task[int]:
        return self._pool.run(self._end(row, fence), name=f"session-{row.session_id}/sweep")

    async def _end(self, row: StoredSession, fence: Fence) -> int:
        stopped = 0
        facts = await self._final_facts(row, fence)
        ledger = self._books.ledger(_Remains(row.session_id, facts), fence)
        ids = [upstream.upstream_session_id for upstream in row.upstreams]
        by_key = self._retired.get(row.account, self._pool.account.stopper)
        # All at once: one that cannot be stopped now must not keep the next one paid for.
        stops = [
            self._pool.run(
                by_key.stop(one.upstream_session_id, _STOP_REASON, may_be_starting=one.access is None),
                name=f"session-{row.session_id}/sweep-{one.upstream_session_id}",
            )
            for one in row.upstreams
        ]
        for one, stop in zip(ids, stops, strict=True):
            stopped += (await stop).counts
            await ledger.stopped(one)
        # Its end is an event like others, with a number that nobody has seen.
        ledger.note_sequence(row.sequence + 1)
        await ledger.finish(self._config.keep_s)
        self.swept_count += 1
        self._pool.metrics.taken_over(adopted=False)
        _log.info("session.swept", session=row.session_id, epoch=fence.epoch, stopped=stopped)
        return stopped

    async def find_orphans(self) -> int:
        """The account is full: look for sessions of our own that nobody has; returns how many were stopped.

        Only what is in the registry is touched: others may use the account too.
        """
        registry = self._books.registry
        stopped = 0
        try:
            ending = [
                task for row in await registry.orphans() if (task := await self._end_if_lost(row)) is not None
            ]
            if ending:
                done, _ = await asyncio.wait(ending, timeout=_STOP_WAIT_S)
                stopped += sum(task.result() for task in done if task.exception() is None)
            ours = await registry.owners_of(await self._pool.account.rest.active())
            stopping = []
            for upstream_session_id, session_id in ours.items():
                row = await registry.find(session_id)
                mine = row is not None and row.owner == registry.owner
                if mine and upstream_session_id not in self._pool.account.session_ids:
                    work = self._stop_other(upstream_session_id)
                    stopping.append(self._pool.run(work, name=f"session-{session_id}/stop-orphan"))
            if stopping:
                done, _ = await asyncio.wait(stopping, timeout=_STOP_WAIT_S)
                stopped += sum(task.result() for task in done)
        except RegistryUnavailable as error:
            self._books.note_outage(error)
        except GatewayError as error:
            _log.warning("sweep.failed", reason=error.reason)
        _log.info("sweep.for_capacity", stopped=stopped)
        return stopped

    async def _end_if_lost(self, row: StoredSession) -> asyncio.Task[int] | None:
        try:
            return await self.begin_to_end(row) if self.is_lost(row) else None
        except RegistryUnavailable:
            raise
        except Exception:  # noqa: BLE001 - one that cannot be ended must not keep the others
            _log.exception("sweep.failed_for_one", session=row.session_id)
            return None

    async def _final_facts(self, row: StoredSession, fence: Fence) -> Payload:
        """Return the final record of a session; empty for one that cannot be read, which is put aside."""
        try:
            record = read_record(row)
        except ValueError as error:
            _log.error(
                "sweep.unreadable",
                session=row.session_id,
                upstream_sessions=[one.upstream_session_id for one in row.upstreams],
                error=str(error),
            )
            try:
                await self._books.registry.put_aside(fence, str(error))
            except RegistryUnavailable as outage:
                self._books.note_outage(outage)
            except OwnerMoved:
                # Whoever has it now ends it; what is stopped here as well was to be stopped.
                pass
            return {}
        # One that never came to run was not lost by its caller: a retry of its request may try again.
        lost = EndReason.CREATE_FAILED if record.started_at is None else EndReason.CALLER_LOST
        wanted = requested_end(row.end_wanted) if row.end_wanted else lost
        reason = record.end_reason or wanted
        return replace(record, end_reason=reason, ended_at=record.ended_at or datetime.now(UTC)).facts()
