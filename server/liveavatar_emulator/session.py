"""One session's life: readiness, pose, timers, commands. Pure: time comes in, effects come out.

    WAITING ──ready_delay after the first socket──► READY ──► ENDED
                                                      └─► MUTED   (at the duration limit, in `mute` mode)

Inputs first bring the session up to their own time (`advance`), so effects always come in the order of time.

Source: LiveAvatar API reference: states, commands, interrupt, silent drops, timers, and what official clients
need.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from liveavatar_emulator import protocol
from liveavatar_emulator.config import Settings
from liveavatar_emulator.cues import Cue, Posed, Speech, SpeechCut, SpeechStarted
from liveavatar_emulator.playback import BYTES_PER_SECOND, Change, Cut, Ended, Playback, RanDry, Started, Utterance
from liveavatar_emulator.protocol import Command, Events, Pose
from liveavatar_emulator.recording import Recording, SeenInterrupt

BILLING_PERIOD_S = 60.0


class Phase(StrEnum):
    """Where a session is in its life."""

    WAITING = "waiting"
    READY = "ready"
    MUTED = "muted"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Send:
    """Write this text frame to the attached socket, if there is one."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the attached socket, if there is one."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class MinuteDue:
    """A further minute has begun: charge it, or end the session with NO_CREDITS."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Over:
    """The session has ended: free its slot and file its record."""

    reason: str
    at_s: float
    speech_left_open: bool = False
    """True when the avatar was still in the talking pose, with all audio played and no `speak_end`."""


Effect = Send | Close | MinuteDue | Over | Cue


class Session:
    """A started session. Invariant: at most one `Over` is ever returned, and nothing but `Close` after it.

    One that is `on_stage` has an avatar in a room: it is not ready before the avatar has joined, and returns
    cues for it.
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
        hosted: bool = False,
        on_stage: bool = False,
    ) -> None:
        """`hosted`: an agent of the service drives the avatar, so no socket is to come and none is missed."""
        self.settings = settings
        self.recording = recording
        self.events = Events(settings.profile, fresh_id)
        self.playback = Playback(
            speed=settings.speed,
            start_delay_s=settings.start_delay_ms / 1000,
            start_after_s=settings.start_after_ms / 1000,
        )
        self.phase = Phase.WAITING
        self.pose = Pose.IDLE
        self.attached = False
        self.end_reason: str | None = None
        self.started_s = now_s
        self.ready_s: float | None = None
        self.ended_s: float | None = None
        self._limit_due_s: float | None = now_s + limit_s
        self._billing_due_s: float | None = now_s + BILLING_PERIOD_S if billed else None
        self._ready_due_s: float | None = now_s + settings.ready_delay_ms / 1000 if hosted else None
        self._on_stage = on_stage
        self._avatar_awaited = on_stage
        self._active_s = now_s
        self._alone_since_s: float | None = None if hosted else now_s
        self._said_connected = False
        self._cut_ids: set[str] = set()
        self._late_ends: deque[tuple[float, Utterance]] = deque()
        self._last_task_id = ""

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
        """A socket was opened. The first one starts the readiness delay."""
        effects = self.advance(now_s)
        self.attached = True
        self._alone_since_s = None
        if self.phase is Phase.WAITING:
            if self._ready_due_s is None:
                self._ready_due_s = now_s + self.settings.ready_delay_ms / 1000
            effects.append(Send(self.events.attached()))
            effects += self.advance(now_s)
        elif self.phase is Phase.READY and (not self._said_connected or self.settings.reconnect_emits_connected):
            effects += self._say_connected()
        elif self.phase is Phase.ENDED:
            effects.append(Close(1000, self.end_reason or ""))
        return effects

    def detach(self, now_s: float) -> list[Effect]:
        """The socket is gone. Queued audio plays on; a closed socket ends nothing by itself."""
        effects = self.advance(now_s)
        self.attached = False
        if self.phase is not Phase.ENDED:
            self._alone_since_s = now_s
        return effects

    def command(self, command: Command, now_s: float) -> list[Effect]:
        """One parsed frame. Before readiness and after the end it vanishes, counted."""
        effects = self.advance(now_s)
        self.recording.saw_command(protocol.type_of(command), command.event_id, now_s)
        if self.phase is Phase.WAITING:
            self.recording.commands_before_ready += 1
            return effects
        if self.phase is not Phase.READY:
            self.recording.commands_after_end += 1
            return effects
        if not isinstance(command, protocol.Unknown | protocol.Invalid):
            self._active_s = now_s
        effects += self._obey(command, now_s)
        return effects

    def avatar_joined(self, now_s: float) -> list[Effect]:
        """The avatar is in its room; nothing stands in the way of readiness any more."""
        effects = self.advance(now_s)
        if self._avatar_awaited:
            self._avatar_awaited = False
            if self._ready_due_s is not None:
                self._ready_due_s = max(self._ready_due_s, now_s)
        return [*effects, *self.advance(now_s)]

    def oversize(self, now_s: float) -> list[Effect]:
        """A frame longer than the limit came."""
        effects = self.advance(now_s)
        self.recording.oversize_packets += 1
        if self.settings.oversize == "close":
            effects.append(Close(1009, "message too big"))
        return effects

    def keep_alive(self, now_s: float) -> list[Effect]:
        """REST keep-alive; shares its timer with the socket's."""
        effects = self.advance(now_s)
        self.recording.saw_keepalive("rest", now_s)
        self._active_s = now_s
        return effects

    def end(self, reason: str, now_s: float) -> list[Effect]:
        """End it now. Nothing happens when it has ended already."""
        effects = self.advance(now_s)
        if self.phase is not Phase.ENDED and self.end_reason is None:
            effects += self._end(reason, now_s)
        return effects

    # -- time
    # --------------------------------------------------------------------------------------------------

    def next_due_s(self) -> float | None:
        """When `advance` has something to do; None when only an input can change anything."""
        if self.phase is Phase.ENDED or self.phase is Phase.MUTED:
            return None
        due_s = self._active_s + self.settings.idle_s
        for other_s in (
            self.playback.next_due_s(),
            None if self._avatar_awaited else self._ready_due_s,
            self._limit_due_s,
            self._billing_due_s,
            self._late_ends[0][0] if self._late_ends else None,
        ):
            if other_s is not None and other_s < due_s:
                due_s = other_s
        if self._alone_since_s is not None:
            due_s = min(due_s, self._alone_since_s + self.settings.reap_s)
        return due_s

    def advance(self, now_s: float) -> list[Effect]:
        """Everything due by `now_s`, in the order of time."""
        effects: list[Effect] = []
        while (due_s := self.next_due_s()) is not None and due_s <= now_s:
            effects += self._fire(due_s)
        return effects

    def _fire(self, due_s: float) -> list[Effect]:
        if not self._avatar_awaited and self._ready_due_s is not None and self._ready_due_s <= due_s:
            self._ready_due_s = None
            self.phase = Phase.READY
            self.ready_s = due_s
            return self._say_connected() if self.attached else []
        if self._late_ends and self._late_ends[0][0] <= due_s:
            _, utterance = self._late_ends.popleft()
            return _send(self.events.speak_ended(utterance.source_event_id, utterance.task_id))
        change = self.playback.fire(due_s)
        return self._fire_timer(due_s) if change is None else self._tell(change)

    def _fire_timer(self, due_s: float) -> list[Effect]:
        # The limit goes before the bill: a session of exactly one minute costs one minute.
        if self._limit_due_s is not None and self._limit_due_s <= due_s:
            return self._reach_limit(due_s)
        if self._billing_due_s is not None and self._billing_due_s <= due_s:
            self._billing_due_s += BILLING_PERIOD_S
            return [MinuteDue(due_s)]
        if self._alone_since_s is not None and self._alone_since_s + self.settings.reap_s <= due_s:
            return self._end("ZOMBIE_SESSION_REAP", due_s)
        return self._end("IDLE_TIMEOUT", due_s)

    def _tell(self, change: Change) -> list[Effect]:
        match change:
            case Started(utterance):
                self._last_task_id = utterance.task_id
                turned = self._turn(Pose.TALKING)
                started = self.events.speak_started(utterance.source_event_id, utterance.task_id)
                return [*turned, *self._cue(SpeechStarted(utterance.number, change.at_s)), *_send(started)]
            case Ended(utterance):
                self._last_task_id = utterance.task_id
                ended = self.events.speak_ended(utterance.source_event_id, utterance.task_id)
                return [*_send(ended), *self._turn(Pose.IDLE)]
            case RanDry():
                return self._turn(Pose.IDLE) if self.settings.idle_on_underrun else []
            case Cut():
                return self._cut(change)

    # -- rules
    # -------------------------------------------------------------------------------------------------

    def _obey(self, command: Command, now_s: float) -> list[Effect]:
        match command:
            case protocol.Speak() | protocol.SpeakEnd():
                effects = self._hear(command, now_s)
            case protocol.Interrupt(event_id):
                effects = self._interrupt(event_id, now_s)
            case protocol.StartListening() | protocol.StopListening():
                effects = self._listen(command)
            case protocol.KeepAlive():
                self.recording.saw_keepalive("socket", now_s)
                effects = []
            case protocol.StreamFormat() | protocol.Unknown() | protocol.Invalid():
                effects = self._question(command)
        return [*effects, *self.advance(now_s)]

    def _hear(self, command: protocol.Speak | protocol.SpeakEnd, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        if command.pcm is not None:
            limit_s = self.settings.max_queued_s
            if limit_s and self.playback.backlog_s(now_s) + len(command.pcm) / BYTES_PER_SECOND > limit_s:
                self.recording.refused_packets += 1
                return [Send(self.events.error("invalid_request_error", "audio buffer is full", command.event_id))]
            effects, utterance = self._append(command.event_id, command.pcm, now_s)
            if isinstance(command, protocol.Speak):
                return [*effects, *_send(self.events.appended(command.event_id, utterance.task_id)), *self._drop()]
        self.playback.speak_end(now_s)
        return [*effects, *_send(self.events.committed(command.event_id))]

    def _drop(self) -> list[Effect]:
        due = self.settings.drop_after_packets
        return [Close(self.settings.drop_code, "dropped")] if due and self.recording.packet_count == due else []

    def _append(self, event_id: str | None, pcm: bytes, now_s: float) -> tuple[list[Effect], Utterance]:
        appended = self.playback.append(len(pcm), event_id, now_s)
        recording = self.recording
        recording.saw_audio(appended.utterance, event_id, pcm, now_s)
        if event_id is not None and event_id in self._cut_ids:
            recording.late_packets += 1
            recording.late_bytes += len(pcm)
        effects: list[Effect] = []
        if self._on_stage:
            resumes_at_s = None if appended.underrun is None else appended.underrun.resumed_at_s
            effects.append(Speech(appended.utterance.number, pcm, resumes_at_s))
        if appended.underrun is not None:
            recording.underruns += 1
            recording.dry_s += appended.underrun.resumed_at_s - appended.underrun.dry_at_s
            if self.settings.strict:
                starved = "audio arrived slower than real time"
                effects.append(Send(self.events.error("video_starvation", starved, event_id)))
            if self.settings.idle_on_underrun:
                effects += self._turn(Pose.TALKING)
        return effects, appended.utterance

    def _interrupt(self, event_id: str | None, now_s: float) -> list[Effect]:
        effective_at_s = now_s + self.settings.interrupt_ack_ms / 1000
        for utterance in self.playback.interrupt(event_id, effective_at_s=effective_at_s, now_s=now_s):
            self._cut_ids.update(self.recording.utterances[utterance.number].event_ids)
        return []

    def _cut(self, cut: Cut) -> list[Effect]:
        recording = self.recording
        head = cut.head
        recording.saw_interrupt(
            SeenInterrupt(
                event_id=cut.event_id,
                received_at_s=recording.since_start_s(cut.received_at_s),
                effective_at_s=recording.since_start_s(cut.at_s),
                utterance=None if head is None else head.number,
                played_bytes=0 if head is None else head.played_bytes,
                dropped_utterances=len(cut.dropped),
            )
        )
        # The LiveKit plugin reports playback finished twice when the pose changes before these two.
        effects = _send(self.events.cleared(cut.event_id))
        if head is not None:
            effects += self._cue(SpeechCut(head.number + len(cut.dropped), cut.at_s))
            self._last_task_id = head.task_id
            effects += _send(self.events.speak_interrupted(head.source_event_id, head.task_id))
            if self.settings.late_speak_ended_ms:
                self._late_ends.append((cut.at_s + self.settings.late_speak_ended_ms / 1000, head))
            elif self.events.profile == "classic":
                # Without a pose, nothing else tells the LiveKit plugin that the avatar has fallen silent.
                effects += _send(self.events.speak_ended(head.source_event_id, head.task_id))
        return [*effects, *self._turn(Pose.IDLE)]

    def _listen(self, command: protocol.StartListening | protocol.StopListening) -> list[Effect]:
        starting = isinstance(command, protocol.StartListening)
        needed, new = (Pose.IDLE, Pose.LISTENING) if starting else (Pose.LISTENING, Pose.IDLE)
        if self.pose is needed:
            return self._turn(new)
        # Official clients send both in the wrong pose on every sentence, so the default is silence.
        if self.settings.warn_wrong_pose:
            message = f"{protocol.type_of(command)} ignored while {self.pose}"
            return [Send(self.events.warning("wrong_pose", message))]
        return []

    def _question(self, command: protocol.StreamFormat | protocol.Unknown | protocol.Invalid) -> list[Effect]:
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

    def _turn(self, new: Pose) -> list[Effect]:
        previous, self.pose = self.pose, new
        if previous is new:
            return []
        effects = [*self._cue(Posed(new)), *_send(self.events.pose(previous, new))]
        if self.settings.idle_events and Pose.IDLE in (previous, new):
            effects.append(Send(self.events.idle(self._last_task_id, started=new is Pose.IDLE)))
        return effects

    def _say_connected(self) -> list[Effect]:
        if self.settings.never_connected:
            return []
        self._said_connected = True
        return [Send(self.events.connected())]

    def _reach_limit(self, now_s: float) -> list[Effect]:
        self._limit_due_s = None
        if self.settings.max_duration_mode == "close":
            return self._end("MAX_DURATION_REACHED", now_s)
        self.playback.freeze(now_s)
        self.phase = Phase.MUTED
        self.pose = Pose.IDLE
        self.ended_s = now_s
        self.end_reason = "MAX_DURATION_REACHED"
        hush = self._cue(SpeechCut(len(self.recording.utterances) - 1, now_s))
        return [*hush, *self._cue(Posed(Pose.IDLE)), Over(self.end_reason, now_s)]

    def _end(self, reason: str, now_s: float) -> list[Effect]:
        # Read before the freeze, which empties the queue.
        left_open = self.pose is Pose.TALKING and self.playback.left_open
        self.playback.freeze(now_s)
        self.phase = Phase.ENDED
        self.pose = Pose.IDLE
        self.ended_s = now_s
        self.end_reason = reason
        farewell = self.events.over(reason, announce=self.settings.session_stopped_event)
        return [*(Send(frame) for frame in farewell), Close(1000, reason), Over(reason, now_s, left_open)]

    def _cue(self, cue: Cue) -> list[Effect]:
        return [cue] if self._on_stage else []


def _send(frame: bytes | None) -> list[Effect]:
    return [] if frame is None else [Send(frame)]
