"""Ends of sessions that nobody uses: idle ones, and those whose avatar nobody sees. Each end is announced."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from liveavatar_gateway.core.events import Expiring, ExpiryCancelled
from liveavatar_gateway.core.states import EndReason

LEAST_VIEWER_ABSENCE_S: Final = 5.0
"""Shortest limit without viewers: they are looked for every few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonmentConfig:
    """Limits of one session. Seconds."""

    idle_s: float | None = None
    """Time without speech, commands and new streams after which the session ends; None for no such limit."""
    viewer_absence_s: float | None = None
    """Time without a viewer after which the session ends; None for no such limit."""


KEPT_FOREVER: Final = AbandonmentConfig()
"""No limit."""


class SpokenAudio(Protocol):
    """Speech of a session, as far as it shows that the session is used."""

    @property
    def received_bytes(self) -> int:
        """Audio received from the caller since the session began."""

    @property
    def is_pending(self) -> bool:
        """True while audio waits to be sent, or an utterance waits for its end."""

    @property
    def dry_at_s(self) -> float:
        """Monotonic time at which all audio that was sent is played."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Events to emit, and then the reason to end the session, if any."""

    events: tuple[Expiring | ExpiryCancelled, ...] = ()
    end: EndReason | None = None


_NOTHING: Final = Verdict()


class Countdown:
    """Time until an end, with a notice before it. Activity cancels the countdown.

    Invariant: at least the time of the notice lies between the notice and the end, also after a standstill of the
    process, so that a caller always has the chance to prevent the end.
    """

    def __init__(self, length_s: float, *, notice_s: float) -> None:
        self._length_s = length_s
        # A short countdown still begins with some time without a notice.
        self._notice_s = min(notice_s, length_s / 2)
        self._since_s: float | None = None
        self._end_s: float | None = None
        """Announced time of the end; None before the notice."""

    @property
    def next_s(self) -> float | None:
        """Time of the notice, or after it of the end; None while the countdown does not run."""
        if self._end_s is not None or self._since_s is None:
            return self._end_s
        return self._since_s + self._length_s - self._notice_s

    @property
    def is_announced(self) -> bool:
        """True from the notice on."""
        return self._end_s is not None

    def start(self, since_s: float) -> None:
        """Count from a time on, unless the countdown runs from a later time."""
        self._since_s = since_s if self._since_s is None else max(self._since_s, since_s)

    def cancel(self) -> bool:
        """Stop counting; return True when the end was announced."""
        was_announced = self.is_announced
        self._since_s = self._end_s = None
        return was_announced

    def notice_s(self, now_s: float) -> float | None:
        """Return the remaining seconds once, when the notice is due; None otherwise."""
        if self._since_s is None or self._end_s is not None:
            return None
        end_s = self._since_s + self._length_s
        if now_s < end_s - self._notice_s:
            return None
        self._end_s = max(end_s, now_s + self._notice_s)
        return self._end_s - now_s

    def is_over(self, now_s: float) -> bool:
        """Return True when the announced end is reached."""
        return self._end_s is not None and now_s >= self._end_s


class Abandonment:
    """Both countdowns of one session. Pure: time is an argument.

    The idle countdown runs by the clock. The countdown of absent viewers moves only with an observation of the
    room, so that a server that cannot be asked ends no session.
    """

    def __init__(self, config: AbandonmentConfig, *, notice_s: float, utc_now: Callable[[], datetime]) -> None:
        idle_s, absence_s = config.idle_s, config.viewer_absence_s
        self._idle = None if idle_s is None else Countdown(idle_s, notice_s=notice_s)
        self._absence = None if absence_s is None else Countdown(absence_s, notice_s=notice_s)
        self._utc_now = utc_now
        self._was_active = False
        self._received_bytes = 0

    @property
    def next_s(self) -> float | None:
        """Time at which `tick` is due; None without an idle limit."""
        return None if self._idle is None else self._idle.next_s

    @property
    def is_absence_announced(self) -> bool:
        """True while an end for absent viewers is announced."""
        return self._absence is not None and self._absence.is_announced

    def note_activity(self) -> None:
        """Record a command or a new stream of the caller; counts from the next `tick`."""
        self._was_active = True

    def tick(self, speech: SpokenAudio, now_s: float) -> Verdict:
        """Advance the idle countdown.

        Args:
            speech: Speech of the session.
            now_s: Monotonic time.
        """
        if self._idle is None:
            return _NOTHING
        dry_s = min(now_s, speech.dry_at_s)
        is_active = self._was_active or speech.is_pending or dry_s == now_s
        if is_active or speech.received_bytes != self._received_bytes:
            self._was_active, self._received_bytes = False, speech.received_bytes
            cancelled = self._cancel(self._idle, EndReason.IDLE)
            self._idle.start(now_s)
            return cancelled
        self._idle.start(dry_s if self._idle.next_s is not None else now_s)
        return self._advance(self._idle, EndReason.IDLE, now_s)

    def note_viewers(self, present: bool | None, now_s: float) -> Verdict:  # noqa: FBT001 - three values
        """Advance the countdown of absent viewers by an observation.

        Args:
            present: False when nobody can see the avatar; None when that could not be found out for a while.
            now_s: Monotonic time.
        """
        if self._absence is None:
            return _NOTHING
        if present is not False:
            return self._cancel(self._absence, EndReason.NO_VIEWERS)
        if self._absence.next_s is None:
            self._absence.start(now_s)
        return self._advance(self._absence, EndReason.NO_VIEWERS, now_s)

    def _cancel(self, countdown: Countdown, reason: EndReason) -> Verdict:
        return Verdict(events=(ExpiryCancelled(reason),)) if countdown.cancel() else _NOTHING

    def _advance(self, countdown: Countdown, reason: EndReason, now_s: float) -> Verdict:
        left_s = countdown.notice_s(now_s)
        events = () if left_s is None else (Expiring(self._utc_now() + timedelta(seconds=left_s), reason),)
        return Verdict(events=events, end=reason if countdown.is_over(now_s) else None)
