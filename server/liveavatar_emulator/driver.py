"""Runs one session on the event loop: one timer, at most one socket, and the effects of its pure core.

A session has no task of its own. Whatever happens, `_apply` carries out the effects and re-arms the single
timer.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from liveavatar_emulator.clock import Clock, Timer
from liveavatar_emulator.config import Settings
from liveavatar_emulator.cues import Cue, Posed, Speech, SpeechCut, SpeechStarted
from liveavatar_emulator.faults import shuffled
from liveavatar_emulator.protocol import Command
from liveavatar_emulator.recording import SeenSocket
from liveavatar_emulator.session import Close, Effect, MinuteDue, Over, Phase, Send, Session

OUTBOX_LIMIT = 10_000
"""Events waiting for a client that does not read; one more and its connection is aborted."""


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """Last item of an outbox."""

    code: int
    reason: str


class Performer(Protocol):
    """A session's avatar in its room, told what happens. Neither method may block or raise."""

    def follow(self, cue: Cue) -> None:
        """Say, stop saying, or pose."""

    def leave(self) -> None:
        """Leave the room for good. Calling it again does nothing."""


class Outbox:
    """What waits to be written to one socket. One writer takes from it; putting never blocks."""

    def __init__(self, abort: Callable[[], None]) -> None:
        self._items: deque[bytes | CloseFrame] = deque()
        self._filled = asyncio.Event()
        self._abort = abort
        self._closing = False
        self.closed_by_server = False
        self.aborted = False

    def put(self, item: bytes | CloseFrame) -> None:
        """Queue an event or the close frame; after a close frame nothing more is taken."""
        if self._closing:
            return
        if isinstance(item, CloseFrame):
            self._closing = self.closed_by_server = True
        elif len(self._items) >= OUTBOX_LIMIT:
            self.abort()
            return
        self._items.append(item)
        self._filled.set()

    def abort(self) -> None:
        """Reset the TCP connection without a close frame."""
        self._closing = self.aborted = True
        self._abort()

    async def take(self) -> bytes | CloseFrame:
        """The next item; waits for one."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        return self._items.popleft()


class Lateness:
    """How late the emulator noticed things that were due, in real milliseconds whatever its clock does."""

    BOUNDS_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS_MS) + 1)
        self.max_ms = 0.0

    def note(self, late_s: float) -> None:
        """Count one due moment that was noticed `late_s` after it."""
        late_ms = late_s * 1000
        self.max_ms = max(self.max_ms, late_ms)
        for index, bound_ms in enumerate(self.BOUNDS_MS):
            if late_ms <= bound_ms:
                self.counts[index] += 1
                return
        self.counts[-1] += 1

    def percentile_ms(self, share: float) -> float:
        """Upper bound of the bucket that holds this share of the moments; 0 when there were none."""
        total = sum(self.counts)
        if total == 0:
            return 0.0
        seen = 0
        for bound_ms, count in zip(self.BOUNDS_MS, self.counts, strict=False):
            seen += count
            if seen >= share * total:
                return bound_ms
        return round(self.max_ms, 3)

    def row(self) -> dict[str, float | int]:
        """As JSON."""
        return {
            "count": sum(self.counts),
            "p50_ms": self.percentile_ms(0.5),
            "p99_ms": self.percentile_ms(0.99),
            "max_ms": round(self.max_ms, 3),
        }


class LiveSession:
    """A session on the loop. Closed by its own end; `dispose` releases a session that is forgotten."""

    def __init__(
        self,
        core: Session,
        *,
        clock: Clock,
        lateness: Lateness,
        charge_minute: Callable[[], bool],
        on_over: Callable[[Over], None],
        performer: Performer | None = None,
    ) -> None:
        self.core = core
        self._clock = clock
        self._performer = performer
        self._lateness = lateness
        self._charge_minute = charge_minute
        self._on_over = on_over
        self._timer: Timer | None = None
        self._armed_for_s: float | None = None
        self._outbox: Outbox | None = None
        self._disposed = False
        self._rng = random.Random()  # noqa: S311 - disorder for tests, not a secret
        self._arm()

    @property
    def socket_open(self) -> bool:
        """Whether a client is attached."""
        return self._outbox is not None

    def attach(self, outbox: Outbox) -> SeenSocket:
        """Bind a new socket; an older one is closed with 1000. The caller must `detach` it later."""
        now_s = self._clock.now_s()
        recording = self.core.recording
        if self._outbox is not None:
            self._outbox.put(CloseFrame(1000, "replaced by a newer connection"))
        self._outbox = outbox
        seen = SeenSocket(opened_at_s=recording.since_start_s(now_s))
        recording.sockets.append(seen)
        self._apply(self.core.attach(now_s), now_s)
        return seen

    def detach(self, outbox: Outbox, seen: SeenSocket, code: int, reason: str) -> None:
        """Note that a socket is gone; one that was replaced changes nothing else."""
        now_s = self._clock.now_s()
        seen.closed_at_s = self.core.recording.since_start_s(now_s)
        seen.close_code = code
        seen.close_reason = reason
        if outbox.aborted or outbox.closed_by_server:
            seen.closed_by = "server"
        else:
            seen.closed_by = "lost" if code == 1006 else "client"
        if self._outbox is outbox:
            self._outbox = None
            self._apply(self.core.detach(now_s), now_s)
            if self.core.phase is Phase.MUTED:
                self._leave_room()

    def command(self, command: Command, now_s: float) -> None:
        """One parsed frame that arrived at `now_s`."""
        self._note_lateness(now_s)
        self._apply(self.core.command(command, now_s), now_s)

    def oversize(self, now_s: float) -> None:
        """A frame beyond the limit arrived."""
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
        """Follow changed settings."""
        now_s = self._clock.now_s()
        self._apply(self.core.configure(settings, now_s), now_s)

    def inject(self, frame: bytes) -> bool:
        """Send a raw frame to the client; False when none is attached."""
        if self._outbox is None:
            return False
        self._outbox.put(frame)
        return True

    def drop(self, code: int | None, reason: str) -> bool:
        """Close the socket with `code`, or abort TCP when that is None; False when there is no socket."""
        if self._outbox is None:
            return False
        if code is None:
            self._outbox.abort()
        else:
            self._outbox.put(CloseFrame(code, reason))
        return True

    def dispose(self) -> None:
        """Let go of it: no timer, no further effects, and its socket closed."""
        self._disposed = True
        self._disarm()
        self._leave_room()
        self.drop(1001, "the emulator was reset")

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
                self.inject(frame)
            case Close(code, reason):
                self.drop(code, reason)
            case MinuteDue(at_s):
                if self.core.phase is not Phase.ENDED and not self._charge_minute():
                    self._apply(self.core.end("NO_CREDITS", max(at_s, now_s)), now_s)
            case Over():
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
