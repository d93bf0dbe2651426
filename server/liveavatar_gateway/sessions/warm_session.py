"""Warm session: a LiveAvatar session that is started, connected and kept alive before its caller comes."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, unique
from typing import Final, Protocol

import structlog

from liveavatar_gateway.core.errors import Draining, GatewayError, InternalError, OwnerMoved, UpstreamUnreachable
from liveavatar_gateway.core.readiness import ReadinessConfig
from liveavatar_gateway.core.states import EndReason, move
from liveavatar_gateway.pool.book import PermitKind
from liveavatar_gateway.registry.base import Fence, HandleHash, Payload
from liveavatar_gateway.sessions.billed_journal import BilledJournal
from liveavatar_gateway.sessions.billing import Billing, Payer
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.standby import Standby
from liveavatar_gateway.sessions.warm_record import warm_payload
from liveavatar_gateway.upstream.model import AvatarRequest, Started
from liveavatar_gateway.upstream.permits import PermitWish, QueuePlace
from liveavatar_gateway.upstream.pool import Pool
from liveavatar_gateway.upstream.session import UpstreamSession

_log = structlog.get_logger(__name__)

_SETTLE_LIMIT_S: Final = 3600.0
"""Longest wait for the end of a start that was given up: LiveAvatar's longest session, as far as known."""


def new_id() -> str:
    """Return a unique id."""
    return str(uuid.uuid4())


@unique
class WarmStage(Enum):
    """Stage of a warm session."""

    STARTING = "starting"
    """Waits for a permit and for LiveAvatar's start."""
    CONNECTING = "connecting"
    """Runs, and its avatar is not ready yet."""
    READY = "ready"
    """Can speak at once."""
    TAKEN = "taken"
    """Belongs to the session of a caller."""
    ENDING = "ending"
    """Is being stopped."""
    ENDED = "ended"


WARM_TRANSITIONS: Final[Mapping[WarmStage, frozenset[WarmStage]]] = {
    WarmStage.STARTING: frozenset({WarmStage.CONNECTING, WarmStage.ENDING}),
    WarmStage.CONNECTING: frozenset({WarmStage.READY, WarmStage.TAKEN, WarmStage.ENDING}),
    WarmStage.READY: frozenset({WarmStage.TAKEN, WarmStage.ENDING}),
    # Back, when the registry could not record the change.
    WarmStage.TAKEN: frozenset({WarmStage.CONNECTING, WarmStage.ENDING}),
    WarmStage.ENDING: frozenset({WarmStage.ENDED}),
    WarmStage.ENDED: frozenset(),
}
"""Stages that may follow each stage."""


class WarmOwner(Protocol):
    """Keeper of warm sessions: the stock of a profile, or the reservations."""

    def on_ready(self, warm: "WarmSession") -> None:
        """Take note that a session can speak."""

    def on_ending(self, warm: "WarmSession", reason: str) -> None:
        """Take note that a session is given up, and can no longer be taken."""

    def on_ended(self, warm: "WarmSession") -> None:
        """Take note that LiveAvatar has stopped a session, or that none was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmServices:
    """Parts of the process that all warm sessions share."""

    pool: Pool
    journals: JournalWriter
    billing: Billing
    readiness: ReadinessConfig = field(default_factory=ReadinessConfig)
    """Deadlines until an avatar is ready."""


class WarmSession:
    """LiveAvatar session without a caller. Its task ends when it is taken or given up.

    Invariant: the stage follows `WARM_TRANSITIONS`. From `claim` to the end of `hand_over` nobody else takes it.
    """

    def __init__(
        self,
        request: AvatarRequest,
        services: WarmServices,
        owner: WarmOwner,
        *,
        tenant: str,
        profile: str = "",
        accounts: Sequence[str] | None = None,
        at_most: int | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            request: Avatar, without a participant.
            services: Shared parts.
            owner: Keeper of the session.
            tenant: Tenant that pays until the session is taken.
            profile: Profile for which it is kept; empty for a reservation.
            accounts: Accounts that it may run on; None for all that serve the tenant.
            at_most: Most warm sessions of the profile, of all processes; None for no bound.
            expires_at: End of its reservation; None without one.
        """
        self.id = new_id()
        self.tenant = tenant
        self.profile = profile
        self.request = request
        self.stage = WarmStage.STARTING
        self.created_s = time.monotonic()
        """Monotonic time at which the session was wanted."""
        self.started_s: float | None = None
        """Monotonic time at which LiveAvatar was about to start the session; None before."""
        self.ready_s: float | None = None
        """Monotonic time at which its avatar was ready; None before."""
        self.ending_s: float | None = None
        """Monotonic time at which it was given up; None before."""
        self.error: GatewayError | None = None
        """Error for which it was given up; None without one."""
        self.was_refunded = False
        """True if LiveAvatar started nothing, so that nothing was billed."""
        self.expires_at = expires_at
        """End of its reservation; None without one."""
        self._services = services
        self._owner = owner
        self._wish = PermitWish(
            tenant=tenant,
            session_id=self.id,
            accounts=accounts,
            kind=PermitKind.WARM if profile else PermitKind.RESERVED,
            profile=profile,
            at_most=at_most,
        )
        self.journal = services.journals.open(self)
        """Row of the session in the registry."""
        payer = Payer(session_id=self.id, tenant=tenant, label="", free=request.sandbox, waits=True)
        self._billed = BilledJournal(self.journal, services.billing, payer)
        self._upstream: UpstreamSession | None = None
        self._task: asyncio.Task[object] | None = None
        self._given_up = ""
        """Reason for which it is to end if its caller does not get it; empty without one."""
        self._lost_to: OwnerMoved | None = None
        self.avatar: Standby
        """Avatar of the session; only after LiveAvatar has started the session."""

    # --- state

    @property
    def started(self) -> Started:
        """LiveAvatar's answer to the start; only after it."""
        assert self._upstream is not None  # noqa: S101 - see above
        return self._upstream.started

    def left_s(self, now_s: float) -> float | None:
        """Return the rest of LiveAvatar's limit; None without a limit, or before the start."""
        if self._upstream is None or self.started_s is None or self.started.max_duration_s is None:
            return None
        return max(0.0, self.started_s + self.started.max_duration_s - now_s)

    @property
    def has_begun(self) -> bool:
        """True once LiveAvatar was about to start it; before, it only waits for a permit."""
        return self._billed.has_begun

    @property
    def is_usable(self) -> bool:
        """True if a caller may take it now and speak at once."""
        return self.stage is WarmStage.READY and not self.avatar.is_gone

    @property
    def is_running(self) -> bool:
        """True if a caller may take it now, even if its avatar is not ready yet."""
        return self.stage in (WarmStage.CONNECTING, WarmStage.READY) and not self.avatar.is_gone

    @property
    def account(self) -> str | None:
        """Name of its account in the registry; None before the start."""
        return None if self._upstream is None else self._upstream.account.id

    def may_serve(self, tenant: str) -> bool:
        """Return whether a tenant may use its account for its avatar, as the account is configured now."""
        return self._upstream is not None and self._upstream.account.spec.serves(self.request, tenant)

    def hold_until(self, expires_at: datetime) -> None:
        """Set the end of its reservation."""
        self.expires_at = expires_at
        self.journal.change()

    # --- as its journal needs it

    def payload(self) -> Payload:
        """Return its record, see `warm_record`."""
        return warm_payload(self.request, profile=self.profile, expires_at=self.expires_at)

    def handle_hashes(self) -> Iterable[HandleHash]:
        """Return no hashes: no caller knows the session."""
        return ()

    def moved(self, error: OwnerMoved) -> None:
        """Give the session up: another process has claimed it, and stops it."""
        self._lost_to = error
        self.give_up("claimed")

    def end_for(self, reason: EndReason) -> None:
        """Give the session up, on a request that came to another process."""
        self.give_up(reason.value)

    def reserved(self, fence: Fence) -> None:
        """Take note that the session is in the registry before it is started."""
        self.journal.reserved(fence)

    # --- life

    def begin(self) -> None:
        """Start the session if a permit is free, and keep it, in a task of its own."""
        self._services.pool.run(self._run(), name=f"warm-{self.id}/begin")

    def keep(self) -> None:
        """Connect and keep the session, which has been started, in a task of its own."""
        self._task = asyncio.create_task(self._keep_root(), name=f"warm-{self.id}")

    async def start(
        self, *, wait_s: float | None, on_wait: Callable[[QueuePlace], object] = lambda _place: None
    ) -> None:
        """Wait for a permit, and start the session at LiveAvatar.

        Raises:
            Draining: it was given up.
            GatewayError: nothing runs, or what may run is being stopped; see `Pool.start`.
        """
        if self.stage is not WarmStage.STARTING:
            raise Draining
        starting = asyncio.create_task(
            self._services.pool.start(self.request, self._billed, wish=self._wish, wait_s=wait_s, on_wait=on_wait),
            name=f"warm-{self.id}/start",
        )
        # A task of its own, so that `give_up` can cancel the wait for a permit.
        self._task = starting
        try:
            self._upstream = await starting
        except asyncio.CancelledError:
            if self.stage is WarmStage.STARTING:
                raise
            raise Draining from None
        self.started_s = self._billed.minted_s
        self.avatar = Standby(self._upstream)
        if self.stage is not WarmStage.STARTING:
            # Given up meanwhile. A second close only returns the result of the first.
            self._services.pool.run(self._upstream.close(), name=f"warm-{self.id}/unwanted")
            raise Draining
        self._move(WarmStage.CONNECTING)

    async def _run(self) -> None:
        try:
            await self.start(wait_s=0.0)
        except GatewayError as error:
            self.give_up(error.reason, error=error)
        except Exception:  # noqa: BLE001 - the root of its task: whatever it is ends here, logged
            self._crashed()
        else:
            self.keep()

    async def _keep_root(self) -> None:
        try:
            await self._keep()
        except GatewayError as error:
            self.give_up(error.reason, error=error)
        except Exception:  # noqa: BLE001 - the root of its task: whatever it is ends here, logged
            self._crashed()

    def _crashed(self) -> None:
        incident = new_id()
        _log.exception("warm.crashed", warm=self.id, incident=incident)
        self.give_up("crashed", error=InternalError("a fault of the gateway", incident=incident))

    async def _keep(self) -> None:
        if not self.avatar.has_socket:
            await self.avatar.connect(self._services.readiness, new_id)
        if self.stage is WarmStage.CONNECTING:
            self._move(WarmStage.READY)
            if self.ready_s is None:
                self.ready_s = time.monotonic()
            _log.info("warm.ready", warm=self.id, profile=self.profile, upstream_session=self.started.session_id)
            self._owner.on_ready(self)
        self._services.pool.add_keep_alive(self.avatar)
        try:
            await self.avatar.wait_until_gone(new_id)
        finally:
            self._services.pool.remove_keep_alive(self.avatar)
        raise UpstreamUnreachable("the warm avatar was lost")

    async def check(self) -> None:
        """Ask for an answer on the socket, and ask LiveAvatar whether the session still runs."""
        if self.stage is WarmStage.READY and self._upstream is not None:
            self.avatar.check()
            if (await self._upstream.remote_status()).over:
                self.avatar.drop()

    # --- end

    def give_up(self, reason: str, *, error: GatewayError | None = None) -> None:
        """Stop the session, unless a caller has it; the stop continues in a task of the pool. Idempotent.

        One that is being handed over ends only if its caller does not get it.
        """
        if self.stage is WarmStage.TAKEN:
            self._given_up = self._given_up or reason
            return
        if self.stage in (WarmStage.ENDING, WarmStage.ENDED):
            return
        self.error = error
        self._move(WarmStage.ENDING)
        self.ending_s = time.monotonic()
        _log.info(
            "warm.retired",
            warm=self.id,
            profile=self.profile,
            upstream_session="" if self._upstream is None else self.started.session_id,
            reason=reason,
            age_s=0.0 if self.started_s is None else round(self.ending_s - self.started_s, 1),
        )
        self._owner.on_ending(self, reason)
        self._services.pool.run(self._end(), name=f"warm-{self.id}/end")

    async def _end(self) -> None:
        try:
            await self._stop_keeping()
            if self._upstream is None:
                # The pool stops what a failed or abandoned start may have left running, and learns if it ran.
                self.was_refunded = not await self._billed.was_billed(wait_s=_SETTLE_LIMIT_S)
            else:
                await (self._upstream.close() if self._lost_to is None else self._upstream.leave())
            await self.journal.finish(0.0)
        finally:
            self._move(WarmStage.ENDED)
            self._owner.on_ended(self)

    async def _stop_keeping(self) -> None:
        """End its task: a socket has one reader at a time."""
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])

    # --- to a caller

    def claim(self) -> None:
        """Reserve the session for one caller, who calls `hand_over` next."""
        self._move(WarmStage.TAKEN)

    async def hand_over(self, taker: BilledJournal, max_duration_s: float | None) -> UpstreamSession | None:
        """Make the session one of the taker's; None if it was lost in this moment.

        Args:
            taker: Journal of the caller's session.
            max_duration_s: Limit that counts from now on; None without a limit.

        Raises:
            RegistryUnavailable: the change cannot be recorded; the session stays warm.
        """
        assert self._upstream is not None  # noqa: S101 - a session that was not started is not claimed
        await self._stop_keeping()
        started = replace(self.started, max_duration_s=max_duration_s)
        try:
            await taker.take_over(started, self.journal)
        except OwnerMoved:
            self._release("claimed")
            return None
        except BaseException:
            self._put_back()
            raise
        self._upstream.transfer(taker, started, tenant=taker.payer.tenant, session_id=taker.payer.session_id)
        self._services.pool.run(self._forget(), name=f"warm-{self.id}/forget")
        return self._upstream

    def _put_back(self) -> None:
        self._move(WarmStage.CONNECTING)
        if self._given_up:
            self.give_up(self._given_up)
        elif self.avatar.is_gone or (self.avatar.has_socket and not self.avatar.is_ready):
            self.give_up("lost")
        else:
            self.keep()

    def _release(self, reason: str) -> None:
        self._move(WarmStage.CONNECTING)
        self.give_up(reason)

    async def _forget(self) -> None:
        """Remove its row from the registry: the session has another one."""
        await self.journal.finish(0.0)
        self._owner.on_ended(self)

    def _move(self, stage: WarmStage) -> None:
        self.stage = move(WARM_TRANSITIONS, self.stage, stage)
