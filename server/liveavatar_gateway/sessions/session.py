"""Actor of one living session: runs the state machine of `core` with a socket, a clock and tasks."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import structlog

from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import GatewayError, InternalError, OwnerMoved, SessionEnded
from liveavatar_gateway.core.events import EventLog, UtteranceEnded
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.states import EndReason, SessionState
from liveavatar_gateway.registry.base import Fence, HandleHash, Payload
from liveavatar_gateway.sessions.attachments import Attachments
from liveavatar_gateway.sessions.avatars import Avatars
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.driver import SessionDriver
from liveavatar_gateway.sessions.handles import Handles
from liveavatar_gateway.sessions.interrupt_waiters import InterruptWaiters
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.publisher import EventPublisher, SessionListener
from liveavatar_gateway.sessions.reconnector import ReconnectConfig
from liveavatar_gateway.sessions.record import Record, Usage, store_error
from liveavatar_gateway.sessions.restore import RestoredSession
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.standby import StandbyManager
from liveavatar_gateway.sessions.utterances import SessionUtterances
from liveavatar_gateway.sessions.view import SessionView
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.model import LiveKitAccess, Started
from liveavatar_gateway.upstream.pool import Pool

_log = structlog.get_logger(__name__)
_ENDED_BY_CALLER: Final = frozenset({EndReason.CALLER_ENDED, EndReason.CALLER_LOST})
"""Reasons after which a caller expects all speech before the end to be heard."""


def new_id() -> str:
    """Return a unique id."""
    return str(uuid.uuid4())


def utc_now() -> datetime:
    """Return the time of the wall clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionServices:
    """Parts of the process that all its sessions share."""

    config: SessionConfig
    """Deadlines of a session."""
    reconnect: ReconnectConfig
    """Retries after the loss of a command socket."""
    retention_s: float
    """Time that the final record of a session is kept."""
    pool: Pool
    """Source of sessions at LiveAvatar."""
    journals: JournalWriter
    """State of sessions that outlives this process."""
    metrics: Metrics
    listener: SessionListener
    """Receiver of the news of all sessions."""


class SessionActor:
    """A session from its creation to its last event.

    `run` is its one task and its only writer upstream; all other methods are called from the same loop and only
    change the state machine and wake that task. Whatever ends `run`, the session is stopped upstream.
    """

    def __init__(
        self,
        spec: SessionSpec,
        services: SessionServices,
        *,
        request_id: str = "",
        restored: RestoredSession | None = None,
    ) -> None:
        """Prepare for `run`.

        Args:
            spec: The caller's wishes.
            services: Parts shared by all sessions.
            request_id: The caller's id of the request; empty if there is none.
            restored: State that another process left; None for a new session.
        """
        self.spec = spec
        self.request_id = request_id
        self._services = services
        self._restored = restored
        self._core = core = _new_core(spec, services.config) if restored is None else restored.core
        grace_s, wake, meter = spec.detach_grace_s, Wakeup(), services.metrics.session()
        hashes = () if restored is None else restored.handles
        self.handles = Handles(core.id, keep_s=grace_s, hashes=hashes)
        self._wake = wake
        self._journal = journal = services.journals.open(self, None if restored is None else restored.fence)
        self.attachments = Attachments(core.id, grace_s=grace_s, abandon=self._abandon, changed=journal.change)
        self.utterances = SessionUtterances(
            core, journal=journal, metrics=services.metrics, meter=meter, wake=wake, grace_s=grace_s
        )
        self.avatars = Avatars(spec, core, services.pool, journal, restored)
        self._interrupts = InterruptWaiters()
        self._publisher = EventPublisher(
            core,
            journal=journal,
            meter=meter,
            attachments=self.attachments,
            interrupts=self._interrupts,
            listener=services.listener,
            published=0 if restored is None else restored.told,
        )
        self._driver = SessionDriver(
            core,
            services.reconnect,
            services.metrics,
            wake=wake,
            publisher=self._publisher,
            journal=journal,
            avatars=self.avatars,
            standbys=StandbyManager(core, services.pool, self.avatars, wake=wake, new_id=new_id),
        )
        self.draining_until: datetime | None = None
        """Deadline of a drain; None while the session may stay."""
        self.finished = asyncio.Event()
        if core.state is SessionState.ENDED:
            self.finished.set()
        self.lost_to: OwnerMoved | None = None
        """Error for callers once another process owns the session; None before."""
        self._final_view: SessionView | None = None
        self._stop_from_s: float | None = None
        self._creation: asyncio.Task[object] | None = None
        self._task: asyncio.Task[object] | None = None

    # --- state

    @property
    def id(self) -> str:
        """The gateway's id of the session."""
        return self._core.id

    @property
    def state(self) -> SessionState:
        """Present state."""
        return self._core.state

    @property
    def over(self) -> bool:
        """True once the session has begun to end."""
        return self._core.over

    @property
    def end_reason(self) -> EndReason | None:
        """Reason of the end; None before."""
        return self._core.end_reason

    @property
    def error(self) -> GatewayError | None:
        """Error that ended the session; None without one."""
        return self._core.error

    @property
    def speaks(self) -> bool:
        """True while an utterance has not ended."""
        return bool(self._core.speech.active)

    @property
    def log(self) -> EventLog:
        """Events of the session."""
        return self._core.log

    @property
    def last_command_at_s(self) -> float:
        """Monotonic time of the last command upstream."""
        return self._core.last_command_at_s

    def view(self) -> SessionView:
        """Return the present state for display."""
        core, avatars, started = self._core, self.avatars, self.avatars.started
        return SessionView(
            id=self.id,
            spec=self.spec,
            state=core.state,
            pose=core.pose,
            attached=self.attachments.attached and not core.over,
            upstream_session_id=started.session_id if started else "",
            created_at=core.created_at,
            ready_at=core.ready_at,
            ended_at=core.ended_at,
            expires_at=avatars.expires_at,
            max_duration_s=started.max_duration_s if started else None,
            end_reason=core.end_reason,
            upstream_reason=core.upstream_reason,
            error=core.error,
            billed_s=avatars.billed.total_seconds(),
            usage=replace(self._usage(), played_s=self._played_s()),
            last_sequence=core.log.last_sequence,
        )

    def final_view(self) -> SessionView:
        """Return the view for the last event: made once, since usage may still be counted after the end."""
        if self._final_view is None:
            self._final_view = self.view()
        return self._final_view

    def _usage(self) -> Usage:
        return Usage.of(self._core, turn_count=self.avatars.avatar_count, retired_s=self.avatars.retired_s)

    def _played_s(self) -> float:
        """Return the seconds of speech heard, those of the utterance that plays included."""
        speech, now_s = self._core.speech, time.monotonic()
        return speech.totals.played_s + sum(one.position_s(speech.clock, now_s) for one in speech.active)

    # --- commands

    def issue_handle(self, *, beside: bool = False) -> str:
        """Issue a handle that resumes the session; see `Handles.issue`."""
        handle = self.handles.issue(time.monotonic(), beside=beside)
        self._journal.note_handles()
        return handle

    async def interrupt(self, utterance_id: str) -> list[UtteranceEnded]:
        """Interrupt an utterance, or all of them if the id is empty.

        Returns the utterances that ended, once LiveAvatar has stopped them or has not answered in time.

        Raises:
            SessionEnded, UtteranceNotFound: nothing was interrupted.
        """
        interrupt_id = self._core.interrupt(utterance_id)
        self._journal.note_cut(self._core.speech.active)
        result = self._interrupts.expect(interrupt_id)
        self._wake.set()
        self._publisher.publish()
        began_s = time.monotonic()
        ended = await result
        self._services.metrics.interrupted(time.monotonic() - began_s)
        return ended

    def listen(self) -> None:
        """Take the attentive pose.

        Raises:
            SessionEnded: the session is over.
        """
        self._core.listen()
        self._wake.set()

    def stop_listening(self) -> None:
        """Return to the idle pose.

        Raises:
            SessionEnded: the session is over.
        """
        self._core.stop_listening()
        self._wake.set()

    def keep_alive(self) -> None:
        """Send a keep-alive."""
        self._core.keep_alive()
        self._wake.set()

    def go_away(self, deadline: datetime, *, takes_speech: bool) -> None:
        """Announce a drain to the streams of the session.

        Args:
            deadline: Time at which the session is ended at the latest.
            takes_speech: True to accept new utterances until then.
        """
        self.draining_until = deadline
        self.utterances.accept_new(accepted=takes_speech)
        self.attachments.wake()

    def cancel_go_away(self) -> None:
        """Withdraw the announcement of a drain."""
        self.draining_until = None
        self.utterances.accept_new(accepted=True)
        self.attachments.wake()

    def end(self, reason: EndReason, *, error: GatewayError | None = None) -> None:
        """Begin to end; `finished` is set when LiveAvatar has stopped the session.

        When a caller ends it right after speech, LiveAvatar is told to stop a moment later: the end of what it
        reports as spoken is still on its way into the room. An end in the middle of speech interrupts at once.
        """
        self._publisher.publish()
        completed_s = self._publisher.last_completed_s
        if not self.over and reason in _ENDED_BY_CALLER and not self.speaks and completed_s is not None:
            self._stop_from_s = completed_s + self._core.config.end_tail_s
        self._core.end(reason, time.monotonic(), error=error)
        if self._creation is not None:
            self._creation.cancel()
        self._wake.set()
        self._publisher.publish()

    def _abandon(self) -> None:
        if not self.over:
            _log.info("session.abandoned", session=self.id, grace_s=self.spec.detach_grace_s)
            self.end(EndReason.CALLER_LOST)

    # --- waits

    async def room(self) -> Started:
        """Wait until the room can be joined.

        Raises:
            GatewayError: the session ended before.
        """
        await self._wait_until(lambda: self.avatars.started is not None)
        assert self.avatars.started is not None  # noqa: S101 - the condition of the wait
        return self.avatars.started

    def viewer_access(self) -> LiveKitAccess | None:
        """Return access to the room for a browser, see `Avatars.viewer_access`."""
        return self.avatars.viewer_access()

    async def ready(self) -> None:
        """Wait until the avatar is ready.

        Raises:
            GatewayError: the session ended before.
        """
        await self._wait_until(lambda: self.state is SessionState.READY)

    async def _wait_until(self, reached: Callable[[], bool]) -> None:
        attachment = self.attachments.add()
        try:
            while not reached():
                if attachment.superseded is not None:
                    raise attachment.superseded
                if self.over:
                    raise self.error or self._ended_error()
                await attachment.wakeup.wait()
        finally:
            attachment.release()

    def require_alive(self) -> None:
        """Refuse a session that is over.

        Raises:
            SessionEnded: it is.
        """
        if self.over:
            raise self._ended_error()

    def _ended_error(self) -> SessionEnded:
        reason = self.end_reason.value if self.end_reason else ""
        return SessionEnded(self.id, reason, self._core.upstream_reason)

    # --- the one task

    async def run(self, wait_s: float | None) -> None:
        """Wait for a permit, start the avatar, speak until something ends the session, stop the avatar.

        Args:
            wait_s: Longest wait for a permit of the account, seconds; None is the pool's own limit.
        """
        self._task = asyncio.current_task()
        try:
            if self._restored is None:
                await self._create(wait_s)
            else:
                self._adopt(self._restored)
            if not self.over:
                self._services.pool.keep_alive(self)
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
            _log.exception("session.crashed", session=self.id, incident=incident)
            self.end(EndReason.UPSTREAM_FAILED, error=InternalError("a fault of the gateway", incident=incident))
        finally:
            # Each in a bulkhead: whatever fails here, the session is stopped upstream.
            with bulkhead("session.crashed", self.id):
                self.attachments.close()
            with bulkhead("session.crashed", self.id):
                self.utterances.close()
            with bulkhead("session.crashed", self.id):
                self._services.pool.let_go(self)
            await self._finish()

    def crashed(self, fault: BaseException) -> None:
        """Conclude a session whose task failed outside of its handlers; it is stopped upstream all the same."""
        if (upstream := self.avatars.upstream) is not None and self.lost_to is None:
            # A second close only returns the result of the first.
            self._services.pool.run(upstream.close(), name=f"session-{self.id}/crashed")
        if not self.finished.is_set():
            self.finished.set()
            self.attachments.wake()
        _log.error("session.crashed", session=self.id, exc_info=fault)

    async def _create(self, wait_s: float | None) -> None:
        """Start the first avatar in a task of its own, so that `end` can cancel the wait for a permit."""
        began_s = time.monotonic()
        creation = asyncio.create_task(self.avatars.start(wait_s), name=f"session-{self.id}/create")
        self._creation = creation
        try:
            started = (await creation).started
        except asyncio.CancelledError:
            if not self.over:
                creation.cancel()
                raise
            raise self._ended_error() from None
        finally:
            self._creation = None
        if not self.over:
            self._core.started(max_duration_s=started.max_duration_s, now_s=time.monotonic())
        _log.info(
            "session.started",
            session=self.id,
            upstream_session=started.session_id,
            ms=round((time.monotonic() - began_s) * 1000),
        )
        self._publisher.publish()

    def _adopt(self, restored: RestoredSession) -> None:
        """Continue what another process left; its callers have `grace_s` to come back."""
        assert restored.fence is not None  # noqa: S101 - only a session that has not ended is run
        assert restored.started is not None  # noqa: S101 - nor one without access
        _log.info(
            "session.adopted", session=self.id, epoch=restored.fence.epoch, grace_s=round(restored.grace_s, 1)
        )
        self.attachments.start_grace(restored.grace_s)
        self.utterances.adopt()
        self._publisher.publish()
        self.avatars.adopt(restored.started)

    async def _wait_for_tail(self) -> None:
        """Wait for the rest of the tail after the last speech; see `end`."""
        if self._stop_from_s is not None:
            await asyncio.sleep(self._stop_from_s - time.monotonic())

    async def _is_lost(self) -> bool:
        """Return whether another process owns the session; the registry is asked again after a standstill."""
        # A cancelled task still stops its session, which is billed.
        with contextlib.suppress(asyncio.CancelledError):
            await self._journal.confirm_lease()
        return self.lost_to is not None

    async def _finish(self) -> None:
        upstream = self.avatars.upstream
        if await self._is_lost():
            assert self.lost_to is not None  # noqa: S101 - the meaning of the result
            self._interrupts.fail_all(self.lost_to)
            if upstream is not None:
                await upstream.leave()
            self.finished.set()
            return
        with bulkhead("session.crashed", self.id):
            self._publisher.publish()
        try:
            if upstream is not None:
                self._core.learn_end(await upstream.close())
        finally:
            with bulkhead("session.crashed", self.id):
                self._core.ended()
                self._publisher.publish()
            self.finished.set()
            self._log_end()
        await self._journal.finish(self._services.retention_s)

    def _log_end(self) -> None:
        if self.spec.auto_rotate and self.end_reason is EndReason.MAX_DURATION:
            self._services.metrics.rotated("failed")
        _log.info(
            "session.ended",
            session=self.id,
            reason=self.end_reason.value if self.end_reason else "",
            upstream_reason=self._core.upstream_reason,
            error=self.error.reason if self.error else "",
            played_s=round(self._core.speech.totals.played_s, 1),
            unknown_events=self._core.unknown_events,
        )

    # --- journal

    def reserved(self, fence: Fence) -> None:
        """Take note that the session is in the registry before it is started."""
        self._journal.reserved(fence)

    async def call_off(self, error: GatewayError) -> None:
        """End a session that was reserved and is not to be started."""
        self._core.end(EndReason.CREATE_FAILED, time.monotonic(), error=error)
        self._core.ended()
        self.finished.set()
        await self._journal.finish(self._services.retention_s)

    def payload(self) -> Payload:
        """Return the record from which another process continues the session, or reports its end."""
        core, now_s, detached_until_s = self._core, time.monotonic(), self.attachments.detached_until_s
        record = Record(
            spec=self.spec,
            request_id=self.request_id,
            created_at=core.created_at,
            started_at=self.avatars.started_at,
            ready_at=core.ready_at,
            ended_at=core.ended_at,
            expires_in_s=None if core.expires_at_s is None else core.expires_at_s - now_s,
            detach_left_s=None if detached_until_s is None else detached_until_s - now_s,
            end_reason=core.end_reason,
            error=store_error(core.error),
            upstream_reason=core.upstream_reason,
            upstream_session_id=self.avatars.started.session_id if self.avatars.started else "",
            usage=self._usage(),
        )
        return record.payload()

    def handle_hashes(self) -> Sequence[HandleHash]:
        """Return the hashes of the handles that resume the session."""
        return self.handles.hashes

    def end_for(self, reason: EndReason) -> None:
        """Begin to end on a request that came to another process."""
        self.end(reason)

    def moved(self, error: OwnerMoved) -> None:
        """Give the session up: another process owns it. Nothing more is sent, and the avatar keeps running."""
        _log.warning("session.moved", session=self.id)
        self.lost_to = error
        self.attachments.supersede_all(error)
        if self._task is not None:
            self._task.cancel()


def _new_core(spec: SessionSpec, config: SessionConfig) -> Session:
    return Session(new_id(), config, new_id=new_id, utc_now=utc_now, auto_rotate=spec.auto_rotate)
