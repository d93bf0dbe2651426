"""Reservations: avatars that are started for a caller who is about to come."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from liveavatar_gateway.auth.limiter import Admission, Limiter
from liveavatar_gateway.core.errors import (
    BudgetExhausted,
    Draining,
    GatewayError,
    InvalidField,
    OwnerMoved,
    RegistryUnavailable,
    RequestIdReused,
    ReservationMismatch,
    ReservationNotFound,
)
from liveavatar_gateway.registry.base import StoredSession
from liveavatar_gateway.sessions.keyed_locks import KeyedLocks
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.warm_pool import ACCOUNT_DRAINED
from liveavatar_gateway.sessions.warm_record import difference, expiry_of, is_warm, stored_difference
from liveavatar_gateway.sessions.warm_session import WarmServices, WarmSession
from liveavatar_gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

DEFAULT_HOLD_S: Final = 60.0
MIN_HOLD_S: Final = 5.0
MAX_HOLD_S: Final = 240.0
"""LiveAvatar ends sessions that nobody watches or commands a little later."""
_REQUEST_SPACE: Final = "\x1fprepare/"
"""Begin of the request ids of reservations in the registry; no caller can send it, so opens have other ids."""


@dataclass(slots=True, kw_only=True)
class Reservation:
    """Prepared avatar, and the place in the quotas of its tenant that a session takes over with it."""

    warm: WarmSession
    spec: SessionSpec
    tenant: str
    request_id: str
    admission: Admission
    expires_at: datetime
    expires_s: float
    """Monotonic time of `expires_at`."""
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        """Id that callers know."""
        return self.warm.id


@dataclass(slots=True, kw_only=True)
class _Request:
    """Call of `prepare`, and the avatar that is being started for it."""

    spec: SessionSpec
    id: str
    """The caller's id of the request; empty without one."""
    tenant: str
    hold_s: float
    wait_s: float
    warm: WarmSession | None = None
    """None before it may wait for a permit, and once it is reserved."""
    is_gone: bool = False
    """True if its caller has given up."""

    def leave(self) -> None:
        """Start nothing for a caller that is gone; a retry with its id may find what was about to be started."""
        self.is_gone = True
        if self.warm is not None and not (self.id and self.warm.has_begun):
            self.warm.give_up("unwanted")


class Reservations:
    """Reservations of this process: an owner of `WarmSession`. Unused ones are ended when their time is over."""

    def __init__(
        self,
        services: WarmServices,
        limiter: Limiter,
        metrics: Metrics,
        *,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Begin without reservations.

        Args:
            services: Parts shared by all warm sessions.
            limiter: Quotas of tenants: a reservation counts as a session.
            metrics: Counts reservations and their ends.
            utc_now: Source of the wall clock's time.
        """
        self._services = services
        self._limiter = limiter
        self._metrics = metrics
        self._utc_now = utc_now
        self._by_id: dict[str, Reservation] = {}
        self._by_request: dict[tuple[str, str], Reservation] = {}
        self._starting: set[WarmSession] = set()
        self._locks = KeyedLocks()
        self._is_closed = False

    @property
    def count(self) -> int:
        """Number of reservations that wait for their caller."""
        return len(self._by_id)

    @property
    def sessions(self) -> Iterable[WarmSession]:
        """Avatars that wait for their caller."""
        return [reservation.warm for reservation in self._by_id.values()]

    # --- prepare

    async def prepare(
        self, spec: SessionSpec, request_id: str, *, tenant: str, hold_s: float, wait_s: float | None
    ) -> Reservation:
        """Start an avatar and return its reservation, or the one that was made for the same request.

        A caller that gives up leaves the queue. It also loses an avatar that is about to start, or has started,
        unless a request id lets it ask again.

        Raises:
            Draining: new sessions are refused.
            InvalidField: the spec has a room of its own, or a connector.
            QuotaExceeded, BudgetExhausted, CapacityExhausted, UpstreamError: the avatar cannot be started.
            RequestIdReused: the request id was used for another avatar.
            OwnerMoved: another process has the reservation of that request.
            RegistryUnavailable: the registry cannot be used.
        """
        if spec.has_own_room:
            room = "agora_room" if spec.agora_room is not None else "livekit_room"
            raise InvalidField(
                "an avatar in a room of the caller's own cannot be prepared: LiveAvatar fixes its room when its "
                f"token is minted; leave out {room}, or open the session without a reservation",
                field=f"spec.{room}",
            )
        if spec.connector is not None:
            raise InvalidField(
                "an avatar with a hosted agent cannot be prepared: LiveAvatar fixes the agent when its token is "
                "minted; leave the connector out, or open the session without a reservation",
                field=f"spec.{spec.connector.kind.name.lower()}",
            )
        wait_s = self._limiter.longest_wait_s(tenant, self._services.pool.wait_s if wait_s is None else wait_s)
        request = _Request(spec=spec, id=request_id, tenant=tenant, hold_s=hold_s, wait_s=wait_s)
        work = self._services.pool.run(self._prepare(request), name=f"request-{request_id}/prepare")
        try:
            return await asyncio.shield(work)
        except RegistryUnavailable as error:
            self._services.journals.note_outage(error)
            raise
        except asyncio.CancelledError:
            request.leave()
            if not request_id:
                work.add_done_callback(self._end_unwanted)
            raise

    def _end_unwanted(self, work: asyncio.Task[Reservation]) -> None:
        if not work.cancelled() and work.exception() is None:
            self._end(work.result(), "unwanted")

    async def _prepare(self, request: _Request) -> Reservation:
        if not request.id:
            return await self._start(request, instead_of=None)
        async with self._locks.locked(f"{request.tenant} {request.id}"):
            known = self._by_request.get((request.tenant, request.id))
            if known is not None:
                if difference(known.spec.avatar, request.spec.avatar):
                    raise RequestIdReused(request.id)
                return known
            return await self._start(request, instead_of=await self._require_unknown(request))

    async def _require_unknown(self, request: _Request) -> str:
        """Refuse a request whose reservation another process has; return the id of one that is over, or empty."""
        registry = self._services.journals.registry
        stored = await registry.find_request(f"{_REQUEST_SPACE}{request.id}", tenant=request.tenant)
        if stored is None:
            return ""
        if not stored.ended and await self._is_held_elsewhere(stored):
            if stored_difference(stored, request.spec.avatar):
                raise RequestIdReused(request.id)
            raise OwnerMoved(stored.session_id, address=stored.address)
        return stored.session_id

    async def _is_held_elsewhere(self, stored: StoredSession) -> bool:
        registry = self._services.journals.registry
        expires_at = expiry_of(stored)
        return (
            stored.owner != registry.owner
            and (expires_at is None or expires_at > self._utc_now())
            and not await registry.is_abandoned(stored)
        )

    async def _start(self, request: _Request, *, instead_of: str | None) -> Reservation:
        spec, tenant, hold_s = request.spec, request.tenant, request.hold_s
        self._require_wanted(request)
        permits = self._services.pool.permits
        admission = self._limiter.admit_session(tenant, waits=permits.used >= permits.limit)
        expires_at = self._utc_now() + timedelta(seconds=hold_s)
        warm = WarmSession(
            # Without a limit of LiveAvatar's: the caller's own counts from the moment in which it comes.
            replace(spec.avatar, max_duration_s=None),
            self._services,
            self,
            tenant=tenant,
            expires_at=expires_at,
        )
        try:
            if instead_of is not None:
                await self._reserve(warm, request.id, instead_of)
                self._require_wanted(request)
            request.warm = warm
            self._starting.add(warm)
            await warm.start(wait_s=request.wait_s, on_wait=lambda _place: admission.wait())
        except BaseException as error:
            admission.release()
            known = error if isinstance(error, GatewayError) else None
            warm.give_up("failed" if known is None else known.reason, error=known)
            raise
        finally:
            request.warm = None
            self._starting.discard(warm)
        admission.stop_waiting()
        # From now on, since the wait for a permit is no time in which the caller could have come.
        expires_at = self._utc_now() + timedelta(seconds=hold_s)
        warm.hold_until(expires_at)
        reservation = Reservation(
            warm=warm,
            spec=spec,
            tenant=tenant,
            request_id=request.id,
            admission=admission,
            expires_at=expires_at,
            expires_s=time.monotonic() + hold_s,
        )
        self._add(reservation)
        reservation.timer = asyncio.get_running_loop().call_later(hold_s, self._end, reservation, "unused")
        warm.keep()
        self._metrics.reservation("made")
        _log.info("reservation.made", reservation=warm.id, tenant=tenant, hold_s=hold_s)
        return reservation

    def _require_wanted(self, request: _Request) -> None:
        if self._is_closed or request.is_gone:
            raise Draining

    async def _reserve(self, warm: WarmSession, request_id: str, instead_of: str) -> None:
        """Add a session to the registry under its request, before anything is done for it.

        Raises:
            OwnerMoved: another process was faster.
        """
        fence = await self._services.journals.registry.reserve(
            warm.id,
            warm.payload(),
            tenant=warm.tenant,
            request_id=f"{_REQUEST_SPACE}{request_id}",
            instead_of=instead_of,
        )
        if fence is None:
            raise OwnerMoved(warm.id)
        warm.reserved(fence)

    # --- take

    async def claim(self, reservation_id: str, spec: SessionSpec, *, tenant: str) -> Reservation:
        """Return a reservation to a session that is about to be created; nobody else can take it any more.

        Raises:
            ReservationNotFound: it is over, was taken, or is another tenant's.
            ReservationMismatch: the spec needs another avatar.
            OwnerMoved: another process has it.
            RegistryUnavailable: it is not here, and the registry cannot be read.
        """
        reservation = self._by_id.get(reservation_id)
        if reservation is None:
            await self._require_nowhere(reservation_id, tenant)
            raise ReservationNotFound(reservation_id)
        if reservation.tenant != tenant:
            raise ReservationNotFound(reservation_id)
        differs = "room" if spec.has_own_room else difference(reservation.spec.avatar, spec.avatar)
        if spec.connector is not None:
            differs = "connector"
        if differs:
            raise ReservationMismatch(reservation_id, differs)
        self._remove(reservation)
        return reservation

    def put_back(self, reservation: Reservation) -> None:
        """Take a reservation back whose session was not created."""
        left_s = reservation.expires_s - time.monotonic()
        self._add(reservation)
        loop = asyncio.get_running_loop()
        reservation.timer = loop.call_later(max(0.0, left_s), self._end, reservation, "unused")
        if self._is_closed:
            self._end(reservation, "drained")

    def taken(self, reservation: Reservation, spec: SessionSpec) -> WarmSession | None:
        """Return the avatar of a claimed reservation for a session, which calls `hand_over` next.

        None if the avatar was lost, is on an account that the tenant may use no longer, or does not live as long
        as the session asks for.
        """
        asked_s, warm = spec.avatar.max_duration_s, reservation.warm
        left_s = warm.left_s(time.monotonic())
        if not warm.is_running:
            self._metrics.reservation("lost")
            return None
        if not warm.may_serve(reservation.tenant):
            warm.give_up("account")
            self._metrics.reservation("lost")
            return None
        if asked_s is not None and left_s is not None and left_s < asked_s:
            warm.give_up("short_life")
            self._metrics.reservation("lost")
            return None
        warm.claim()
        self._metrics.reservation("taken")
        return warm

    async def _require_nowhere(self, reservation_id: str, tenant: str) -> None:
        """Refuse with the address of the process that has a reservation, if any."""
        stored = await self._services.journals.registry.find(reservation_id)
        if stored is None or not is_warm(stored) or stored.tenant != tenant or stored.ended:
            return
        if expiry_of(stored) is not None and await self._is_held_elsewhere(stored):
            raise OwnerMoved(reservation_id, address=stored.address)

    # --- end

    def _end(self, reservation: Reservation, reason: str) -> None:
        if self._by_id.get(reservation.id) is reservation:
            self._remove(reservation)
            reservation.admission.release()
            reservation.warm.give_up(reason)
            self._metrics.reservation(reason)

    def end_suspended(self, is_active: Callable[[str], bool]) -> None:
        """End the reservations of tenants that were suspended or removed."""
        for reservation in tuple(self._by_id.values()):
            if not is_active(reservation.tenant):
                self._end(reservation, "suspended")

    def end_for_budget(self, warm_id: str, error: BudgetExhausted) -> bool:
        """End a reservation whose tenant has spent its budget; returns False if the id is not that of one."""
        reservation = self._by_id.get(warm_id)
        if reservation is None:
            return False
        self._end(reservation, error.reason)
        return True

    def end_drained(self, warm_id: str) -> bool:
        """End a reservation whose account is drained; returns False if the id is not that of one."""
        reservation = self._by_id.get(warm_id)
        if reservation is None:
            return False
        self._end(reservation, ACCOUNT_DRAINED)
        return True

    def close(self) -> None:
        """End all reservations, and make none until `reopen`."""
        self._is_closed = True
        for warm in tuple(self._starting):
            warm.give_up("drained")
        for reservation in tuple(self._by_id.values()):
            self._end(reservation, "drained")

    def reopen(self) -> None:
        """Make reservations again, after a drain that was cancelled."""
        self._is_closed = False

    def _add(self, reservation: Reservation) -> None:
        self._by_id[reservation.id] = reservation
        if reservation.request_id:
            self._by_request[reservation.tenant, reservation.request_id] = reservation

    def _remove(self, reservation: Reservation) -> None:
        if reservation.timer is not None:
            reservation.timer.cancel()
            reservation.timer = None
        self._by_id.pop(reservation.id, None)
        self._by_request.pop((reservation.tenant, reservation.request_id), None)

    # --- owner of its sessions

    def on_ready(self, warm: WarmSession) -> None:
        """Do nothing: the caller takes the avatar ready or not."""

    def on_ending(self, warm: WarmSession, reason: str) -> None:
        """Do nothing: the caller of a lost avatar gets a session without it."""

    def on_ended(self, warm: WarmSession) -> None:
        """Do nothing: the reservation was removed before."""
