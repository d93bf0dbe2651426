"""Actor of one living session: runs the state machine of `core` with a socket, a clock and tasks."""

import math
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from liveavatar_gateway.core.errors import GatewayError, OwnerMoved, SessionEnded
from liveavatar_gateway.core.events import EventLog, UtteranceEnded
from liveavatar_gateway.core.outputs import ContinueAnswer, PauseAnswer
from liveavatar_gateway.core.speech.pauses import PauseTimeout
from liveavatar_gateway.core.states import EndReason, SessionState
from liveavatar_gateway.registry.base import Fence, HandleHash, Payload
from liveavatar_gateway.rooms.access import RoomAccess, Viewer, ViewerAccess
from liveavatar_gateway.sessions.handles import Handles
from liveavatar_gateway.sessions.lifecycle import SessionLifecycle
from liveavatar_gateway.sessions.parts import SessionParts
from liveavatar_gateway.sessions.record import Record, StoredPause, store_error
from liveavatar_gateway.sessions.restore import RestoredSession
from liveavatar_gateway.sessions.room_data import DataMessage
from liveavatar_gateway.sessions.services import SessionServices, utc_now
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.view import SessionView
from liveavatar_gateway.sessions.viewers import SessionViewers
from liveavatar_gateway.upstream.model import Started
from liveavatar_gateway.upstream.permits import QueuePlace

_log = structlog.get_logger(__name__)


class SessionActor:
    """A session from its creation to its last event: commands, waits and state.

    `lifecycle` owns its one task. All other methods are called from the same loop, and only change the state
    machine and wake that task.
    """

    def __init__(
        self,
        spec: SessionSpec,
        services: SessionServices,
        *,
        tenant: str = "",
        request_id: str = "",
        restored: RestoredSession | None = None,
    ) -> None:
        """Prepare for `lifecycle.run`.

        Args:
            spec: The caller's wishes.
            services: Parts shared by all sessions.
            tenant: Tenant of the session; empty for a session of anonymous callers.
            request_id: The caller's id of the request; empty if there is none.
            restored: State that another process left; None for a new session.
        """
        self.spec = spec
        self.tenant = tenant
        self.request_id = request_id
        parts = SessionParts.of(self, spec, services, restored)
        self._core = parts.core
        self._wake = parts.wake
        self._journal = parts.journal
        self._interrupts = parts.interrupts
        self._pauses = parts.pauses
        self._continuations = parts.continuations
        self._publisher = parts.publisher
        self._metrics = services.metrics
        self.attachments = parts.attachments
        self.utterances = parts.utterances
        self.avatars = parts.avatars
        self.user_audio = parts.user_audio
        self._room_data = parts.room_data
        self.handles = Handles(
            self.id, keep_s=spec.detach_grace_s, tenant=tenant, hashes=() if restored is None else restored.handles
        )
        self.viewers = SessionViewers(
            self.id,
            spec,
            services.pool.rooms,
            removed={} if restored is None else restored.removed_viewers,
            utc_now=utc_now,
        )
        self.lifecycle = SessionLifecycle(spec, services, parts, restored, tenant=tenant)
        self.finished = self.lifecycle.finished
        """Set when LiveAvatar has stopped the session, or another process owns it."""
        if self.state is SessionState.ENDED:
            self.finished.set()
            self.lifecycle.recorded.set()
        self.draining_until: datetime | None = None
        """Deadline of a drain; None while the session may stay."""
        self._final_view: SessionView | None = None

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
    def watches_viewers(self) -> bool:
        """True while it matters if anybody sees the avatar: for its end, or for events of the room."""
        return not self.over and (self.spec.viewer_absence_s is not None or self.spec.room_events is not None)

    @property
    def kept_out(self) -> Collection[str]:
        """Identities that are put out of the room whenever they join; empty once the session is over."""
        return () if self.over else self.viewers.removed.keys()

    @property
    def is_absence_announced(self) -> bool:
        """True while an end for absent viewers is announced."""
        return self._core.is_absence_announced

    @property
    def avatar_identities(self) -> Sequence[str]:
        """Identities of all avatars that the session may have in its room."""
        return self.avatars.identities

    @property
    def log(self) -> EventLog:
        """Events of the session."""
        return self._core.log

    @property
    def lost_to(self) -> OwnerMoved | None:
        """Error for callers once another process owns the session; None before."""
        return self.lifecycle.lost_to

    def view(self) -> SessionView:
        """Return the present state for display."""
        core, avatars, started = self._core, self.avatars, self.avatars.started
        speech, now_s = core.speech, time.monotonic()
        played_s = speech.totals.played_s + sum(one.position_s(speech.clock, now_s) for one in speech.active)
        return SessionView(
            id=core.id,
            tenant=self.tenant,
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
            usage=replace(
                avatars.usage(),
                played_s=played_s,
                repeated_s=speech.totals.repeated_s + sum(one.repeated_s for one in speech.active),
            ),
            last_sequence=core.log.last_sequence,
            paused=speech.pauses.is_paused and not core.over,
        )

    def final_view(self) -> SessionView:
        """Return the view for the last event: made once, since usage may still be counted after the end."""
        if self._final_view is None:
            self._final_view = self.view()
        return self._final_view

    def age_s(self, now_s: float) -> float:
        """Return the time since LiveAvatar started the session, seconds, at a monotonic time; 0 before.

        Steps of the wall clock do not count, except for a session that another process started.
        """
        began_s = self.lifecycle.began_s
        return 0.0 if began_s is None else now_s - began_s

    # --- commands

    def issue_handle(self, *, beside: bool = False) -> str:
        """Issue a handle that resumes the session; see `Handles.issue`."""
        handle = self.handles.issue(time.monotonic(), beside=beside)
        self._journal.note_handles()
        return handle

    async def interrupt(self, utterance_id: str) -> Sequence[UtteranceEnded]:
        """Interrupt an utterance, or all of them if the id is empty.

        Returns the utterances that ended, once LiveAvatar has stopped them or has not answered in time.

        Raises:
            SessionEnded, UtteranceNotFound: nothing was interrupted.
        """
        interrupt_id = self._core.interrupt(utterance_id)
        self._journal.note_interrupts(self._core.speech.active)
        result = self._interrupts.expect(interrupt_id)
        self._wake.set()
        self._publisher.report()
        began_s = time.monotonic()
        ended = await result
        self._metrics.interrupted(time.monotonic() - began_s)
        return ended

    async def pause(self, utterance_id: str, limit: PauseTimeout) -> PauseAnswer:
        """Pause speech, and return once LiveAvatar is silent or has not answered in time.

        The registry has the pause before this returns, unless it is out of reach.

        Raises:
            SessionEnded, UtteranceNotFound: nothing was paused.
        """
        call_id = self._core.pause(utterance_id, limit, time.monotonic())
        # Noted before the interrupt is sent: from now on, another process continues at the noted positions.
        self._journal.note_held(self._core.speech.active)
        self._journal.change()
        result = self._pauses.expect(call_id)
        self._wake.set()
        self._publisher.report()
        answer = await result
        await self._journal.save()
        return answer

    async def continue_speech(self) -> ContinueAnswer:
        """Continue speech after a pause, and return once it continues.

        Raises:
            SessionEnded: the session is over.
        """
        call_id = self._core.continue_speech()
        self._journal.change()
        result = self._continuations.expect(call_id)
        self._wake.set()
        self._publisher.report()
        return await result

    async def send_data(self, command_id: str, message: DataMessage) -> None:
        """Send data to participants of the room, see `RoomData.send`.

        Raises:
            SessionEnded: the session is over.
            GatewayError: the data was not sent.
        """
        self.require_alive()
        self.note_activity()
        await self._room_data.send(command_id, message)

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
        """Begin to end, see `SessionLifecycle.end`; `finished` is set when LiveAvatar has stopped the session."""
        self.lifecycle.end(reason, error=error)

    def forsake(self, *, retryable: bool) -> None:
        """Take note that the caller who creates the session is gone.

        Args:
            retryable: True if the caller can come back with its request id. The session then goes on for its
                grace, unless it still waits for a permit.
        """
        if not self.lifecycle.leave_queue() and not retryable:
            self.end(EndReason.CALLER_LOST)

    def abandon(self) -> None:
        """End the session: its grace without an attachment is over."""
        if not self.over:
            _log.info("session.abandoned", session=self.id, grace_s=self.spec.detach_grace_s)
            self.end(EndReason.CALLER_LOST)

    def note_viewers(self, present: bool | None) -> None:  # noqa: FBT001 - three values
        """Take note of a look into the room.

        Args:
            present: False if nobody can see the avatar; None if that could not be found out for a while.
        """
        self._core.note_viewers(present, time.monotonic())
        self._wake.set()
        self._publisher.report()

    def note_activity(self) -> None:
        """Take note of a new stream of a caller."""
        self._core.note_activity()
        self._wake.set()

    async def create_viewer_tokens(self, viewers: Sequence[Viewer]) -> Sequence[ViewerAccess]:
        """Return tokens of viewers, see `SessionViewers.issue`.

        Raises:
            SessionEnded: the session is over.
            RoomNotOwn, RoomNotAllowed: there can be no tokens.
        """
        self.require_alive()
        kept_out = len(self.viewers.removed)
        issued = self.viewers.issue(viewers)
        if len(self.viewers.removed) < kept_out:
            # Before a token is used, or another process would put the viewer out again.
            await self._journal.save()
        return issued

    async def keep_out(self, identity: str) -> None:
        """Keep a viewer out of the room from now on, see `SessionViewers.keep_out`.

        Raises:
            RoomNotOwn, InvalidField, CapacityExhausted: it cannot be kept out.
        """
        self.viewers.keep_out(identity)
        await self._journal.save()

    # --- waits

    async def room(
        self,
        report: Callable[[QueuePlace], Awaitable[None]] | None = None,
        *,
        repeat_s: float | None = None,
    ) -> Started:
        """Wait until the room can be joined.

        Args:
            report: Awaited with the place in the queue for a permit, when the wait begins and when it changes.
            repeat_s: Time after which an unchanged place is reported again; None for never.

        Raises:
            GatewayError: the session ended before.
        """
        await self._wait_until(lambda: self.avatars.started is not None, report, repeat_s)
        assert self.avatars.started is not None  # noqa: S101 - the condition of the wait
        return self.avatars.started

    def room_access(self) -> RoomAccess | None:
        """Return access to the room for all who are to join it, see `Avatars.room_access`."""
        access = self.avatars.room_access()
        if access is None or self.over:
            return access
        return replace(access, viewers=self.viewers.of_spec())

    async def ready(self) -> None:
        """Wait until the avatar is ready.

        Raises:
            GatewayError: the session ended before.
        """
        await self._wait_until(lambda: self.state is SessionState.READY)

    async def _wait_until(
        self,
        reached: Callable[[], bool],
        report: Callable[[QueuePlace], Awaitable[None]] | None = None,
        repeat_s: float | None = None,
    ) -> None:
        attachment = self.attachments.add()
        reported: QueuePlace | None = None
        repeat_at_s = math.inf
        try:
            while not reached():
                if attachment.superseded is not None:
                    raise attachment.superseded
                if self.over:
                    raise self.error or self._ended_error()
                place = self.lifecycle.queue_place
                now_s = time.monotonic()
                if report is not None and place is not None and (place is not reported or now_s >= repeat_at_s):
                    reported = place
                    repeat_at_s = math.inf if repeat_s is None else now_s + repeat_s
                    await report(place)
                else:
                    await attachment.wakeup.wait(None if repeat_at_s == math.inf else repeat_at_s - now_s)
        finally:
            attachment.release()

    def require_alive(self) -> None:
        """Refuse a session that is over.

        Raises:
            SessionEnded: it is.
        """
        if self.over:
            raise self._ended_error()

    def require_socket(self, call: str) -> None:
        """Refuse a call to a session that is over, or whose avatar a hosted agent drives.

        Raises:
            SessionEnded: the session is over.
            AgentHosted: there is no command socket, and no agent's seat.
        """
        self._core.require_socket(call)

    def _ended_error(self) -> SessionEnded:
        reason = self.end_reason.value if self.end_reason else ""
        return SessionEnded(self.id, reason, self._core.upstream_reason)

    # --- journal

    def reserved(self, fence: Fence) -> None:
        """Take note that the session is in the registry before it is started."""
        self._journal.reserved(fence)

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
            usage=self.avatars.usage(),
            removed_viewers=self.viewers.removed,
            pause=StoredPause.of(core.speech.pauses.snapshot(now_s)),
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
        self.lifecycle.lose(error)
