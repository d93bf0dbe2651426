"""State machine of a session: inputs from the caller, LiveAvatar and the clock lead to outputs."""

import math
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Self

from liveavatar_gateway.core import messages as wire
from liveavatar_gateway.core.abandonment import KEPT_FOREVER, Abandonment, AbandonmentConfig, Verdict
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import AgentHosted, GatewayError, SessionEnded
from liveavatar_gateway.core.events import (
    Adopted,
    Ended,
    EventLog,
    Expiring,
    Forwarded,
    PoseChanged,
    Reconnected,
    Room,
    Rotated,
    SessionEvent,
    SpeechPaused,
    StateChanged,
    UpstreamNotice,
    UtteranceEnded,
)
from liveavatar_gateway.core.lifetime import Lifetime
from liveavatar_gateway.core.listening import Listening
from liveavatar_gateway.core.outputs import (
    CheckSocket,
    Deadline,
    Emit,
    HandOver,
    Output,
    PrepareStandby,
    Report,
    Send,
    SpeechAnswer,
)
from liveavatar_gateway.core.readiness import Due, Readiness
from liveavatar_gateway.core.room_reports import RoomReports
from liveavatar_gateway.core.snapshot import SessionSnapshot
from liveavatar_gateway.core.speech.handover import SendGate
from liveavatar_gateway.core.speech.pauses import PauseTimeout
from liveavatar_gateway.core.speech.speech import Speech
from liveavatar_gateway.core.speech.utterance import AudioInput, Utterance
from liveavatar_gateway.core.states import (
    HOSTED_TRANSITIONS,
    SESSION_TRANSITIONS,
    EndReason,
    Pose,
    SessionState,
    end_reason_of,
    move,
)

_UNREADY = frozenset({SessionState.CONNECTING, SessionState.RECONNECTING})
OVER_UPSTREAM = frozenset({"closing", "closed", "disconnected"})
"""States that mean the end of the session in different builds. Source: LITE events page, old and new."""


class Session:
    """State machine of one session. No I/O and no clock: time is the argument `now_s` (monotonic seconds).

    The owner calls the methods for inputs, calls `tick` after each input and at each deadline, and carries out the
    outputs of `drain`. Between two calls of `drain` it may publish the `reports` alone.

    Invariant: the state follows `states.SESSION_TRANSITIONS`, or `states.HOSTED_TRANSITIONS` for an avatar that a
    hosted agent drives without a socket; every change is in `log`, which ends with `Ended`.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the attribute is public as `id`
        config: SessionConfig,
        *,
        new_id: Callable[[], str],
        utc_now: Callable[[], datetime],
        auto_rotate: bool = False,
        abandonment: AbandonmentConfig = KEPT_FOREVER,
        watches_room: bool = False,
        has_socket: bool = True,
    ) -> None:
        self.id = id
        self.has_socket = has_socket
        """False when a hosted agent drives the avatar: no command can be sent, and no event is received."""
        self.config = config
        self.state = SessionState.CREATING
        self.pose = Pose.UNKNOWN
        self.end_reason: EndReason | None = None
        self.upstream_reason = ""
        self.error: GatewayError | None = None
        self.created_at = utc_now()
        self.ready_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.expires_at: datetime | None = None
        """Wall-clock time at which LiveAvatar's limit ends the avatar; None without a limit."""
        self.heard_since_s: float | None = None
        """Time at which the current socket became ready, monotonic seconds; None while no socket is ready."""
        self.unknown_events = 0
        self.last_command_at_s = -math.inf
        """Time at which LiveAvatar last got a command or a keep-alive, monotonic seconds."""
        self.log = EventLog(capacity=config.event_log_size)
        self.speech = Speech(config.speech, new_id)
        self._new_id = new_id
        self._utc_now = utc_now
        self._outbox: deque[wire.Command] = deque()
        self._reports: list[Report] = []
        self._due: tuple[Output, ...] = ()
        self._listening = Listening()
        self._readiness = Readiness(config.readiness)
        self._lost_at_s = 0.0
        self._attempt_count = 0
        self._replaced = False
        self._lifetime = Lifetime(config, auto_rotate=auto_rotate)
        self._abandonment = Abandonment(abandonment, notice_s=config.expiring_notice_s, utc_now=utc_now)
        self.room = RoomReports(is_wanted=watches_room)
        self.reconnect_count = 0
        self.rotation_count = 0

    @classmethod
    def restored(
        cls,
        snapshot: SessionSnapshot,
        config: SessionConfig,
        *,
        new_id: Callable[[], str],
        utc_now: Callable[[], datetime],
        now_s: float,
        gap_s: float,
        auto_rotate: bool = False,
        abandonment: AbandonmentConfig = KEPT_FOREVER,
        watches_room: bool = False,
        has_socket: bool = True,
    ) -> Self:
        """Continue a session that another process drove before; its socket is not open yet.

        Args:
            snapshot: State in which the other process left the session.
            config: Deadlines.
            new_id: Factory of command ids.
            utc_now: Wall-clock time.
            now_s: Monotonic time.
            gap_s: Seconds without an owner.
            auto_rotate: True when a standby avatar takes over before the limit.
            abandonment: Limits of a session that nobody uses; they count anew.
            watches_room: True for a session whose caller has asked for events of its room.
            has_socket: False when a hosted agent drives the avatar: its session goes on as it was.
        """
        session = cls(
            snapshot.id,
            config,
            new_id=new_id,
            utc_now=utc_now,
            auto_rotate=auto_rotate,
            abandonment=abandonment,
            watches_room=watches_room,
            has_socket=has_socket,
        )
        session.created_at = snapshot.created_at
        session.ready_at = snapshot.ready_at
        session.expires_at = snapshot.expires_at
        session.reconnect_count = snapshot.reconnect_count
        session.rotation_count = snapshot.rotation_count
        session.state = session._state_without_owner()
        session.log = EventLog(capacity=config.event_log_size, last_sequence=snapshot.last_sequence)
        session._lost_at_s = now_s - gap_s
        session._lifetime.restore(snapshot.expires_in_s, now_s)
        session.speech.restore(snapshot, now_s)
        session._emit(Adopted(gap_s))
        return session

    def _state_without_owner(self) -> SessionState:
        """Return the state in which another process left a session: a socket is lost, a hosted agent goes on."""
        if self.has_socket:
            return SessionState.RECONNECTING
        return SessionState.CONNECTING if self.ready_at is None else SessionState.READY

    # --- start and end

    @property
    def over(self) -> bool:
        """True when the session is ending or has ended."""
        return self.state in (SessionState.ENDING, SessionState.ENDED)

    def started(
        self,
        *,
        max_duration_s: float | None,
        expires_at: datetime | None = None,
        now_s: float,
        enforced: bool = False,
    ) -> None:
        """Record that LiveAvatar started the avatar: billing has begun, and the limit counts from now.

        Args:
            max_duration_s: Limit of the avatar from now on; None without a limit.
            expires_at: Time of the limit, wall-clock.
            now_s: Monotonic time.
            enforced: True for a limit below LiveAvatar's own, at which the gateway ends the session.
        """
        self._move(SessionState.CONNECTING)
        self.last_command_at_s = now_s
        self.expires_at = expires_at
        self._lifetime.begin(max_duration_s, now_s, enforced=enforced)

    def agent_started(self) -> None:
        """Record that the hosted agent drives the avatar: its session is ready, and its pose stays unknown.

        LiveAvatar reports nothing after the start of such a session.
        """
        if self.state is SessionState.CONNECTING:
            self._move(SessionState.READY)
            self.ready_at = self._utc_now()

    def socket_opened(self, now_s: float, *, attempt_count: int = 1) -> None:
        """Record an open command socket, whose avatar may not be ready yet.

        Args:
            now_s: Monotonic time.
            attempt_count: Attempts to connect since the last socket was lost or opened.
        """
        if self.state is SessionState.RECONNECTING:
            self._attempt_count += attempt_count
        self._readiness.open(now_s, fresh=self.ready_at is None or self._replaced)

    def socket_lost(self, now_s: float) -> None:
        """Record the loss of the command socket; until the next one is ready, audio is accepted and queued."""
        if self.over:
            return
        self._readiness.close()
        self._outbox.clear()
        self.heard_since_s = None
        if self.state is SessionState.RECONNECTING:
            return
        self._lost_at_s = now_s
        self._attempt_count = 0
        self._listening.lose(self.pose)
        self._move(SessionState.RECONNECTING)
        self.speech.lose(now_s)

    def replaced(self, *, max_duration_s: float | None, expires_at: datetime | None = None, now_s: float) -> None:
        """Record a new avatar in place of one whose socket was lost; the new socket is not open yet.

        Args:
            max_duration_s: Limit of the new avatar from now on; None without a limit.
            expires_at: Time of the limit, wall-clock.
            now_s: Monotonic time.
        """
        self._replaced = True
        self.last_command_at_s = now_s
        self.expires_at = expires_at
        self._forget_pose()
        self._lifetime.begin(max_duration_s, now_s)

    def end(
        self, reason: EndReason, now_s: float, *, error: GatewayError | None = None, upstream_reason: str = ""
    ) -> None:
        """Begin to end the session: all utterances end now. The first reason stays; later calls change nothing."""
        if self.over:
            return
        self.end_reason = reason
        self.upstream_reason = upstream_reason
        if error is None and reason is EndReason.MAX_DURATION:
            error = self._lifetime.failure
        self.error = error
        self._move(SessionState.ENDING)
        self.speech.close(SessionEnded(self.id, reason.value, upstream_reason), now_s)
        self._collect()
        self._outbox.clear()

    def learn_end(self, upstream_reason: str) -> None:
        """Record the end reason from LiveAvatar's REST API, for an end that its socket gave no reason for."""
        said_nothing = self.end_reason in (EndReason.UPSTREAM_ENDED, EndReason.UPSTREAM_FAILED)
        if upstream_reason and said_nothing and not self.upstream_reason:
            self.upstream_reason = upstream_reason
            self.end_reason = end_reason_of(upstream_reason)

    def ended(self) -> None:
        """Record that the upstream session was stopped or never started: the session has ended."""
        if self.state is SessionState.ENDED:
            return
        self.ended_at = self._utc_now()
        self._move(SessionState.ENDED)
        self._emit(Ended(self.error))

    # --- rotation

    @property
    def expires_at_s(self) -> float | None:
        """Time at which LiveAvatar's limit ends the avatar, monotonic seconds; None without a limit."""
        return self._lifetime.expires_at_s

    def standby_ready(self, now_s: float) -> None:
        """Record that a standby avatar can take over."""
        self._lifetime.standby_ready()
        self.speech.handover.gate = self._lifetime.gate(now_s)

    def standby_failed(self, error: GatewayError) -> None:
        """Record that no standby avatar could be started, or that it was lost; the owner tries again."""
        self.speech.handover.gate = SendGate.NOTHING
        if self._lifetime.standby_failed(error):
            self._emit(UpstreamNotice(error=False, type="rotation_delayed", message=error.message))

    def standby_dropped(self) -> None:
        """Record that the owner dropped the standby avatar, if any."""
        self.speech.handover.gate = SendGate.NOTHING
        self._lifetime.standby_dropped()

    def _may_hand_over(self, now_s: float) -> bool:
        if not self._lifetime.has_standby:
            return False
        return self.speech.handover.is_free(now_s) or self._lifetime.is_last_moment(now_s)

    def take_over(
        self,
        *,
        upstream_session_id: str,
        max_duration_s: float | None,
        expires_at: datetime | None,
        room: Room | None = None,
        age_s: float,
        last_command_at_s: float,
        now_s: float,
    ) -> bool:
        """Continue on the standby avatar; from now on, pass in no event of the previous avatar.

        Args:
            upstream_session_id: LiveAvatar's id of the standby avatar's session.
            max_duration_s: Limit of that session from its start; None without a limit.
            expires_at: Time of the limit, wall-clock.
            room: Room of the standby avatar; None when the room cannot be joined.
            age_s: Seconds since the standby avatar was started.
            last_command_at_s: Time of its last command, monotonic seconds.
            now_s: Monotonic time.

        Returns:
            True when the standby avatar continues an utterance in the middle.
        """
        self.speech.tick(now_s)
        inside = any(one.is_upstream and not one.committed for one in self.speech.active)
        self._outbox.clear()
        self._forget_pose()
        resent_bytes = self.speech.hand_over(now_s)
        self._collect()
        self.rotation_count += 1
        self.last_command_at_s = last_command_at_s
        self.expires_at = expires_at
        self._lifetime.begin(max_duration_s, now_s - age_s)
        self._emit(
            Rotated(
                upstream_session_id=upstream_session_id,
                expires_at=expires_at,
                room=room,
                inside=inside,
            )
        )
        if self.state is SessionState.RECONNECTING:
            self._replaced = True
            self.heard_since_s = now_s
            self._ready_again(now_s, resent_bytes)
        return inside

    # --- the caller's side

    def begin(self, utterance_id: str, audio_input: AudioInput) -> Utterance:
        """Open an utterance.

        Raises:
            SessionEnded, AgentHosted, UtteranceIdReused, CapacityExhausted: The utterance was not opened.
        """
        self.require_socket("StreamAudio")
        self._abandonment.note_activity()
        return self.speech.begin(utterance_id, audio_input)

    def seal(self, utterance: Utterance, failure: GatewayError | None = None) -> None:
        """Accept no more audio for an utterance."""
        self._abandonment.note_activity()
        self.speech.seal(utterance, failure)
        self._collect()

    def cancel(self, utterance: Utterance) -> None:
        """Drop a queued utterance, or interrupt it if the avatar speaks it."""
        self._abandonment.note_activity()
        self.speech.cancel(utterance)
        self._collect()

    def interrupt(self, utterance_id: str) -> int:
        """Interrupt an utterance, or all of them without an id; return the id of the `Answer` that follows.

        Raises:
            SessionEnded, AgentHosted, UtteranceNotFound: Nothing was interrupted.
        """
        self.require_socket("interrupt")
        self._abandonment.note_activity()
        interrupt_id = self.speech.interrupt(utterance_id)
        self._collect()
        return interrupt_id

    def pause(self, utterance_id: str, timeout: PauseTimeout, now_s: float) -> int:
        """Pause speech; return the id of the `PauseAnswer` that follows. See `Pauses.pause`.

        Raises:
            SessionEnded, AgentHosted, UtteranceNotFound: Nothing was paused.
        """
        self.require_socket("pause")
        self._abandonment.note_activity()
        call_id = self.speech.pause(utterance_id, timeout, now_s)
        self._collect()
        return call_id

    def continue_speech(self) -> int:
        """Continue speech after a pause; return the id of the `ContinueAnswer` that follows.

        Raises:
            SessionEnded: The session is ending or has ended.
        """
        self.require_socket("continue_speech")
        self._abandonment.note_activity()
        call_id = self.speech.continue_speech()
        self._collect()
        return call_id

    def listen(self) -> None:
        """Take the listening pose now, or when the avatar has finished talking.

        Raises:
            SessionEnded: The session is ending or has ended.
        """
        self.require_socket("start_listening")
        self._abandonment.note_activity()
        self._listening.want()

    def stop_listening(self) -> None:
        """Return to the idle pose.

        Raises:
            SessionEnded: The session is ending or has ended.
        """
        self.require_socket("stop_listening")
        self._abandonment.note_activity()
        if self._listening.stop(self.pose) and self.state is not SessionState.RECONNECTING:
            self._outbox.append(wire.ListenStop(self._new_id()))

    def note_activity(self) -> None:
        """Record a new stream of the caller."""
        self._abandonment.note_activity()

    def keep_alive(self) -> bool:
        """Make a keep-alive the next command; return False if no socket is ready to take it."""
        if not self.has_socket or self.state is not SessionState.READY:
            return False
        # An earlier one still waits if the socket is slow.
        if not any(isinstance(waiting, wire.KeepAlive) for waiting in self._outbox):
            self._outbox.append(wire.KeepAlive(self._new_id()))
        return True

    def note_kept_alive(self, at_s: float) -> None:
        """Record a keep-alive that did not use the socket."""
        self.last_command_at_s = max(self.last_command_at_s, at_s)

    # --- the room

    def note_viewers(self, present: bool | None, now_s: float) -> None:  # noqa: FBT001 - three values
        """Record an observation of the room.

        Args:
            present: False when nobody can see the avatar; None when that could not be found out for a while.
            now_s: Monotonic time.
        """
        if not self.over and self.ready_at is not None:
            self._judge(self._abandonment.note_viewers(present, now_s), now_s)
        self.room.note_viewers(present)
        self.report_room(now_s)

    def report_room(self, now_s: float) -> None:
        """Emit the events of the room that are due. Call it after each input to `room`."""
        if not self.over:
            for event in self.room.take(now_s):
                self._emit(event)

    @property
    def is_absence_announced(self) -> bool:
        """True while an end for absent viewers is announced."""
        return self._abandonment.is_absence_announced

    def _judge(self, verdict: Verdict, now_s: float) -> None:
        for event in verdict.events:
            self._emit(event)
        if verdict.end is not None:
            self.end(verdict.end, now_s)

    # --- LiveAvatar's side

    def on_event(self, event: wire.Event, now_s: float) -> bool:
        """Handle an event of the command socket; return True when `tick` and `drain` may have work to do."""
        if self.over:
            return False
        if isinstance(event, wire.Appended) and self.state is SessionState.READY:
            # Each packet has an ack; all but an utterance's first change only the position in the caller's next
            # ack.
            return self.speech.on_appended(event.refs, now_s) or self.speech.waits_for_proof
        if isinstance(event, wire.PongReceived):
            self.speech.on_read(event.number, now_s)
            return self.speech.waits_for_proof
        self._take_as_sign_of_life(event, now_s)
        if isinstance(event, Forwarded):
            self._emit(event)
        match event:
            case wire.StateUpdated(state):
                if state in OVER_UPSTREAM:
                    self.end(EndReason.UPSTREAM_ENDED, now_s)
            case wire.PoseUpdated(pose):
                self._on_pose(pose, now_s)
            case wire.Stopped(reason):
                self.end(end_reason_of(reason or "UNKNOWN"), now_s, upstream_reason=reason)
            case wire.Unknown():
                self.unknown_events += 1
            case _:
                self._on_speech(event, now_s)
        self._collect()
        return True

    def _on_speech(self, event: wire.Event, now_s: float) -> None:
        match event:
            case wire.SpeakStarted(refs):
                self.speech.on_started(refs, now_s)
                # A late start is about speech that has ended, after which no event would end the talking pose.
                if self.speech.speaking:
                    self._pose(Pose.TALKING)
            case wire.Committed(refs):
                self.speech.on_committed(refs, now_s)
            case wire.SpeakEnded(refs):
                self.speech.on_ended(refs, now_s)
            case wire.Cleared(refs):
                self.speech.on_cleared(refs, now_s)
            case wire.SpeakInterrupted(refs):
                self.speech.on_interrupted(refs, now_s)

    def _on_pose(self, pose: Pose, now_s: float) -> None:
        if pose is Pose.TALKING:
            self.speech.on_talking(now_s)
        else:
            self.speech.on_silent(now_s)
        self._pose(pose)

    def _take_as_sign_of_life(self, event: wire.Event, now_s: float) -> None:
        """Become ready on an answer to a probe, where `connected` never comes."""
        if self.state in _UNREADY and self._readiness.is_shown_by(event):
            self._become_ready(now_s)

    # --- time and commands

    @property
    def _deadline_s(self) -> float | None:
        due = [
            self.speech.deadline_s,
            self.speech.silent_at_s,
            self._lifetime.deadline_s,
            self._abandonment.next_s,
            self.room.next_s,
        ]
        if self.ready_at is not None:
            due.append(self._lifetime.handover_deadline_s(self.speech.handover))
        if self.state in _UNREADY:
            due.append(self._readiness.deadline_s)
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self, now_s: float, *, is_stuck: bool = False) -> None:
        """Apply all deadlines up to now, and decide which outputs `drain` returns besides reports.

        Args:
            now_s: Monotonic time.
            is_stuck: True when LiveAvatar's end of the socket does not read what was sent.
        """
        self._due = ()
        if self.over:
            return
        if is_stuck:
            self.speech.note_stall(now_s)
        self._lifetime.tick(now_s)
        self.speech.handover.gate = self._lifetime.gate(now_s)
        self.speech.tick(now_s, is_stuck=is_stuck)
        self._collect()
        if self.state in _UNREADY:
            self._tick_connecting(now_s)
        self._tick_limit(now_s)
        self._tick_room(now_s)
        if not self.over and self.ready_at is not None:
            self._judge(self._abandonment.tick(self.speech, now_s), now_s)
        if not self.over:
            self._due = self._decide(now_s)

    def _decide(self, now_s: float) -> tuple[Output, ...]:
        if self._may_hand_over(now_s):
            return (HandOver(),)
        prepare = self.ready_at is not None and self._lifetime.request_standby(now_s)
        silent_at_s = self.speech.silent_at_s
        is_silent = silent_at_s is not None and now_s >= silent_at_s
        return (PrepareStandby(),) * prepare + (CheckSocket(),) * is_silent

    def _tick_connecting(self, now_s: float) -> None:
        match self._readiness.tick(now_s):
            case Due.GIVE_UP:
                self.end(EndReason.UPSTREAM_FAILED, now_s, error=self._readiness.timeout())
            case Due.PROBE:
                self._outbox.append(wire.Interrupt(self._new_id()))
            case Due.READY:
                # Some builds send `connected` once per session, so only the next answer shows that the avatar is
                # ready.
                self._become_ready(now_s)

    def _tick_limit(self, now_s: float) -> None:
        left_s = self._lifetime.notice_s(now_s)
        if left_s is not None:
            self._emit(Expiring(self.expires_at or self._utc_now() + timedelta(seconds=left_s)))
        if self._lifetime.is_past(now_s):
            self.end(EndReason.MAX_DURATION, now_s)

    def _tick_room(self, now_s: float) -> None:
        due_s = self.room.next_s
        if due_s is not None and now_s >= due_s:
            self.report_room(now_s)

    def note_stall(self, now_s: float) -> None:
        """Record that the socket stood still until now, so that LiveAvatar had no chance to report anything."""
        self.speech.note_stall(now_s)

    def reports(self) -> list[Report]:
        """Return the events and answers that are not published yet, oldest first."""
        reports, self._reports = self._reports, []
        return reports

    def drain(self, now_s: float) -> list[Output]:
        """Return the outputs to carry out now, in order.

        The `reports` come first, then the decisions of the latest `tick`. The last output is the only `HandOver`,
        `CheckSocket`, `Send` or `Deadline`: at most one command is returned at a time, so that an interrupt can
        overtake the commands behind it. A session that is ending or has ended returns reports alone.
        """
        if self.over:
            return [*self.reports()]
        due, self._due = self._due, ()
        if due and not isinstance(due[-1], PrepareStandby):
            return [*self.reports(), *due]
        command = self._next_command(now_s)
        last = Deadline(self._deadline_s) if command is None else Send(command, self.speech.sent_count)
        return [*self.reports(), *due, last]

    def _next_command(self, now_s: float) -> wire.Command | None:
        if self.state is SessionState.CREATING:
            return None
        command = self._next(now_s)
        if command is not None and not isinstance(command, wire.Probe):
            self.last_command_at_s = now_s
        self._collect()
        return command

    def _next(self, now_s: float) -> wire.Command | None:
        if self._outbox:
            waiting = self._outbox.popleft()
            if isinstance(waiting, wire.Interrupt):
                self.speech.note_readiness_probe(waiting.event_id)
            return waiting
        # Before the session is ready, speech returns no command, and the call updates its deadline.
        command = self.speech.next_command(now_s)
        if self.state is not SessionState.READY:
            return None
        if command is None and not self.speech.active and self._listening.is_due(self.pose):
            return wire.ListenStart(self._new_id())
        return command

    # --- transitions and events

    def _become_ready(self, now_s: float) -> None:
        resent_bytes = self.speech.resume(now_s)
        self.heard_since_s = now_s
        if self.state is SessionState.RECONNECTING:
            self._ready_again(now_s, resent_bytes)
        else:
            self._readiness.close()
            self._move(SessionState.READY)
        if self.ready_at is None:
            self.ready_at = self._utc_now()
            self._pose(Pose.IDLE)

    def _ready_again(self, now_s: float, resent_bytes: int) -> None:
        self._readiness.close()
        self._move(SessionState.READY)
        self.reconnect_count += 1
        self._emit(Reconnected(self._attempt_count, now_s - self._lost_at_s, resent_bytes, self._replaced))
        self._replaced = False
        if self.pose is Pose.LISTENING and not self._listening.asked:
            self._outbox.append(wire.ListenStop(self._new_id()))

    def require_socket(self, call: str) -> None:
        """Refuse a call that cannot be carried out.

        Args:
            call: Name of the call, for its error.

        Raises:
            SessionEnded: The session is ending or has ended.
            AgentHosted: A hosted agent drives the avatar.
        """
        if self.over:
            reason = self.end_reason.value if self.end_reason else ""
            raise SessionEnded(self.id, reason, self.upstream_reason)
        if not self.has_socket:
            raise AgentHosted(self.id, call)

    def _move(self, following: SessionState) -> None:
        table = SESSION_TRANSITIONS if self.has_socket else HOSTED_TRANSITIONS
        previous, self.state = self.state, move(table, self.state, following)
        self._emit(StateChanged(following, previous))

    def _pose(self, pose: Pose) -> None:
        if pose is not self.pose and pose is not Pose.UNKNOWN:
            previous, self.pose = self.pose, pose
            self._emit(PoseChanged(pose, previous))

    def _forget_pose(self) -> None:
        """Forget the former avatar's pose: the new one was not sent ListenStart, and its pose is unknown."""
        self._listening.begin_anew()
        self.speech.forget_pose()
        if self.pose is Pose.LISTENING:
            self._pose(Pose.IDLE)

    def _collect(self) -> None:
        """Emit the events of speech, and pass its answers on."""
        if self.speech.reports:
            reports = list(self.speech.reports)
            self.speech.reports.clear()
            for report in reports:
                if isinstance(report, SpeechAnswer):
                    self._reports.append(report)
                    continue
                self._emit(report)
                is_last = isinstance(report, UtteranceEnded) and not self.speech.active
                if is_last or isinstance(report, SpeechPaused):
                    self._rest()

    def _rest(self) -> None:
        """Record the idle pose of an avatar without speech to play, which LiveAvatar may not report."""
        if self.pose is Pose.TALKING:
            self._pose(Pose.IDLE)

    def _emit(self, event: SessionEvent) -> None:
        self._reports.append(Emit(self.log.append(event, self._utc_now())))
