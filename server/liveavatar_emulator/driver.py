"""Runs one session on the event loop: one timer, at most one socket, and the effects of its pure core.

A session has no task of its own. Whatever happens, `_apply` carries out the effects and re-arms the single
timer.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
import structlog

from liveavatar_emulator import protocol
from liveavatar_emulator.clock import Clock, Timer
from liveavatar_emulator.config import Settings
from liveavatar_emulator.cues import Cue, Posed, Speech, SpeechCut, SpeechStarted
from liveavatar_emulator.eventlog import EventLog
from liveavatar_emulator.faults import shuffled
from liveavatar_emulator.lateness import Lateness
from liveavatar_emulator.outbox import OUTBOX_LIMIT, CloseFrame, Outbox, is_ack
from liveavatar_emulator.protocol import Command
from liveavatar_emulator.recording import SeenSocket
from liveavatar_emulator.session import Close, Effect, MinuteDue, Over, Phase, Send, Session

NOT_READ = f"the client did not read: {OUTBOX_LIMIT} events were waiting"

LEFT_OPEN_HINT = (
    "no agent.speak_end came for the last utterance, so the avatar stayed in the talking pose; for a client that "
    "sends none, start the emulator with --idle-on-underrun"
)

_log = structlog.stdlib.get_logger()


class Watcher(Protocol):
    """Told what a session goes through; kept in `LiveSession.watchers`."""

    def attached(self) -> None:
        """A socket was attached."""

    def heard(self) -> None:
        """A command was taken in."""


class Performer(Protocol):
    """A session's avatar in its room, told what happens. Neither method may block or raise."""

    def follow(self, cue: Cue) -> None:
        """Say, stop saying, or pose."""

    def leave(self) -> None:
        """Leave the room for good. Calling it again does nothing."""


class WireLike(Protocol):
    """What a fault may do to a connection."""

    def reset(self) -> None:
        """Reset the TCP connection."""

    def limit_reading(self, bytes_per_s: float | None, clock: Clock) -> None:
        """Limit the rate of reading; None lifts the limit."""


@dataclass(slots=True, eq=False)
class AckRule:
    """What becomes of a session's acks of some kinds; `left` counts down to when it no longer applies."""

    kinds: frozenset[str]
    swallow: bool = False
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    left: int | None = None


@dataclass(slots=True, eq=False)
class ActiveFaults:
    """Lasting faults of one session, each put there and taken away by whoever armed it."""

    ack_rules: list[AckRule] = field(default_factory=list)
    reading_limits: list[float] = field(default_factory=list)
    """Bytes per second; the lowest counts."""
    refusals: list[str] = field(default_factory=list)
    """How new sockets are refused, `forbidden` or `reset`; the latest counts."""
    overrides: list[dict[str, Any]] = field(default_factory=list)
    """Knobs with another value for this session; the latest counts."""


class LiveSession:
    """A session on the loop. Closed by its own end; `dispose` releases a session that is forgotten."""

    def __init__(
        self,
        core: Session,
        *,
        ordinal: int,
        clock: Clock,
        rng: random.Random,
        log: EventLog,
        lateness: Lateness,
        charge_minute: Callable[[], bool],
        on_over: Callable[[Over], None],
        performer: Performer | None = None,
    ) -> None:
        self.core = core
        self.ordinal = ordinal
        self.watchers: list[Watcher] = []
        self.afflictions = ActiveFaults()
        self._common_settings = core.settings
        self._clock = clock
        self._performer = performer
        self._rng = rng
        self._log = log
        self._lateness = lateness
        self._charge_minute = charge_minute
        self._on_over = on_over
        self._timer: Timer | None = None
        self._armed_for_s: float | None = None
        self._outbox: Outbox | None = None
        self._wire: WireLike | None = None
        self._disposed = False
        self._arm()

    # -- sockets
    # -----------------------------------------------------------------------------------------------

    @property
    def socket_open(self) -> bool:
        """Whether a client is attached."""
        return self._outbox is not None

    def outbox_for(self, wire: WireLike) -> Outbox:
        """An outbox for a new socket of this session."""
        return Outbox(self._clock, reset=wire.reset, on_release=self._note_event)

    def attach(self, outbox: Outbox, wire: WireLike | None = None) -> SeenSocket:
        """Bind a new socket; an older one is closed with 1000. The caller must `detach` it later."""
        now_s = self._clock.now_s()
        recording = self.core.recording
        if self._outbox is not None:
            self._outbox.put(CloseFrame(1000, "replaced by a newer connection"))
        self._outbox = outbox
        self._wire = wire
        seen = SeenSocket(opened_at_s=recording.since_start_s(now_s))
        recording.sockets.append(seen)
        self._log.note("socket.attached", session=self.ordinal, socket=len(recording.sockets))
        if self.afflictions.reading_limits:
            self.follow_reading_limits()
        self._apply(self.core.attach(now_s), now_s)
        for watcher in tuple(self.watchers):
            watcher.attached()
        return seen

    def detach(self, outbox: Outbox, seen: SeenSocket, code: int, reason: str) -> None:
        """Note that a socket is gone; one that was replaced changes nothing else."""
        outbox.discard()
        now_s = self._clock.now_s()
        seen.closed_at_s = self.core.recording.since_start_s(now_s)
        seen.close_code = code
        seen.close_reason = reason
        if outbox.overflowed:
            reason = seen.close_reason = NOT_READ
            _log.warning("socket.reset", session=self.ordinal, why=NOT_READ, hint="read every event, as they come")
        if outbox.was_reset or outbox.closed_by_server:
            seen.closed_by = "server"
        else:
            seen.closed_by = "lost" if code == 1006 else "client"
        number = next(n for n, socket in enumerate(self.core.recording.sockets, 1) if socket is seen)
        self._log.note(
            "socket.detached",
            session=self.ordinal,
            socket=number,
            code=code,
            by=seen.closed_by,
            why=NOT_READ if outbox.overflowed else None,
        )
        if self._outbox is outbox:
            self._outbox = None
            self._wire = None
            self._apply(self.core.detach(now_s), now_s)
            if self.core.phase is Phase.MUTED:
                self._leave_room()

    def inject(self, frame: bytes) -> bool:
        """Send a raw frame to the client; False when none is attached."""
        if self._outbox is None:
            return False
        self._outbox.put(frame, delay_s=self._jitter_s())
        return True

    def drop(self, code: int | None, reason: str) -> bool:
        """Close the socket with `code`, or reset TCP when that is None; False when there is no socket."""
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
        """One parsed frame that arrived at `now_s`."""
        self._note_lateness(now_s)
        recording = self.core.recording
        packets, bytes_before = recording.packet_count, recording.received_bytes
        waiting, late = recording.commands_before_ready, recording.commands_after_end
        effects = self.core.command(command, now_s)
        taken = recording.packet_count > packets
        fate = None
        if recording.commands_before_ready > waiting or recording.commands_after_end > late:
            fate = "dropped"
        self._log.note(
            "command",
            session=self.ordinal,
            type=protocol.type_of(command),
            event_id=command.event_id,
            size_bytes=recording.received_bytes - bytes_before if taken else None,
            utterance=len(recording.utterances) - 1 if taken else None,
            fate=fate,
        )
        self._apply(effects, now_s)
        for watcher in tuple(self.watchers):
            watcher.heard()

    def oversize(self, size_chars: int, now_s: float) -> None:
        """A frame beyond the limit arrived."""
        self._log.note("oversize", session=self.ordinal, size_chars=size_chars)
        self._apply(self.core.oversize(now_s), now_s)

    def keep_alive(self) -> None:
        """REST keep-alive."""
        now_s = self._clock.now_s()
        self._apply(self.core.keep_alive(now_s), now_s)

    def stop(self, reason: str) -> None:
        """End the session."""
        now_s = self._clock.now_s()
        self._apply(self.core.end(reason, now_s), now_s)

    def avatar_joined(self) -> None:
        """Its avatar is in the room."""
        now_s = self._clock.now_s()
        self._apply(self.core.avatar_joined(now_s), now_s)

    def refresh(self) -> None:
        """Bring it up to the present, so that what is read from it is true now."""
        now_s = self._clock.now_s()
        self._apply(self.core.advance(now_s), now_s)

    def configure(self, settings: Settings) -> None:
        """Follow changed settings, except where a fault has put its own in their place."""
        self._common_settings = settings
        self.follow_overrides()

    # -- lasting faults
    # ----------------------------------------------------------------------------------------

    def follow_overrides(self) -> None:
        """Use the knobs as `afflictions.overrides` has them now."""
        now_s = self._clock.now_s()
        settings = self._common_settings
        for override in self.afflictions.overrides:
            settings = settings.model_copy(update=override)
        self._apply(self.core.configure(settings, now_s), now_s)

    def follow_reading_limits(self) -> None:
        """Read the socket as `afflictions.reading_limits` has it now."""
        if self._wire is not None:
            limit = min(self.afflictions.reading_limits) if self.afflictions.reading_limits else None
            self._wire.limit_reading(limit, self._clock)

    def dispose(self) -> None:
        """Let go of it: no timer, no further effects, and its socket closed."""
        self._disposed = True
        self._disarm()
        self.watchers.clear()
        self._leave_room()
        if self._outbox is not None:
            self._outbox.put(CloseFrame(1001, "the emulator was reset"))

    # -- effects
    # -----------------------------------------------------------------------------------------------

    def _apply(self, effects: list[Effect], now_s: float) -> None:
        if self._disposed:
            return
        if self.core.settings.shuffle_events:
            effects = shuffled(effects, Send, self._rng)
        for effect in effects:
            self._carry_out(effect, now_s)
        self._arm()

    def _carry_out(self, effect: Effect, now_s: float) -> None:
        match effect:
            case Send(frame):
                self._send(frame)
            case Close(code, reason):
                self.drop(code, reason)
            case MinuteDue(at_s):
                if self.core.phase is not Phase.ENDED and not self._charge_minute():
                    self._apply(self.core.end("NO_CREDITS", max(at_s, now_s)), now_s)
            case Over():
                if effect.speech_left_open and not self.core.settings.idle_on_underrun:
                    _log.warning("session.speech_left_open", session=self.ordinal, hint=LEFT_OPEN_HINT)
                self._on_over(effect)
                # Mute at the limit looks like an avatar that has gone quiet, so that one stays to be seen.
                if self.core.phase is Phase.ENDED or not self.socket_open:
                    self._leave_room()
            case Speech() | SpeechStarted() | SpeechCut() | Posed():
                if self._performer is not None:
                    self._performer.follow(effect)

    def _leave_room(self) -> None:
        if self._performer is not None:
            self._performer.leave()

    def _send(self, frame: bytes) -> None:
        rule = self._ack_rule(frame) if self.afflictions.ack_rules else None
        if rule is None:
            self.inject(frame)
        elif rule.swallow:
            self._log.note("event.swallowed", session=self.ordinal, **_told(frame))
        elif self._outbox is not None:
            delay_ms = rule.delay_ms + self._rng.uniform(0, rule.jitter_ms)
            self._outbox.put(frame, ack_delay_s=delay_ms / 1000)

    def _ack_rule(self, frame: bytes) -> AckRule | None:
        if self._outbox is None or not is_ack(frame):
            return None
        kind = str(orjson.loads(frame)["type"]).rpartition("_")[2]
        for rule in self.afflictions.ack_rules:
            if kind in rule.kinds and rule.left != 0:
                if rule.left is not None:
                    rule.left -= 1
                return rule
        return None

    def _jitter_s(self) -> float:
        jitter_ms = self.core.settings.jitter_ms
        return self._rng.uniform(0, jitter_ms) / 1000 if jitter_ms else 0.0

    def _note_event(self, frame: bytes) -> None:
        self._log.note("event", session=self.ordinal, **_told(frame))

    # -- time
    # --------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        due_s = self.core.next_due_s()
        if due_s == self._armed_for_s:
            return
        self._disarm()
        if due_s is not None:
            self._armed_for_s = due_s
            self._timer = self._clock.call_at(due_s, self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_for_s = None

    def _fire(self) -> None:
        self._timer = None
        self._armed_for_s = None
        now_s = self._clock.now_s()
        self._note_lateness(now_s)
        self._apply(self.core.advance(now_s), now_s)

    def _note_lateness(self, now_s: float) -> None:
        due_s = self.core.next_due_s()
        if due_s is not None and due_s <= now_s:
            self._lateness.note(self._clock.real_s(now_s - due_s))


def _told(frame: bytes) -> dict[str, Any]:
    """What the log keeps of an event; of a frame that is no event, which a test may inject, its size."""
    try:
        event = orjson.loads(frame)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        return {"size_bytes": len(frame)}
    kept = ("type", "event_id", "source_event_id", "state", "new_state", "end_reason")
    return {"size_bytes": len(frame), **{name: event[name] for name in kept if name in event}}
