"""Session of the service: readiness, pose, commands and end. Pure: time and inputs come in, effects come out.

    WAITING ──ready_delay after the first socket──► READY ──► ENDED
                                                      └─► MUTED   (at the duration limit, in `mute` mode)

Each input first advances the session to its own time, so effects are returned in the order of time.

Source: LiveAvatar API reference: states, commands, interrupt, silent drops, timers, and requirements of official
clients.
"""

from collections import deque
from collections.abc import Callable

from liveavatar_emulator import protocol
from liveavatar_emulator.avatar_events import AvatarEvent, PoseChanged, SpeechAudio, SpeechCut, SpeechStarted
from liveavatar_emulator.config import Settings
from liveavatar_emulator.effects import ChargeMinute, Close, Effect, Send, SessionEnded
from liveavatar_emulator.playback import BYTES_PER_SECOND, Change, Cut, Ended, Playback, RanDry, Started, Utterance
from liveavatar_emulator.protocol import Command, Events, Pose
from liveavatar_emulator.recording import InterruptRecord, Recording
from liveavatar_emulator.session_timers import Deadline, SessionTimers
from liveavatar_emulator.states import PHASES, Phase, State


class Session:
    """A started session. Invariant: returns at most one `SessionEnded`, and only `Close` after it.

    A session with an avatar in a room (`has_avatar`) is not ready before the avatar has joined, and returns avatar
    events. A session with a connector (`has_connector`) is driven by an agent of the service and needs no socket.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        recording: Recording,
        fresh_id: Callable[[], str],
        now_s: float,
        limit_s: float,
        billed: bool,
        has_connector: bool = False,
        has_avatar: bool = False,
    ) -> None:
        self.settings = settings
        self.recording = recording
        self.events = Events(settings.profile, fresh_id)
        self.playback = Playback(
            speed=settings.speed,
            start_delay_s=settings.start_delay_ms / 1000,
            start_after_s=settings.start_after_ms / 1000,
        )
        self.pose = Pose.IDLE
        self.attached = False
        self.end_reason: str | None = None
        self.ready_s: float | None = None
        self._phase = State(Phase.WAITING, PHASES)
        self._timers = SessionTimers(now_s=now_s, limit_s=limit_s, billed=billed, needs_socket=not has_connector)
        self._ready_due_s: float | None = now_s + settings.ready_delay_ms / 1000 if has_connector else None
        self._has_avatar = has_avatar
        self._avatar_awaited = has_avatar
        self._connected_announced = False
        self._cut_ids: set[str] = set()
        self._late_ends: deque[tuple[float, Utterance]] = deque()
        self._last_task_id = ""

    @property
    def phase(self) -> Phase:
        """Current phase."""
        return self._phase.value

    # -- inputs
    # ------------------------------------------------------------------------------------------------

    def configure(self, settings: Settings, now_s: float) -> list[Effect]:
        """Follow changed settings; the profile and the duration limit stay as they were at start."""
        effects = self.advance(now_s)
        if self._ready_due_s is not None:
            self._ready_due_s += (settings.ready_delay_ms - self.settings.ready_delay_ms) / 1000
        self.settings = settings
        self.playback.configure(
            speed=settings.speed,
            start_delay_s=settings.start_delay_ms / 1000,
            start_after_s=settings.start_after_ms / 1000,
            now_s=now_s,
        )
        return effects

    def attach(self, now_s: float) -> list[Effect]:
        """Attach a new socket. The first socket starts the readiness delay."""
        effects = self.advance(now_s)
        self.attached = True
        self._timers.attach()
        if self.phase is Phase.WAITING:
            if self._ready_due_s is None:
                self._ready_due_s = now_s + self.settings.ready_delay_ms / 1000
            effects.append(Send(self.events.attached()))
            effects += self.advance(now_s)
        elif self.phase is Phase.READY and (
            not self._connected_announced or self.settings.reconnect_emits_connected
        ):
            effects += self._announce_connected()
        elif self.phase is Phase.ENDED:
            effects.append(Close(1000, self.end_reason or ""))
        return effects

    def detach(self, now_s: float) -> list[Effect]:
        """Detach the socket. Queued audio plays on; a closed socket ends no session by itself."""
        effects = self.advance(now_s)
        self.attached = False
        if self.phase is not Phase.ENDED:
            self._timers.detach(now_s)
        return effects

    def command(self, command: Command, now_s: float) -> list[Effect]:
        """Execute one parsed frame. Before readiness and after the end the command is only counted."""
        effects = self.advance(now_s)
        self.recording.record_command(protocol.type_of(command), command.event_id, now_s)
        if self.phase is Phase.WAITING:
            self.recording.commands_before_ready += 1
            return effects
        if self.phase is not Phase.READY:
            self.recording.commands_after_end += 1
            return effects
        if not isinstance(command, protocol.Unknown | protocol.Invalid):
            self._timers.note_activity(now_s)
        effects += self._execute(command, now_s)
        return effects

    def avatar_joined(self, now_s: float) -> list[Effect]:
        """Stop holding back readiness: the avatar is in its room."""
        effects = self.advance(now_s)
        if self._avatar_awaited:
            self._avatar_awaited = False
            if self._ready_due_s is not None:
                self._ready_due_s = max(self._ready_due_s, now_s)
        return [*effects, *self.advance(now_s)]

    def oversize(self, now_s: float) -> list[Effect]:
        """Reject a frame longer than the limit."""
        effects = self.advance(now_s)
        self.recording.oversize_packets += 1
        if self.settings.oversize == "close":
            effects.append(Close(1009, "message too big"))
        return effects

    def keep_alive(self, now_s: float) -> list[Effect]:
        """Restart the idle timer after a REST keep-alive; the socket's keep-alive restarts the same timer."""
        effects = self.advance(now_s)
        self.recording.record_keepalive("rest", now_s)
        self._timers.note_activity(now_s)
        return effects

    def say(self, pcm: bytes, now_s: float) -> list[Effect]:
        """Say an utterance of the hosted agent, whole; before readiness and after the end it is not said."""
        effects = self.advance(now_s)
        if self.phase is Phase.READY:
            appended, _ = self._append(f"agent-{len(self.recording.utterances) + 1}", pcm, now_s)
            self.playback.speak_end(now_s)
            effects += [*appended, *self.advance(now_s)]
        return effects

    def hush(self, now_s: float) -> list[Effect]:
        """Cut what the hosted agent is saying, if anything."""
        effects = self.advance(now_s)
        if self.phase is Phase.READY and self.playback.queued:
            effects += [*self._interrupt(None, now_s), *self.advance(now_s)]
        return effects

    def end(self, reason: str, now_s: float) -> list[Effect]:
        """End the session now, unless it has ended already."""
        effects = self.advance(now_s)
        if self.phase is not Phase.ENDED and self.end_reason is None:
            effects += self._end(reason, now_s)
        return effects

    # -- time
    # --------------------------------------------------------------------------------------------------

    def next_due_s(self) -> float | None:
        """Return the time at which `advance` next has work; None if only an input can change the session."""
        if self.phase is Phase.ENDED or self.phase is Phase.MUTED:
            return None
        due_s = self._timers.next_due_s(self.settings)
        for other_s in (
            self.playback.next_due_s(),
            None if self._avatar_awaited else self._ready_due_s,
            self._late_ends[0][0] if self._late_ends else None,
        ):
            if other_s is not None and other_s < due_s:
                due_s = other_s
        return due_s

    def advance(self, now_s: float) -> list[Effect]:
        """Execute everything due by `now_s`, in the order of time."""
        effects: list[Effect] = []
        while (due_s := self.next_due_s()) is not None and due_s <= now_s:
            effects += self._fire(due_s)
        return effects

    def _fire(self, due_s: float) -> list[Effect]:
        if not self._avatar_awaited and self._ready_due_s is not None and self._ready_due_s <= due_s:
            self._ready_due_s = None
            self._phase.move(Phase.READY)
            self.ready_s = due_s
            return self._announce_connected() if self.attached else []
        if self._late_ends and self._late_ends[0][0] <= due_s:
            _, utterance = self._late_ends.popleft()
            return _send(self.events.speak_ended(utterance.source_event_id, utterance.task_id))
        change = self.playback.fire(due_s)
        return self._on_deadline(due_s) if change is None else self._on_playback_change(change)

    def _on_deadline(self, due_s: float) -> list[Effect]:
        match self._timers.take(due_s, self.settings):
            case Deadline.DURATION if self.settings.max_duration_mode == "mute":
                return self._mute(due_s)
            case Deadline.DURATION:
                return self._end("MAX_DURATION_REACHED", due_s)
            case Deadline.BILLING:
                return [ChargeMinute(due_s)]
            case Deadline.REAP:
                return self._end("ZOMBIE_SESSION_REAP", due_s)
            case Deadline.IDLE:
                return self._end("IDLE_TIMEOUT", due_s)

    def _on_playback_change(self, change: Change) -> list[Effect]:
        match change:
            case Started(utterance):
                self._last_task_id = utterance.task_id
                pose = self._set_pose(Pose.TALKING)
                started = self.events.speak_started(utterance.source_event_id, utterance.task_id)
                return [*pose, *self._avatar_event(SpeechStarted(utterance.number, change.at_s)), *_send(started)]
            case Ended(utterance):
                self._last_task_id = utterance.task_id
                ended = self.events.speak_ended(utterance.source_event_id, utterance.task_id)
                return [*_send(ended), *self._set_pose(Pose.IDLE)]
            case RanDry():
                return self._set_pose(Pose.IDLE) if self.settings.idle_on_underrun else []
            case Cut():
                return self._on_cut(change)

    # -- commands
    # ----------------------------------------------------------------------------------------------

    def _execute(self, command: Command, now_s: float) -> list[Effect]:
        match command:
            case protocol.Speak() | protocol.SpeakEnd():
                effects = self._speak(command, now_s)
            case protocol.Interrupt(event_id):
                effects = self._interrupt(event_id, now_s)
            case protocol.StartListening() | protocol.StopListening():
                effects = self._set_listening(command)
            case protocol.KeepAlive():
                self.recording.record_keepalive("socket", now_s)
                effects = []
            case protocol.StreamFormat() | protocol.Unknown() | protocol.Invalid():
                effects = self._reject(command)
        return [*effects, *self.advance(now_s)]

    def _speak(self, command: protocol.Speak | protocol.SpeakEnd, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        if command.pcm is not None:
            limit_s = self.settings.max_queued_s
            if limit_s and self.playback.backlog_s(now_s) + len(command.pcm) / BYTES_PER_SECOND > limit_s:
                self.recording.refused_packets += 1
                return [Send(self.events.error("invalid_request_error", "audio buffer is full", command.event_id))]
            effects, utterance = self._append(command.event_id, command.pcm, now_s)
            if isinstance(command, protocol.Speak):
                ack = self.events.appended(command.event_id, utterance.task_id)
                return [*effects, *_send(ack), *self._scheduled_drop()]
        self.playback.speak_end(now_s)
        return [*effects, *_send(self.events.committed(command.event_id))]

    def _scheduled_drop(self) -> list[Effect]:
        due = self.settings.drop_after_packets
        return [Close(self.settings.drop_code, "dropped")] if due and self.recording.packet_count == due else []

    def _append(self, event_id: str | None, pcm: bytes, now_s: float) -> tuple[list[Effect], Utterance]:
        appended = self.playback.append(len(pcm), event_id, now_s)
        recording = self.recording
        recording.record_audio(appended.utterance, event_id, pcm, now_s)
        if event_id is not None and event_id in self._cut_ids:
            recording.packets_after_interrupt += 1
            recording.bytes_after_interrupt += len(pcm)
        effects: list[Effect] = []
        if self._has_avatar:
            resumes_at_s = None if appended.underrun is None else appended.underrun.resumed_at_s
            effects.append(SpeechAudio(appended.utterance.number, pcm, resumes_at_s))
        if appended.underrun is not None:
            recording.underruns += 1
            recording.dry_s += appended.underrun.resumed_at_s - appended.underrun.dry_at_s
            if self.settings.strict:
                starved = "audio arrived slower than real time"
                effects.append(Send(self.events.error("video_starvation", starved, event_id)))
            if self.settings.idle_on_underrun:
                effects += self._set_pose(Pose.TALKING)
        return effects, appended.utterance

    def _interrupt(self, event_id: str | None, now_s: float) -> list[Effect]:
        effective_at_s = now_s + self.settings.interrupt_ack_ms / 1000
        for utterance in self.playback.interrupt(event_id, effective_at_s=effective_at_s, now_s=now_s):
            self._cut_ids.update(self.recording.utterances[utterance.number].event_ids)
        return []

    def _on_cut(self, cut: Cut) -> list[Effect]:
        recording = self.recording
        head = cut.head
        recording.record_interrupt(
            InterruptRecord(
                event_id=cut.event_id,
                received_at_s=recording.since_start_s(cut.received_at_s),
                effective_at_s=recording.since_start_s(cut.at_s),
                utterance=None if head is None else head.number,
                played_bytes=0 if head is None else head.played_bytes,
                dropped_utterances=len(cut.dropped),
            )
        )
        # The LiveKit plugin reports playback finished twice if the pose changes before these two events.
        effects = _send(self.events.cleared(cut.event_id))
        if head is not None:
            effects += self._avatar_event(SpeechCut(head.number + len(cut.dropped), cut.at_s))
            self._last_task_id = head.task_id
            effects += _send(self.events.speak_interrupted(head.source_event_id, head.task_id))
            if self.settings.late_speak_ended_ms:
                self._late_ends.append((cut.at_s + self.settings.late_speak_ended_ms / 1000, head))
            elif self.events.profile == "classic":
                # The classic profile has no pose events, so the LiveKit plugin needs this event to notice silence.
                effects += _send(self.events.speak_ended(head.source_event_id, head.task_id))
        return [*effects, *self._set_pose(Pose.IDLE)]

    def _set_listening(self, command: protocol.StartListening | protocol.StopListening) -> list[Effect]:
        starting = isinstance(command, protocol.StartListening)
        needed, new = (Pose.IDLE, Pose.LISTENING) if starting else (Pose.LISTENING, Pose.IDLE)
        if self.pose is needed:
            return self._set_pose(new)
        # Official clients send both commands in the wrong pose on every sentence, so the default is silence.
        if self.settings.warn_wrong_pose:
            message = f"{protocol.type_of(command)} ignored while {self.pose}"
            return [Send(self.events.warning("wrong_pose", message))]
        return []

    def _reject(self, command: protocol.StreamFormat | protocol.Unknown | protocol.Invalid) -> list[Effect]:
        match command:
            case protocol.StreamFormat():
                if not self.settings.strict:
                    return []
                problem = "unknown command 'start'"
            case protocol.Unknown():
                self.recording.unknown_messages += 1
                problem = f"unknown command {command.type!r}"
            case protocol.Invalid():
                self.recording.invalid_messages += 1
                problem = command.problem
        return [Send(self.events.error("invalid_request_error", problem, command.event_id))]

    # -- announcements
    # -----------------------------------------------------------------------------------------

    def _set_pose(self, new: Pose) -> list[Effect]:
        previous, self.pose = self.pose, new
        if previous is new:
            return []
        effects = [*self._avatar_event(PoseChanged(new)), *_send(self.events.pose(previous, new))]
        if self.settings.idle_events and Pose.IDLE in (previous, new):
            effects.append(Send(self.events.idle(self._last_task_id, started=new is Pose.IDLE)))
        return effects

    def _announce_connected(self) -> list[Effect]:
        if self.settings.never_connected:
            return []
        self._connected_announced = True
        return [Send(self.events.connected())]

    def _mute(self, now_s: float) -> list[Effect]:
        self._finish(Phase.MUTED, "MAX_DURATION_REACHED", now_s)
        cut = self._avatar_event(SpeechCut(len(self.recording.utterances) - 1, now_s))
        return [*cut, *self._avatar_event(PoseChanged(Pose.IDLE)), SessionEnded("MAX_DURATION_REACHED", now_s)]

    def _end(self, reason: str, now_s: float) -> list[Effect]:
        # Read before the freeze, which empties the queue.
        speak_end_missing = self.pose is Pose.TALKING and self.playback.awaits_speak_end
        self._finish(Phase.ENDED, reason, now_s)
        frames = self.events.session_ended(reason, announce=self.settings.session_stopped_event)
        ended = SessionEnded(reason, now_s, speak_end_missing)
        return [*(Send(frame) for frame in frames), Close(1000, reason), ended]

    def _finish(self, phase: Phase, reason: str, now_s: float) -> None:
        self.playback.freeze(now_s)
        self._phase.move(phase)
        self.pose = Pose.IDLE
        self.end_reason = reason

    def _avatar_event(self, event: AvatarEvent) -> list[Effect]:
        return [event] if self._has_avatar else []


def _send(frame: bytes | None) -> list[Effect]:
    return [] if frame is None else [Send(frame)]
