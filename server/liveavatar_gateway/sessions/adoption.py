"""Adoption: sessions of dead processes continue here, or are ended so that nobody pays for them."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import structlog

from liveavatar_gateway.core.errors import OwnerMoved, RegistryUnavailable
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.registry.base import Fence, HandleHash, Payload, StoredSession
from liveavatar_gateway.registry.factory import fingerprint
from liveavatar_gateway.sessions.billing import Billing, Payer
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.record import Record, left_s, read_record, requested_end
from liveavatar_gateway.sessions.restore import account_of, current_upstream
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.sessions.warm_record import is_warm
from liveavatar_gateway.upstream.pool import Pool
from liveavatar_gateway.upstream.stopper import Stopped

_log = structlog.get_logger(__name__)

_STOP_REASON = "USER_DISCONNECTED"

ContinueSession = Callable[[StoredSession, Record, Fence, float], SessionActor | None]
"""Continues a claimed session whose callers have that many seconds to come back; returns None if it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionConfig:
    """Times of an adoption."""

    renew_s: float = 2.5
    """Time that a process may have lived after its last renewal."""
    retention_s: float = 600.0
    """Time that the final records of ended sessions are kept."""


class SweepListener(Protocol):
    """Receiver of ends of dead processes' sessions. It must neither raise nor wait."""

    def on_swept(self, session_id: str, tenant: str, payload: Payload) -> None:
        """Take note of a session that was ended, with its final record; empty if the record was unreadable."""


class _Orphan:
    """Session of a dead process while it is ended: the part of it that its journal needs."""

    def __init__(self, session_id: str, tenant: str, payload: Payload) -> None:
        self.id = session_id
        self.tenant = tenant
        self._payload = payload

    def payload(self) -> Payload:
        return self._payload

    def handle_hashes(self) -> Iterable[HandleHash]:
        return ()

    def moved(self, error: OwnerMoved) -> None:
        """Do nothing: the new owner ends the session."""

    def end_for(self, reason: EndReason) -> None:
        """Do nothing: the session is being ended."""


class Adoption:
    """Claims of dead processes' sessions. A claimed session continues or is ended, even if its caller gives up."""

    def __init__(
        self,
        config: AdoptionConfig,
        journals: JournalWriter,
        pool: Pool,
        *,
        billing: Billing,
        listener: SweepListener | None = None,
    ) -> None:
        """Prepare.

        Args:
            config: Times.
            journals: Journals of sessions, and their registry.
            pool: Runs tasks, and stops LiveAvatar sessions with the keys of their accounts.
            billing: Counts the last minutes of sessions that are stopped.
            listener: Receiver of ends of sessions that do not continue.
        """
        self._listener = listener
        self.adopted_count = 0
        """Number of sessions of dead processes that continued here."""
        self.swept_count = 0
        """Number of sessions of dead processes that were ended."""
        self._config = config
        self._journals = journals
        self._pool = pool
        self._billing = billing
        self._claiming: set[str] = set()

    def is_claiming(self, session_id: str) -> bool:
        """Return whether a session is being claimed: it is this process's, and not driven yet."""
        return session_id in self._claiming

    def is_lost(self, stored: StoredSession) -> bool:
        """Return whether a session cannot continue, or its callers did not come back in time."""
        if is_warm(stored):
            # Nobody has taken it; another process keeps sessions of its own warm.
            return True
        account = self._pool.accounts.find(stored.account)
        if account is not None and account.spec.is_former:
            # Callers of a retired key know a gateway that no longer runs.
            return True
        return self._grace_left_s(stored) <= 0.0 or current_upstream(stored, read_record(stored)) is None

    def _grace_left_s(self, stored: StoredSession) -> float:
        """Return the rest of the detach grace of a session of a dead process, seconds.

        Its callers lost it when its process died, at the latest a renewal period after the last renewal. No caller
        waits if the process left in order or died before this boot, or if the end of the session was requested.
        """
        try:
            record = read_record(stored)
        except ValueError:
            return 0.0
        if stored.seen_mono_s is None or stored.end_request or record.end_reason is not None:
            return 0.0
        now_s, grace_s = time.monotonic(), record.spec.detach_grace_s
        detach_left_s = left_s(stored, record.detach_left_s, now_s)
        if detach_left_s is None:
            detach_left_s = stored.seen_mono_s + self._config.renew_s + grace_s - now_s
        return min(grace_s, detach_left_s)

    async def adopt(self, stored: StoredSession, continue_session: ContinueSession) -> SessionActor | None:
        """Continue a session of a dead process, or begin to end a lost session.

        Returns None when the session does not continue here, or when another process was faster.
        """
        if not self._has_keys(stored):
            return None
        if self.is_lost(stored):
            await self.begin_to_end(stored)
            return None
        # Its callers may be sent the address of its room before its socket is opened.
        await self._pool.egress.learn()
        claim = self._claim(stored, self._grace_left_s(stored), continue_session)
        # The claim continues when the caller gives up, since a claimed session must be driven or ended.
        return await asyncio.shield(self._pool.run(claim, name=f"session-{stored.session_id}/claim"))

    def _has_keys(self, stored: StoredSession) -> bool:
        """Return whether this process knows all accounts of a session.

        With another account's key LiveAvatar would not find it, which would count as its end while it is billed.
        """
        names = {account_of(stored, upstream) for upstream in stored.upstreams}
        unknown = sorted(name for name in names if name and self._pool.accounts.find(name) is None)
        for name in unknown:
            _log.warning("session.other_key", session=stored.session_id, key_fingerprint=fingerprint(name))
        return not unknown

    async def _claim(
        self, stored: StoredSession, grace_s: float, continue_session: ContinueSession
    ) -> SessionActor | None:
        self._claiming.add(stored.session_id)
        try:
            fence = await self._journals.registry.claim(stored)
            if fence is None:
                return None
            session = continue_session(stored, read_record(stored), fence, grace_s)
        finally:
            self._claiming.discard(stored.session_id)
        if session is None:
            self._run_end(stored, fence)
            return None
        self.adopted_count += 1
        self._pool.metrics.taken_over(adopted=True)
        if (started := session.avatars.started) is not None:
            for upstream in stored.upstreams:
                if upstream.upstream_session_id != started.session_id:
                    work = self.stop(
                        upstream.upstream_session_id,
                        account=account_of(stored, upstream),
                        may_be_starting=upstream.access is None,
                    )
                    self._pool.run(work, name=f"session-{stored.session_id}/stop-other")
        return session

    async def stop(self, upstream_session_id: str, *, account: str, may_be_starting: bool = False) -> bool:
        """Stop a LiveAvatar session that no session uses; returns whether LiveAvatar stopped a running session.

        Args:
            upstream_session_id: The session.
            account: Name of its account in the registry.
            may_be_starting: See `Stopper.stop`.
        """
        stopper = self._pool.accounts.of_session(account).stopper
        stop = await stopper.stop(upstream_session_id, _STOP_REASON, may_be_starting=may_be_starting)
        await self._settle(upstream_session_id, stop, may_be_starting=may_be_starting)
        try:
            await self._journals.registry.drop_upstream(upstream_session_id)
        except RegistryUnavailable as error:
            self._journals.note_outage(error)
        return stop.counts

    async def _settle(self, upstream_session_id: str, stop: Stopped, *, may_be_starting: bool) -> None:
        """Count the last minutes of a stopped session, or give back the minute of one that never started."""
        if stop is Stopped.BEFORE and may_be_starting:
            await self._billing.refund(upstream_session_id)
        else:
            self._billing.stopped(upstream_session_id, ran=stop is not Stopped.BEFORE)

    async def begin_to_end(self, stored: StoredSession) -> asyncio.Task[int] | None:
        """Claim a session and end it; returns the task.

        None when another process was faster, or has to end it since an account of the session is unknown here.

        The result of the task is the number of LiveAvatar sessions that it stopped.
        """
        if not self._has_keys(stored):
            return None
        claim = self._claim_to_end(stored)
        return await asyncio.shield(self._pool.run(claim, name=f"session-{stored.session_id}/claim"))

    async def _claim_to_end(self, stored: StoredSession) -> asyncio.Task[int] | None:
        fence = await self._journals.registry.claim(stored)
        return None if fence is None else self._run_end(stored, fence)

    def _run_end(self, stored: StoredSession, fence: Fence) -> asyncio.Task[int]:
        return self._pool.run(self._end(stored, fence), name=f"session-{stored.session_id}/sweep")

    async def _end(self, stored: StoredSession, fence: Fence) -> int:
        stopped = 0
        payload = await self._final_payload(stored, fence)
        journal = self._journals.open(_Orphan(stored.session_id, stored.tenant, payload), fence)
        # All stops run at once: a session that cannot be stopped now must not delay the stop of the next.
        stops = {
            upstream.upstream_session_id: self._pool.run(
                self._pool.accounts.of_session(account_of(stored, upstream)).stopper.stop(
                    upstream.upstream_session_id, _STOP_REASON, may_be_starting=upstream.access is None
                ),
                name=f"session-{stored.session_id}/sweep-{upstream.upstream_session_id}",
            )
            for upstream in stored.upstreams
        }
        starting = {upstream.upstream_session_id for upstream in stored.upstreams if upstream.access is None}
        for upstream_session_id, stop in stops.items():
            stopped += (await stop).counts
            await self._settle(upstream_session_id, stop.result(), may_be_starting=upstream_session_id in starting)
            await journal.stopped(upstream_session_id)
        await self._count_played(stored)
        # The end is an event like others, with a number that no caller has seen.
        journal.note_sequence(stored.sequence + 1)
        await journal.finish(0.0 if is_warm(stored) else self._config.retention_s)
        self.swept_count += 1
        self._pool.metrics.taken_over(adopted=False)
        if self._listener is not None and not is_warm(stored):
            self._listener.on_swept(stored.session_id, stored.tenant, payload)
        _log.info("session.swept", session=stored.session_id, epoch=fence.epoch, stopped=stopped)
        return stopped

    async def _count_played(self, stored: StoredSession) -> None:
        if is_warm(stored):
            return
        try:
            record = read_record(stored)
        except ValueError:
            return
        if record.started_at is not None:
            # The label is that of the first charge of the session.
            payer = Payer(
                session_id=stored.session_id, tenant=stored.tenant, label="", free=record.spec.avatar.sandbox
            )
            await self._billing.ended(payer, record.usage.played_s)

    async def _final_payload(self, stored: StoredSession, fence: Fence) -> Payload:
        """Return the final record of a session; empty for an unreadable session, which is quarantined."""
        if is_warm(stored):
            return stored.payload
        try:
            record = read_record(stored)
        except ValueError as error:
            _log.error(
                "sweep.unreadable",
                session=stored.session_id,
                upstream_sessions=[upstream.upstream_session_id for upstream in stored.upstreams],
                error=str(error),
            )
            await self._quarantine(fence, str(error))
            return {}
        # A session that never started was not lost by its caller: a retry of the request may try again.
        lost = EndReason.CREATE_FAILED if record.started_at is None else EndReason.CALLER_LOST
        requested = requested_end(stored.end_request) if stored.end_request else lost
        reason = record.end_reason or requested
        return replace(record, end_reason=reason, ended_at=record.ended_at or datetime.now(UTC)).payload()

    async def _quarantine(self, fence: Fence, reason: str) -> None:
        try:
            await self._journals.registry.quarantine(fence, reason)
        except RegistryUnavailable as outage:
            self._journals.note_outage(outage)
        except OwnerMoved:
            # The new owner ends the session; a stop that is repeated there does no harm.
            pass
