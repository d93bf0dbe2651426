"""Directory of the sessions of this process, by id, handle or request id."""

import asyncio
import math
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

import structlog

from liveavatar_gateway.auth.limiter import Admission, Limiter
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import (
    Draining,
    GatewayError,
    OwnerMoved,
    RegistryUnavailable,
    RequestIdReused,
    SessionNotFound,
    UpstreamTimeout,
)
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.registry.base import Fence, StoredSession
from liveavatar_gateway.sessions.adoption import Adoption
from liveavatar_gateway.sessions.audio_input import load_conversion
from liveavatar_gateway.sessions.billing import Billing
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.handles import Handles, session_id_of
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.keyed_locks import KeyedLocks
from liveavatar_gateway.sessions.local_sessions import LocalSessions
from liveavatar_gateway.sessions.observers import Observers
from liveavatar_gateway.sessions.reconnector import ReconnectConfig
from liveavatar_gateway.sessions.record import Record, read_record
from liveavatar_gateway.sessions.reservations import Reservation, Reservations
from liveavatar_gateway.sessions.restore import is_readable, restore, restore_ended, view_of
from liveavatar_gateway.sessions.services import SessionServices, new_id, utc_now
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.view import SessionView
from liveavatar_gateway.sessions.warm_pool import WarmPool
from liveavatar_gateway.sessions.warm_record import is_warm
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.pool import Pool

_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")

_END_WAIT_S = 30.0
"""Longest wait for the end of a session, for callers without a deadline."""
_POLL_S = 0.1
"""Period at which the registry is read for a session that is ended or adopted at present."""
_RECORD_WAIT_S = 1.0
"""Longest wait for the final record of a session that LiveAvatar has stopped; the registry may be locked."""
_CLAIM_WAIT_S = 2.0
"""Longest wait of a call for a session that this process has claimed and neither adopted nor ended yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryConfig:
    """Bounds and times of sessions."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """Deadlines of each session."""
    reconnect: ReconnectConfig = field(default_factory=ReconnectConfig)
    """Retries after the loss of a command socket."""
    max_chunk_bytes: int = 256 * 1024
    """Size of the largest chunk that is accepted."""
    retention_s: float = 600.0
    """Time that an ended session stays readable."""
    max_ended: int = 1000
    """Largest number of ended sessions of one tenant that stay readable."""
    usage_label: str = ""
    """Key of the session label under whose value usage is counted; empty for none."""
    exit_timeout_s: float = 5.0
    """Time for which the exit waits until LiveAvatar confirms stops."""


class CreateListener(Protocol):
    """Receiver of errors of creates."""

    def on_create_failed(self, error: GatewayError) -> None:
        """Take note of a session that could not be created."""


def _start_grace(opening: asyncio.Task[SessionActor]) -> None:
    """Start the detach grace of a session whose caller left before it was created."""
    if not opening.cancelled() and opening.exception() is None:
        session = opening.result()
        session.attachments.start_grace(session.spec.detach_grace_s)


async def _within(work: Awaitable[_Result], until_s: float) -> _Result:
    """Return the result of a call of the registry; one that is made goes on after the time is over.

    Raises:
        RegistryUnavailable: the registry has not answered up to a monotonic time.
    """
    try:
        # At least a moment: a call that has no time left may still be lucky.
        async with asyncio.timeout(None if until_s == math.inf else max(_POLL_S, until_s - time.monotonic())):
            return await work
    except TimeoutError:
        raise RegistryUnavailable(
            "the registry has not answered in time; another process may hold its lock"
        ) from None


async def _wait(event: asyncio.Event, until_s: float) -> None:
    """Wait for an event, or until a monotonic time."""
    # wait, not timeout: an event that comes together with the deadline counts.
    waiting = asyncio.create_task(event.wait(), name="directory/wait")
    try:
        await asyncio.wait([waiting], timeout=max(0.0, until_s - time.monotonic()))
    finally:
        waiting.cancel()


class Directory:
    """All sessions of this process. Owns their tasks; use as an async context manager.

    Leaving the context ends what still lives and waits until LiveAvatar has stopped it, within bounds. Each
    session is a bulkhead: its task belongs to no group, so a fault that ends it cancels no other session.
    """

    def __init__(
        self,
        config: DirectoryConfig,
        pool: Pool,
        journals: JournalWriter,
        metrics: Metrics,
        *,
        adoption: Adoption,
        billing: Billing,
        create_listener: CreateListener,
        limiter: Limiter,
        warm: WarmPool,
        reservations: Reservations,
    ) -> None:
        """Begin without sessions.

        Args:
            config: Bounds and times.
            pool: Source of LiveAvatar sessions.
            journals: Journals of sessions, and their registry.
            metrics: Metrics of sessions.
            adoption: Claims of sessions of dead processes.
            billing: Counter of minutes and usage.
            create_listener: Receiver of errors of creates.
            limiter: Quotas of tenants.
            warm: Sessions that are ready before their caller comes.
            reservations: The same for callers that have announced themselves.
        """
        self._warm = warm
        self._reservations = reservations
        self._config = config
        self._pool = pool
        self._journals = journals
        self._adoption = adoption
        self._create_listener = create_listener
        self._limiter = limiter
        self.observers = Observers()
        """Watchers of all sessions."""
        self._services = SessionServices(
            config=config.session,
            reconnect=config.reconnect,
            retention_s=config.retention_s,
            pool=pool,
            warm=warm,
            journals=journals,
            billing=billing,
            usage_label=config.usage_label,
            metrics=metrics,
            listener=self.observers,
        )
        self._local = LocalSessions(retention_s=config.retention_s, max_ended=config.max_ended)
        self._running: set[asyncio.Task[None]] = set()
        self._locks = KeyedLocks()
        self.draining = False
        """True while new sessions are refused."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.draining = True
        self.end_all(EndReason.DRAINED)
        if self._running:
            await asyncio.wait(self._running, timeout=self._config.exit_timeout_s)
        # LiveAvatar has not confirmed the stops of these; the pool continues them as long as it is open.
        while unfinished := set(self._running):
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished)
            # Callbacks of the tasks remove them from the set.
            await asyncio.sleep(0)
        self.observers.close()

    async def open(
        self,
        spec: SessionSpec,
        request_id: str,
        *,
        tenant: str,
        wait_s: float | None,
        reservation_id: str = "",
    ) -> SessionActor:
        """Create a session of a tenant, or return the session that was created for its same request.

        A request is in the registry before anything is done for it, so that its retry finds the session from any
        process. If the caller gives up meanwhile, the session waits for the detach grace, as after a lost stream.

        Raises:
            Draining: new sessions are refused.
            QuotaExceeded: the tenant has too many sessions, or opens too many.
            ReservationNotFound, ReservationMismatch: the reservation is of no use for the session.
            RequestIdReused: the request id was used with another spec.
            OwnerMoved: another process has the session of that request.
            RegistryUnavailable: the session of that request cannot be looked up, or not within `wait_s`.
        """
        until_s = math.inf if wait_s is None else time.monotonic() + wait_s
        wait_s = self._limiter.longest_wait_s(tenant, self._pool.wait_s if wait_s is None else wait_s)
        if not request_id:
            return await self._open(spec, tenant, wait_s, reservation_id)
        opening = self._pool.run(
            self._open_for(spec, tenant, request_id, wait_s, reservation_id), name=f"request-{request_id}/open"
        )
        try:
            return await _within(asyncio.shield(opening), until_s)
        except RegistryUnavailable as error:
            if opening.done():
                self._journals.note_outage(error)
            else:
                opening.add_done_callback(_start_grace)
            raise
        except asyncio.CancelledError:
            opening.add_done_callback(_start_grace)
            raise

    async def _open(
        self, spec: SessionSpec, tenant: str, wait_s: float | None, reservation_id: str
    ) -> SessionActor:
        if self.draining:
            raise Draining
        reservation = await self._reserved(reservation_id, spec, tenant)
        if self.draining and reservation is not None:
            # The drain began meanwhile, and ends only the sessions that it finds.
            self._reservations.put_back(reservation)
            raise Draining
        admission = self._admit(spec, tenant, reservation)
        session = self._new(spec, tenant, "")
        self._add(session, wait_s, admission, reservation)
        return session

    async def _reserved(self, reservation_id: str, spec: SessionSpec, tenant: str) -> Reservation | None:
        if not reservation_id:
            return None
        return await self._reservations.claim(reservation_id, spec, tenant=tenant)

    def _admit(self, spec: SessionSpec, tenant: str, reservation: Reservation | None) -> Admission:
        if reservation is not None:
            return reservation.admission
        permits = self._pool.permits
        waits = permits.used >= permits.limit and not self._warm.has(spec, tenant=tenant)
        return self._limiter.admit_session(tenant, waits=waits)

    def _new(self, spec: SessionSpec, tenant: str, request_id: str) -> SessionActor:
        return SessionActor(spec, self._services, tenant=tenant, request_id=request_id)

    async def _open_for(
        self, spec: SessionSpec, tenant: str, request_id: str, wait_s: float | None, reservation_id: str
    ) -> SessionActor:
        async with self._locks.locked(f"request {tenant} {request_id}"):
            while True:
                # Another process may reserve the request between the lookup and the reservation.
                known = self._local.of_request(request_id, tenant=tenant)
                failed = ""
                if known is None or known.end_reason is EndReason.CREATE_FAILED:
                    # A failed session may still be stopping: its caller knows of the failure, and may try again.
                    known, failed = await self._find_request(tenant, request_id, spec)
                if known is not None:
                    if known.spec != spec:
                        raise RequestIdReused(request_id)
                    return known
                if self.draining:
                    raise Draining
                reservation = await self._reserved(reservation_id, spec, tenant)
                admission = self._admit(spec, tenant, reservation)
                try:
                    session = await self._reserve(self._new(spec, tenant, request_id), instead_of=failed)
                except BaseException:
                    self._give_back(admission, reservation)
                    raise
                if session is None:
                    # Another process was faster.
                    self._give_back(admission, reservation)
                    continue
                self._add(session, wait_s, admission, reservation)
                return session

    def _give_back(self, admission: Admission, reservation: Reservation | None) -> None:
        if reservation is None:
            admission.release()
        else:
            self._reservations.put_back(reservation)

    async def _reserve(self, session: SessionActor, *, instead_of: str) -> SessionActor | None:
        """Add a session to the registry under its request; None when another process has one for the request."""
        fence = await self._journals.registry.reserve(
            session.id,
            session.payload(),
            tenant=session.tenant,
            request_id=session.request_id,
            instead_of=instead_of,
        )
        if fence is None:
            return None
        session.reserved(fence)
        if self.draining:
            await session.lifecycle.call_off(Draining())
            raise Draining
        return session

    async def _find_request(
        self, tenant: str, request_id: str, spec: SessionSpec
    ) -> tuple[SessionActor | None, str]:
        """Find the session of a request in the registry, or the id of a failed session that a new one may follow.

        Raises:
            RequestIdReused: the session has another spec.
            OwnerMoved: another process has the session.
            RegistryUnavailable: the registry cannot be read.
        """
        registry = self._journals.registry
        stored = await registry.find_request(request_id, tenant=tenant)
        if stored is None:
            return None, ""
        try:
            record = read_record(stored)
        except ValueError:
            return None, stored.session_id
        local = self._local.get(stored.session_id)
        end_reason = record.end_reason if local is None else local.end_reason
        if end_reason is EndReason.CREATE_FAILED:
            # Nothing was created, so a retry of the same request may try again.
            return None, stored.session_id
        if record.spec != spec:
            raise RequestIdReused(request_id)
        if local is not None:
            return local, ""
        if (
            not stored.ended
            and record.started_at is None
            and not self.draining
            and await registry.is_abandoned(stored)
        ):
            # The process that reserved the request died before it could answer.
            return await self._adopted_or_ended(stored)
        return self._actor(await self._find_elsewhere(stored.session_id, tenant=tenant, field="request_id")), ""

    async def _adopted_or_ended(self, stored: StoredSession) -> tuple[SessionActor | None, str]:
        if (adopted := await self.adopt(stored) or self._local.get(stored.session_id)) is not None:
            return adopted, ""
        registry = self._journals.registry
        now = await registry.find(stored.session_id)
        if now is not None and not now.ended and now.owner != registry.owner:
            # Another process continues or ends it, perhaps the only one that knows its account.
            raise OwnerMoved(stored.session_id, address=now.address)
        return None, stored.session_id

    async def adopt(self, stored: StoredSession) -> SessionActor | None:
        """Continue a session of a dead process; None when it cannot continue, or another process was faster."""
        # The session may have an utterance in any format.
        await load_conversion()
        return await self._adoption.adopt(stored, self._continue)

    def _continue(
        self, stored: StoredSession, record: Record, fence: Fence, grace_s: float
    ) -> SessionActor | None:
        """Continue a claimed session; None when its LiveAvatar session cannot be reached."""
        try:
            restored = restore(
                stored,
                record,
                fence,
                self._config.session,
                grace_s=grace_s,
                max_chunk_bytes=self._config.max_chunk_bytes,
                new_id=new_id,
                utc_now=utc_now,
                now_mono_s=time.monotonic(),
            )
        except (ValueError, GatewayError) as error:
            _log.warning("session.unreadable", session=stored.session_id, error=str(error))
            return None
        if restored is None:
            return None
        session = SessionActor(
            record.spec, self._services, tenant=stored.tenant, request_id=record.request_id, restored=restored
        )
        self._add(session, None, self._limiter.count_session(session.tenant))
        return session

    def _add(
        self,
        session: SessionActor,
        wait_s: float | None,
        admission: Admission,
        reservation: Reservation | None = None,
    ) -> None:
        self._local.add(session)
        running = self._run(session, wait_s, admission, reservation)
        task = asyncio.create_task(running, name=f"session-{session.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: admission.release())
        self.observers.on_session(session)

    async def _run(
        self,
        session: SessionActor,
        wait_s: float | None,
        admission: Admission,
        reservation: Reservation | None,
    ) -> None:
        take_reserved = (
            None if reservation is None else lambda: self._reservations.taken(reservation, session.spec)
        )
        try:
            await session.lifecycle.run(wait_s, admission, take_reserved)
        except asyncio.CancelledError:
            # Another process took the session over while it ended here, so it does not stay readable here.
            if session.lost_to is None:
                raise
        except BaseException as fault:  # noqa: BLE001 - the root of the task: no fault may reach other sessions
            session.lifecycle.crashed(fault)
        finally:
            if reservation is not None:
                # Of no effect on an avatar that the session has taken.
                reservation.warm.give_up("unused")
        if session.lost_to is not None:
            self._local.remove(session)
            self.observers.on_news(session.id)
            return
        if session.end_reason is EndReason.CREATE_FAILED:
            self._report_failed_create(session)
            # Nothing was created, so a retry of the same request may try again.
            self._local.release_request(session)
        self._local.retain(session)

    def _report_failed_create(self, session: SessionActor) -> None:
        error = session.error
        if isinstance(error, RegistryUnavailable):
            self._journals.note_outage(error)
        if error is not None:
            self._create_listener.on_create_failed(error)

    def local(self, session_id: str, *, tenant: str | None) -> SessionActor | None:
        """Return a session of a tenant that this process has or had; None for any other.

        `tenant` is None for operators here and below, who see the sessions of all tenants.
        """
        self._local.remove_expired()
        session = self._local.get(session_id)
        return session if session is not None and tenant in (None, session.tenant) else None

    async def get(self, session_id: str, *, tenant: str | None) -> SessionActor:
        """Return a session by id.

        Raises:
            SessionNotFound: the session does not exist, or belongs to another tenant.
            OwnerMoved: another process has the session.
            RegistryUnavailable: the session is not here, and the registry cannot be read.
        """
        return self._actor(await self._find(session_id, tenant))

    async def view(self, session_id: str, *, tenant: str | None) -> SessionView:
        """Return a session for display.

        Raises:
            SessionNotFound, OwnerMoved, RegistryUnavailable: see `get`.
        """
        return self._view(await self._find(session_id, tenant))

    async def _find(self, session_id: str, tenant: str | None) -> SessionActor | StoredSession:
        here = self.local(session_id, tenant=tenant)
        return here or await self._find_elsewhere(session_id, tenant=tenant, field="session_id")

    async def end(
        self, session_id: str, reason: EndReason, *, tenant: str | None, wait_s: float | None
    ) -> SessionView:
        """End a session of any process, and wait until LiveAvatar has stopped it.

        A session of another process is ended by that process, within its renewal period; if that is dead, by the
        process that finds the session next. The request outlives this call.

        Args:
            session_id: The session.
            tenant: Tenant of the session; None for an operator.
            reason: Reason of the end, unless the session already has another.
            wait_s: Longest wait for another process and for LiveAvatar; None for 30 s.

        Raises:
            SessionNotFound: the session does not exist, or belongs to another tenant.
            OwnerMoved: another process has the session, and has not ended it in time; it will.
            RegistryUnavailable: the session is not here, and the registry cannot be read, or takes no request.
            UpstreamTimeout: LiveAvatar has not confirmed the end in time.
        """
        until_s = time.monotonic() + (_END_WAIT_S if wait_s is None else wait_s)
        requested = False
        while True:
            try:
                session = await self._find(session_id, tenant)
            except OwnerMoved:
                if not requested:
                    await _within(self._journals.registry.request_end(session_id, reason.value), until_s)
                    requested = True
                if time.monotonic() >= until_s:
                    raise
                await asyncio.sleep(_POLL_S)
                continue
            if isinstance(session, StoredSession):
                return self._view(session)
            session.end(reason)
            await self._await_end(session, until_s)
            if session.lost_to is None:
                return session.view()

    async def _await_end(self, session: SessionActor, until_s: float) -> None:
        await _wait(session.finished, until_s)
        if not session.finished.is_set():
            raise UpstreamTimeout(
                f"LiveAvatar has not confirmed the end of session {session.id} yet; the gateway keeps trying, "
                "ask again",
                retry_after_s=1.0,
                session_id=session.id,
            )
        # A caller that asks another process next must read the same record there.
        await _wait(session.lifecycle.recorded, min(until_s, time.monotonic() + _RECORD_WAIT_S))

    async def _find_elsewhere(
        self, session_id: str, *, tenant: str | None, field: str
    ) -> SessionActor | StoredSession:
        """Return a session that is not here: stored if it ended, adopted if its owner is dead.

        Raises:
            SessionNotFound: the session does not exist, belongs to another tenant, or ended unreadable.
            OwnerMoved: another process has the session.
            RegistryUnavailable: the registry cannot be read.
        """
        registry = self._journals.registry
        until_s = time.monotonic() + _CLAIM_WAIT_S
        async with self._locks.locked(f"session {session_id}"):
            while True:
                if (session := self.local(session_id, tenant=tenant)) is not None:
                    return session
                stored = await registry.find(session_id)
                # Before OwnerMoved could tell another tenant that the session exists.
                is_foreign = stored is not None and tenant not in (None, stored.tenant)
                is_hidden = stored is not None and (is_warm(stored) or (stored.ended and not is_readable(stored)))
                if stored is None or is_foreign or is_hidden:
                    raise SessionNotFound(session_id, field=field)
                if stored.ended:
                    return stored
                if stored.owner != registry.owner or time.monotonic() >= until_s:
                    break
                # This process has claimed the session and adopts or ends it: OwnerMoved would lead back here.
                await asyncio.sleep(_POLL_S)
            adopted = None
            if not self.draining and await registry.is_abandoned(stored):
                # The sweeper may have been faster.
                adopted = await self.adopt(stored) or self._local.get(session_id)
            if adopted is None:
                raise OwnerMoved(session_id, address=stored.address)
            return adopted

    def _actor(self, session: SessionActor | StoredSession) -> SessionActor:
        """Return the actor of a session; for a session that ended elsewhere, one that has ended too."""
        if isinstance(session, SessionActor):
            return session
        try:
            record, restored = restore_ended(session, self._config.session, new_id=new_id, utc_now=utc_now)
        except (ValueError, GatewayError) as error:
            _log.warning("session.unreadable", session=session.session_id, error=str(error))
            raise SessionNotFound(session.session_id, field="session_id") from None
        return SessionActor(record.spec, self._services, tenant=session.tenant, restored=restored)

    @staticmethod
    def _view(session: SessionActor | StoredSession) -> SessionView:
        return session.view() if isinstance(session, SessionActor) else view_of(session, utc_now=utc_now)

    def view_of(self, stored: StoredSession) -> SessionView | None:
        """Return a session of any process for display; None when its record cannot be read."""
        if (session := self._local.get(stored.session_id)) is not None:
            return session.view()
        return self._view(stored) if is_readable(stored) else None

    async def by_handle(self, handle: str, *, tenant: str, field: str) -> SessionActor:
        """Return a session of a tenant by its handle.

        Raises:
            SessionNotFound: the handle belongs to no session of the tenant, or a newer handle has replaced it. The
                error does not repeat the handle, which may be a real secret.
            OwnerMoved: another process has the session.
            RegistryUnavailable: the session is not here, and the registry cannot be read.
        """
        session_id = session_id_of(handle)
        session = self._local.get(session_id)
        if session is None and await self._is_accepted_elsewhere(session_id, handle, tenant):
            return self._actor(await self._find_elsewhere(session_id, tenant=tenant, field=field))
        if session is None or not session.handles.accepts(handle, time.monotonic(), tenant=tenant):
            raise SessionNotFound(session_id, field=field)
        return session

    async def _is_accepted_elsewhere(self, session_id: str, handle: str, tenant: str) -> bool:
        stored = await self._journals.registry.find(session_id)
        if stored is None:
            return False
        known = Handles(session_id, keep_s=0.0, hashes=stored.handles)
        return known.accepts(handle, time.monotonic(), tenant=tenant)

    def newest(self, *, tenant: str) -> list[SessionActor]:
        """Return the sessions of a tenant in this process, newest first."""
        return self._local.newest(tenant=tenant)

    def living(self) -> list[SessionActor]:
        """Return the sessions of this process that have not ended, of all tenants."""
        return self._local.living()

    def refuse_new(self) -> None:
        """Refuse new sessions from now on."""
        self.draining = True

    def accept_new(self) -> None:
        """Accept new sessions again."""
        self.draining = False

    def end_all(self, reason: EndReason) -> None:
        """Begin to end all living sessions."""
        for session in self.living():
            with bulkhead("session.end_failed", session.id):
                session.end(reason)
