"""Life of one session: its creation or adoption, its exchange with LiveAvatar, and its end."""

import asyncio
import contextlib
import functools
import time
from typing import Final

import structlog

from liveavatar_gateway.auth.limiter import Admission
from liveavatar_gateway.core.errors import (
    GatewayError,
    InternalError,
    OwnerMoved,
    SessionEnded,
    UpstreamAddressRefused,
)
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.sessions.avatars import TakeWarm
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.driver import SessionDriver
from liveavatar_gateway.sessions.hosted_driver import HostedDriver
from liveavatar_gateway.sessions.parts import SessionParts
from liveavatar_gateway.sessions.restore import RestoredSession
from liveavatar_gateway.sessions.services import SessionServices, new_id, utc_now
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.standby import StandbyManager
from liveavatar_gateway.upstream.permits import QueuePlace
from liveavatar_gateway.upstream.session import UpstreamSession

_log = structlog.get_logger(__name__)
_ENDS_WITH_TAIL: Final = frozenset({EndReason.CALLER_ENDED, EndReason.CALLER_LOST, EndReason.DRAINED})
"""Reasons after which a caller expects all speech before the end to be heard."""


class SessionLifecycle:
    """Owner of the one task of a session. Whatever ends `run`, the session is stopped upstream."""

    def __init__(
        self,
        spec: SessionSpec,
        services: SessionServices,
        parts: SessionParts,
        restored: RestoredSession | None,
        *,
        tenant: str,
    ) -> None:
        """Prepare for `run`; for the arguments see `SessionActor`."""
        self._spec = spec
        self._services = services
        self._parts = parts
        self._core = core = parts.core
        self._logged = {"session": core.id} | ({"tenant": tenant} if tenant else {})
        """Fields of each log line."""
        self._avatars = parts.avatars
        self._publisher = parts.publisher
        self._restored = restored
        self._driver = self._new_driver()
        self.finished = asyncio.Event()
        """Set when LiveAvatar has stopped the session, or another process owns it."""
        self.recorded = asyncio.Event()
        """Set when the final record is written, or is left to the journal in an outage of the registry."""
        self.queue_place: QueuePlace | None = None
        """Last known place in the queue for a permit; None for a session that did not wait, or waits no more."""
        self.lost_to: OwnerMoved | None = None
        """Error for callers once another process owns the session; None before."""
        self.began_s: float | None = None
        """Monotonic time at which LiveAvatar had started the first avatar; None before."""
        self._stop_from_s: float | None = None
        self._creation: asyncio.Task[object] | None = None
        self._task: asyncio.Task[object] | None = None
        self._keeping: asyncio.Task[None] | None = None
        """Latest keep-alive by REST."""

    def _new_driver(self) -> SessionDriver | HostedDriver:
        parts, services = self._parts, self._services
        if not parts.core.has_socket:
            return HostedDriver(
                parts.core,
                wake=parts.wake,
                publisher=parts.publisher,
                journal=parts.journal,
                avatars=parts.avatars,
            )
        return SessionDriver(
            parts.core,
            services.reconnect,
            services.metrics,
            wake=parts.wake,
            publisher=parts.publisher,
            journal=parts.journal,
            avatars=parts.avatars,
            standbys=StandbyManager(parts.core, services.pool, parts.avatars, wake=parts.wake, new_id=new_id),
            on_take_over=self._renew_keep_alive,
        )

    # --- keep-alive target of the pool

    @property
    def last_command_at_s(self) -> float:
        """Monotonic time at which LiveAvatar last got a command or a keep-alive."""
        return self._core.last_command_at_s

    def keep_alive(self) -> None:
        """Send a keep-alive: on the socket, or by REST while no socket is ready."""
        if self._core.keep_alive():
            self._parts.wake.set()
            return
        upstream = self._avatars.upstream
        if upstream is not None and (self._keeping is None or self._keeping.done()):
            name = f"session-{self._core.id}/keep-alive"
            self._keeping = self._services.pool.run(self._keep_alive_by_rest(upstream), name=name)

    async def _keep_alive_by_rest(self, upstream: UpstreamSession) -> None:
        began_s = time.monotonic()
        if await upstream.keep_alive() and self._avatars.upstream is upstream:
            self._core.note_kept_alive(began_s)

    def _renew_keep_alive(self) -> None:
        """Count from the last command of the avatar that has taken over, which may be old."""
        self._services.pool.add_keep_alive(self)

    # --- end

    def end(self, reason: EndReason, *, error: GatewayError | None = None) -> None:
        """Begin to end; `finished` is set when LiveAvatar has stopped the session.

        When a caller or a drain ends it right after speech, LiveAvatar is stopped a moment later: the end of what
        it reports as spoken is still on its way into the room. An end in the middle of speech interrupts at once.
        """
        self._publisher.report()
        completed_s, is_silent = self._publisher.last_completed_s, not self._core.speech.active
        if not self._core.over and reason in _ENDS_WITH_TAIL and is_silent and completed_s is not None:
            self._stop_from_s = completed_s + self._core.config.end_tail_s
        self._core.end(reason, time.monotonic(), error=error)
        if self._creation is not None:
            self._creation.cancel()
        self._parts.wake.set()
        self._publisher.report()

    def leave_queue(self) -> bool:
        """End a session that waits for a permit and whose callers are gone; return False for any other.

        Nothing was started, so that the same request may come again.
        """
        is_waiting = self.queue_place is not None and not self._parts.billed.has_begun
        if self._creation is None or not is_waiting or not self._parts.attachments.is_empty:
            return False
        self.end(EndReason.CREATE_FAILED, error=SessionEnded(self._core.id, EndReason.CALLER_LOST.value))
        return True

    def lose(self, error: OwnerMoved) -> None:
        """Give the session up: another process owns it. Nothing more is sent, and the avatar keeps running."""
        _log.warning("session.moved", session=self._core.id)
        self.lost_to = error
        self._parts.attachments.supersede_all(error)
        if self._task is not None:
            self._task.cancel()

    async def call_off(self, error: GatewayError) -> None:
        """End a session that was reserved and is not to be started."""
        self._core.end(EndReason.CREATE_FAILED, time.monotonic(), error=error)
        self._core.ended()
        self.finished.set()
        await self._record()

    async def _record(self) -> None:
        """Write usage and the final record; both are written later if the registry does not work now."""
        try:
            if self._avatars.started is not None:
                await self._parts.billed.ended(self._core.speech.totals.played_s)
            await self._parts.journal.finish(self._services.retention_s)
        finally:
            self.recorded.set()

    # --- the one task

    async def run(self, wait_s: float | None, admission: Admission, take_reserved: TakeWarm | None = None) -> None:
        """Wait for a permit, start the avatar, speak until something ends the session, stop the avatar.

        Args:
            wait_s: Longest wait for a permit of the account, seconds; None is the pool's own limit.
            admission: Place in the quotas of the tenant; its owner releases it after this.
            take_reserved: Returns the avatar of a reservation, see `Avatars.start`; None without a reservation.
        """
        self._task = asyncio.current_task()
        try:
            if self._restored is None:
                await self._create(wait_s, admission, take_reserved)
                admission.stop_waiting()
            else:
                self._adopt(self._restored)
            if not self._core.over:
                self._services.pool.add_keep_alive(self)
                self._parts.room_watch.start()
                await self._driver.run()
                await self._wait_for_tail()
        except GatewayError as error:
            self.end(EndReason.CREATE_FAILED, error=error)
        except asyncio.CancelledError:
            if self.lost_to is None:
                self.end(EndReason.DRAINED)
                raise
        except Exception:  # noqa: BLE001 - the root of the session's task: whatever it is ends here, logged
            incident = new_id()
            _log.exception("session.crashed", session=self._core.id, incident=incident)
            self.end(EndReason.UPSTREAM_FAILED, error=InternalError("a fault of the gateway", incident=incident))
        finally:
            # Each in a bulkhead: whatever fails here, the session is stopped upstream.
            with bulkhead("session.crashed", self._core.id):
                self._parts.attachments.close()
            with bulkhead("session.crashed", self._core.id):
                self._parts.utterances.close()
            with bulkhead("session.crashed", self._core.id):
                self._parts.user_audio.close()
            with bulkhead("session.crashed", self._core.id):
                self._parts.room_data.close(self._ended_error())
            with bulkhead("session.crashed", self._core.id):
                self._services.pool.remove_keep_alive(self)
            await self._finish()

    def crashed(self, fault: BaseException) -> None:
        """Conclude a session whose task failed outside of its handlers; it is stopped upstream nevertheless."""
        if (upstream := self._avatars.upstream) is not None and self.lost_to is None:
            # A second close only returns the result of the first.
            self._services.pool.run(upstream.close(), name=f"session-{self._core.id}/crashed")
        if not self.finished.is_set():
            self.finished.set()
            self._parts.attachments.wake()
        self.recorded.set()
        _log.error("session.crashed", session=self._core.id, exc_info=fault)

    async def _create(self, wait_s: float | None, admission: Admission, take_reserved: TakeWarm | None) -> None:
        """Start the first avatar in a task of its own, so that `end` can cancel the wait for a permit."""
        began_s = time.monotonic()
        in_queue = functools.partial(self._wait_in_queue, admission)
        starting = self._avatars.start(wait_s, on_wait=in_queue, take_reserved=take_reserved)
        creation = asyncio.create_task(starting, name=f"session-{self._core.id}/create")
        self._creation = creation
        try:
            started = (await creation).started
        except asyncio.CancelledError:
            if not self._core.over:
                creation.cancel()
                raise
            reason = self._core.end_reason
            raise SessionEnded(self._core.id, reason.value if reason else "") from None
        finally:
            self._creation = None
            self.queue_place = None
        self.began_s = time.monotonic()
        if not self._core.over:
            self._core.started(
                max_duration_s=started.max_duration_s,
                expires_at=self._avatars.expires_at,
                now_s=time.monotonic(),
                enforced=self._avatars.is_limit_enforced,
            )
        _log.info(
            "session.started",
            **self._logged,
            upstream_session=started.session_id,
            ms=round((time.monotonic() - began_s) * 1000),
        )
        self._publisher.report()

    def _wait_in_queue(self, admission: Admission, place: QueuePlace) -> None:
        """Count the wait for a permit against the quotas, and let streams report the place in the queue."""
        if self.queue_place is None:
            admission.wait()
        self.queue_place = place
        self._parts.attachments.wake()

    def _adopt(self, restored: RestoredSession) -> None:
        """Continue what another process left; its callers have `grace_s` to come back."""
        assert restored.fence is not None  # noqa: S101 - only a session that has not ended is run
        assert restored.started is not None  # noqa: S101 - nor one without access
        _log.info(
            "session.adopted",
            **self._logged,
            epoch=restored.fence.epoch,
            grace_s=round(restored.grace_s, 1),
        )
        self.began_s = time.monotonic() - max(0.0, (utc_now() - self._core.created_at).total_seconds())
        self._parts.attachments.start_grace(restored.grace_s)
        self._parts.utterances.adopt()
        self._publisher.report()
        self._avatars.adopt(restored.started, restored.account)

    async def _wait_for_tail(self) -> None:
        """Wait for the rest of the tail after the last speech; see `end`."""
        if self._stop_from_s is not None:
            await asyncio.sleep(self._stop_from_s - time.monotonic())

    async def _is_lost(self) -> bool:
        """Return whether another process owns the session; the registry is asked again after a standstill."""
        # A cancelled task still stops its session, which is billed.
        with contextlib.suppress(asyncio.CancelledError):
            await self._parts.journal.confirm_lease()
        return self.lost_to is not None

    def _ended_error(self) -> SessionEnded:
        reason = self._core.end_reason
        return SessionEnded(self._core.id, reason.value if reason else "", self._core.upstream_reason)

    async def _finish(self) -> None:
        upstream = self._avatars.upstream
        if await self._is_lost():
            assert self.lost_to is not None  # noqa: S101 - the meaning of the result
            self._parts.interrupts.fail_all(self.lost_to)
            self._parts.pauses.fail_all(self.lost_to)
            self._parts.continuations.fail_all(self.lost_to)
            if upstream is not None:
                await upstream.leave()
            self.finished.set()
            self.recorded.set()
            return
        with bulkhead("session.crashed", self._core.id):
            self._publisher.report()
        try:
            if upstream is not None:
                if isinstance(self._core.error, UpstreamAddressRefused):
                    # Callers do not wait for somebody who names such an address to confirm the stop. The permit
                    # does: it stays in use until then.
                    self._services.pool.run(upstream.close(), name=f"session-{self._core.id}/refused")
                else:
                    self._core.learn_end(await upstream.close())
        finally:
            with bulkhead("session.crashed", self._core.id):
                self._core.ended()
                self._publisher.report()
            self.finished.set()
            self._log_end()
        await self._record()

    def _log_end(self) -> None:
        if self._spec.auto_rotate and self._core.end_reason is EndReason.MAX_DURATION:
            self._services.metrics.rotated("failed")
        _log.info(
            "session.ended",
            **self._logged,
            reason=self._core.end_reason.value if self._core.end_reason else "",
            upstream_reason=self._core.upstream_reason,
            error=self._core.error.reason if self._core.error else "",
            played_s=round(self._core.speech.totals.played_s, 1),
            unknown_events=self._core.unknown_events,
        )
