"""Driver of one session on the event loop: one timer, at most one socket, and the effects of its `Session`.

A session has no task of its own. After each input `_apply` executes the effects and sets the single timer anew.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
import structlog

from liveavatar_emulator import protocol
from liveavatar_emulator.avatar_events import AvatarEvent, PoseChanged, SpeechAudio, SpeechCut, SpeechStarted
from liveavatar_emulator.clock import Clock, Timer
from liveavatar_emulator.config import Settings
from liveavatar_emulator.effects import ChargeMinute, Close, Effect, Send, SessionEnded
from liveavatar_emulator.eventlog import EventLog
from liveavatar_emulator.faults import shuffled
from liveavatar_emulator.hosted_agent import HostedAgent, Reaction, answer
from liveavatar_emulator.outbox import OUTBOX_LIMIT, CloseFrame, Outbox, is_ack
from liveavatar_emulator.protocol import Command
from liveavatar_emulator.recording import SocketRecord
from liveavatar_emulator.session import Session
from liveavatar_emulator.states import OutboxState, Phase
from liveavatar_emulator.timer_lag import TimerLag

NOT_READ = f"the client did not read: {OUTBOX_LIMIT} events were waiting"

SPEAK_END_HINT = (
    "no agent.speak_end came for the last utterance, so the avatar stayed in the talking pose; for a client that "
    "sends none, start the emulator with --idle-on-underrun"
)

_LOGGED_FIELDS = ("type", "event_id", "source_event_id", "state", "new_state", "end_reason")

_log = structlog.stdlib.get_logger()


class SessionObserver(Protocol):
    """Observer of a session's sockets and commands."""

    def on_attach(self) -> None:
        """React to a new socket."""

    def on_command(self) -> None:
        """React to a command that the session has taken."""


class Avatar(Protocol):
    """A session's avatar in its room. No method blocks or raises."""

    def handle(self, event: AvatarEvent) -> None:
        """Render an event of the session."""

    def leave(self) -> None:
        """Leave the room for good; a second call does nothing."""

    def row(self) -> dict[str, Any]:
        """Return the avatar's state and counters as JSON."""


class Connection(Protocol):
    """Operations of a fault on a TCP connection."""

    def reset(self) -> None:
        """Reset the TCP connection."""

    def limit_reading(self, bytes_per_s: float | None, clock: Clock) -> None:
        """Limit the rate of reading; None lifts the limit."""


@dataclass(slots=True, eq=False)
class AckRule:
    """Delay or loss of a session's acks of some kinds; `left` is the number of acks it still applies to."""

    kinds: frozenset[str]
    swallow: bool = False
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    left: int | None = None


@dataclass(slots=True, eq=False)
class ActiveFaults:
    """Lasting faults of one session, each added and removed by the fault injector."""

    ack_rules: list[AckRule] = field(default_factory=list)
    reading_limits: list[float] = field(default_factory=list)
    """Bytes per second; the lowest applies."""
    refusals: list[str] = field(default_factory=list)
    """Refusal of new sockets, `forbidden` or `reset`; the latest applies."""
    overrides: list[dict[str, Any]] = field(default_factory=list)
    """Knobs with another value for this session; the latest applies."""


class SessionDriver:
    """Driver of a session. Closed by the session's end; `dispose` releases a session that is forgotten."""

    def __init__(
        self,
        session: Session,
        *,
        ordinal: int,
        clock: Clock,
        rng: random.Random,
        log: EventLog,
        timer_lag: TimerLag,
        charge_minute: Callable[[], bool],
        on_ended: Callable[[SessionEnded], None],
        avatar: Avatar | None = None,
        agent: HostedAgent | None = None,
    ) -> None:
        self.session = session
        self.ordinal = ordinal
        self.active_faults = ActiveFaults()
        self._observers: list[SessionObserver] = []
        self._common_settings = session.settings
        self._clock = clock
        self._avatar = avatar
        self._agent = agent
        self._rng = rng
        self._log = log
        self._timer_lag = timer_lag
        self._charge_minute = charge_minute
        self._on_ended = on_ended
        self._timer: Timer | None = None
        self._timer_due_s: float | None = None
        self._outbox: Outbox | None = None
        self._connection: Connection | None = None
        self._disposed = False
        self._set_timer()

    def add_observer(self, observer: SessionObserver) -> None:
        """Report sockets and commands to `observer` from now on."""
        self._observers.append(observer)

    def remove_observer(self, observer: SessionObserver) -> None:
        """Stop reporting to `observer`; does nothing for an unknown observer."""
        if observer in self._observers:
            self._observers.remove(observer)

    # -- sockets
    # -----------------------------------------------------------------------------------------------

    @property
    def socket_open(self) -> bool:
        """True while a client is attached."""
        return self._outbox is not None

    def outbox_for(self, connection: Connection) -> Outbox:
        """Return an outbox for a new socket of this session."""
        return Outbox(self._clock, reset=connection.reset, on_release=self._log_event)

    def attach(self, outbox: Outbox, connection: Connection | None = None) -> SocketRecord:
        """Attach a new socket and close an older one with 1000. The caller must call `detach` later."""
        now_s = self._clock.now_s()
        recording = self.session.recording
        if self._outbox is not None:
            self._outbox.put(CloseFrame(1000, "replaced by a newer connection"))
        self._outbox = outbox
        self._connection = connection
        record = SocketRecord(opened_at_s=recording.since_start_s(now_s))
        recording.sockets.append(record)
        self._log.append("socket.attached", session=self.ordinal, socket=len(recording.sockets))
        if self.active_faults.reading_limits:
            self.apply_reading_limits()
        self._apply(self.session.attach(now_s), now_s)
        for observer in tuple(self._observers):
            observer.on_attach()
        return record

    def detach(self, outbox: Outbox, record: SocketRecord, code: int, reason: str) -> None:
        """Complete a closed socket's record, and detach the socket unless a newer socket has replaced it."""
        outbox.discard()
        now_s = self._clock.now_s()
        record.closed_at_s = self.session.recording.since_start_s(now_s)
        record.close_code = code
        record.close_reason = reason
        overflowed = outbox.state is OutboxState.OVERFLOWED
        if overflowed:
            record.close_reason = NOT_READ
            _log.warning("socket.reset", session=self.ordinal, why=NOT_READ, hint="read each event as it arrives")
        if outbox.state is not OutboxState.OPEN:
            record.closed_by = "server"
        else:
            record.closed_by = "lost" if code == 1006 else "client"
        number = next(n for n, socket in enumerate(self.session.recording.sockets, 1) if socket is record)
        self._log.append(
            "socket.detached",
            session=self.ordinal,
            socket=number,
            code=code,
            by=record.closed_by,
            why=NOT_READ if overflowed else None,
        )
        if self._outbox is outbox:
            self._outbox = None
            self._connection = None
            self._apply(self.session.detach(now_s), now_s)
            if self.session.phase is Phase.MUTED:
                self._leave_room()

    def inject(self, frame: bytes) -> bool:
        """Send a raw frame to the client; False if no client is attached."""
        if self._outbox is None:
            return False
        self._outbox.put(frame, delay_s=self._jitter_s())
        return True

    def drop(self, code: int | None, reason: str) -> bool:
        """Close the socket with `code`, or reset TCP if `code` is None; False if no client is attached."""
        if self._outbox is None:
            return False
        if code is None:
            self._outbox.reset()
        else:
            self._outbox.put(CloseFrame(code, reason), delay_s=self._jitter_s())
        return True

    # -- inputs
    # ------------------------------------------------------------------------------------------------

    def command(self, command: Command, now_s: float) -> None:
        """Execute one parsed frame that arrived at `now_s`."""
        self._record_timer_lag(now_s)
        recording = self.session.recording
        packets, bytes_before = recording.packet_count, recording.received_bytes
        dropped = recording.commands_before_ready + recording.commands_after_end
        effects = self.session.command(command, now_s)
        accepted = recording.packet_count > packets
        self._log.append(
            "command",
            session=self.ordinal,
            type=protocol.type_of(command),
            event_id=command.event_id,
            size_bytes=recording.received_bytes - bytes_before if accepted else None,
            utterance=len(recording.utterances) - 1 if accepted else None,
            fate="dropped" if recording.commands_before_ready + recording.commands_after_end > dropped else None,
        )
        self._apply(effects, now_s)
        for observer in tuple(self._observers):
            observer.on_command()

    def oversize(self, size_chars: int, now_s: float) -> None:
        """Reject a frame beyond the limit."""
        self._log.append("oversize", session=self.ordinal, size_chars=size_chars)
        self._apply(self.session.oversize(now_s), now_s)

    def keep_alive(self) -> None:
        """Restart the idle timer after a REST keep-alive."""
        now_s = self._clock.now_s()
        self._apply(self.session.keep_alive(now_s), now_s)

    def stop(self, reason: str) -> None:
        """End the session."""
        now_s = self._clock.now_s()
        self._apply(self.session.end(reason, now_s), now_s)

    def avatar_joined(self) -> None:
        """Stop waiting for the avatar, which is in its room."""
        now_s = self._clock.now_s()
        self._apply(self.session.avatar_joined(now_s), now_s)

    def hear(self, user: str, pcm: bytes) -> None:
        """Let the hosted agent hear a user of the room; empty audio means that no more comes."""
        if self._agent is None:
            return
        match self._agent.hear(user, pcm) if pcm else self._agent.gone(user):
            case Reaction.HUSH:
                now_s = self._clock.now_s()
                self._apply(self.session.hush(now_s), now_s)
            case Reaction.ANSWER:
                now_s = self._clock.now_s()
                self._log.append("agent.answered", session=self.ordinal, turn=self._agent.turn_count)
                self._apply(self.session.say(answer(), now_s), now_s)

    def refresh(self) -> None:
        """Advance the session to the present time."""
        now_s = self._clock.now_s()
        self._apply(self.session.advance(now_s), now_s)

    def configure(self, settings: Settings) -> None:
        """Follow changed settings, except those that a fault overrides."""
        self._common_settings = settings
        self.apply_overrides()

    # -- lasting faults
    # ----------------------------------------------------------------------------------------

    def apply_overrides(self) -> None:
        """Use the knobs of `active_faults.overrides` in place of the common ones."""
        now_s = self._clock.now_s()
        settings = self._common_settings
        for override in self.active_faults.overrides:
            settings = settings.model_copy(update=override)
        self._apply(self.session.configure(settings, now_s), now_s)

    def apply_reading_limits(self) -> None:
        """Read the socket at the rate of `active_faults.reading_limits`."""
        if self._connection is not None:
            self._connection.limit_reading(min(self.active_faults.reading_limits, default=None), self._clock)

    def dispose(self) -> None:
        """Release the session: cancel its timer, execute no further effects, close its socket."""
        self._disposed = True
        self._cancel_timer()
        self._observers.clear()
        self._leave_room()
        if self._outbox is not None:
            self._outbox.put(CloseFrame(1001, "the emulator was reset"))

    # -- effects
    # -----------------------------------------------------------------------------------------------

    def _apply(self, effects: list[Effect], now_s: float) -> None:
        if self._disposed:
            return
        if self.session.settings.shuffle_events:
            effects = shuffled(effects, Send, self._rng)
        for effect in effects:
            self._execute(effect, now_s)
        self._set_timer()

    def _execute(self, effect: Effect, now_s: float) -> None:
        match effect:
            case Send(frame):
                self._send(frame)
            case Close(code, reason):
                self.drop(code, reason)
            case ChargeMinute(at_s):
                if self.session.phase is not Phase.ENDED and not self._charge_minute():
                    self._apply(self.session.end("NO_CREDITS", max(at_s, now_s)), now_s)
            case SessionEnded():
                if effect.speak_end_missing and not self.session.settings.idle_on_underrun:
                    _log.warning("session.speak_end_missing", session=self.ordinal, hint=SPEAK_END_HINT)
                self._on_ended(effect)
                # A muted session looks like a silent avatar, so its avatar stays as long as its socket.
                if self.session.phase is Phase.ENDED or not self.socket_open:
                    self._leave_room()
            case SpeechAudio() | SpeechStarted() | SpeechCut() | PoseChanged():
                if self._avatar is not None:
                    self._avatar.handle(effect)

    def _leave_room(self) -> None:
        if self._avatar is not None:
            self._avatar.leave()

    def _send(self, frame: bytes) -> None:
        rule = self._ack_rule(frame) if self.active_faults.ack_rules else None
        if rule is None:
            self.inject(frame)
        elif rule.swallow:
            self._log.append("event.swallowed", session=self.ordinal, **_log_fields(frame))
        elif self._outbox is not None:
            delay_ms = rule.delay_ms + self._rng.uniform(0, rule.jitter_ms)
            self._outbox.put(frame, ack_delay_s=delay_ms / 1000)

    def _ack_rule(self, frame: bytes) -> AckRule | None:
        if self._outbox is None or not is_ack(frame):
            return None
        kind = str(orjson.loads(frame)["type"]).rpartition("_")[2]
        for rule in self.active_faults.ack_rules:
            if kind in rule.kinds and rule.left != 0:
                if rule.left is not None:
                    rule.left -= 1
                return rule
        return None

    def _jitter_s(self) -> float:
        jitter_ms = self.session.settings.jitter_ms
        return self._rng.uniform(0, jitter_ms) / 1000 if jitter_ms else 0.0

    def _log_event(self, frame: bytes) -> None:
        self._log.append("event", session=self.ordinal, **_log_fields(frame))

    # -- time
    # --------------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        due_s = self.session.next_due_s()
        if due_s == self._timer_due_s:
            return
        self._cancel_timer()
        if due_s is not None:
            self._timer_due_s = due_s
            self._timer = self._clock.call_at(due_s, self._fire)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_due_s = None

    def _fire(self) -> None:
        self._timer = None
        self._timer_due_s = None
        now_s = self._clock.now_s()
        self._record_timer_lag(now_s)
        self._apply(self.session.advance(now_s), now_s)

    def _record_timer_lag(self, now_s: float) -> None:
        due_s = self.session.next_due_s()
        if due_s is not None and due_s <= now_s:
            self._timer_lag.record(self._clock.real_s(now_s - due_s))


def _log_fields(frame: bytes) -> dict[str, Any]:
    """Return the logged fields of an event, or only the size of an injected frame that is no event."""
    try:
        event = orjson.loads(frame)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        return {"size_bytes": len(frame)}
    return {"size_bytes": len(frame), **{name: event[name] for name in _LOGGED_FIELDS if name in event}}
