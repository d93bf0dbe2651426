"""Underruns: avatars that run dry inside an open utterance, and utterances without further audio."""

from liveavatar_gateway.core.errors import UtteranceIdle
from liveavatar_gateway.core.events import UtteranceUnderrun
from liveavatar_gateway.core.speech.interrupts import Interrupts
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance

_ROOM_S = 1.0
"""Credit below which a caller may be waiting for the next ack, so that its silence is no idle time."""


class Underruns:
    """Watch over open utterances: reports underruns of the playing one, and seals those past their idle limit.

    A sealed utterance has no underrun, since no more audio is expected. An underrun is reported once, and ends
    with the next packet.
    """

    def __init__(self, queue: UtteranceQueue, interrupts: Interrupts) -> None:
        self._queue = queue
        self._interrupts = interrupts

    @property
    def deadline_s(self) -> float | None:
        """Time of the next underrun or idle limit if no input comes; None when neither can come."""
        due = [self._dry_at_s(), *(one.idle_at_s for one in self._queue.active)]
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self, now_s: float) -> None:
        """Report an underrun that has begun, and seal utterances past their idle limit."""
        dry_at_s = self._dry_at_s()
        if dry_at_s is not None and now_s >= dry_at_s:
            head = self._queue.active[0]
            head.underrun_count += 1
            head.dry_after_s = head.sent_s
            played_s = head.position_s(self._queue.clock, now_s)
            self._queue.reports.append(UtteranceUnderrun(head.id, played_s))
        for utterance in self._queue.active:
            idle_at_s = utterance.idle_at_s
            if idle_at_s is not None and now_s >= idle_at_s:
                self._end_idle(utterance, now_s)

    def _dry_at_s(self) -> float | None:
        """Return the time at which the avatar has played all sent audio of an open utterance.

        None while no socket is ready or an interrupt is pending: then the source does not cause the silence.
        """
        queue = self._queue
        head = queue.active[0] if queue.active else None
        if head is None or not queue.enabled or self._interrupts.pending is not None:
            return None
        if head.sealed or not head.started or head.delivery.again or head.sent_s <= head.dry_after_s:
            return None
        return queue.clock.dry_at_s

    def _end_idle(self, utterance: Utterance, now_s: float) -> None:
        if utterance.room_s < _ROOM_S:
            # The caller waits for credit, which the next ack grants a little later.
            utterance.idle_since_s = now_s + _ROOM_S
            return
        assert utterance.idle_timeout_s is not None  # noqa: S101 - `idle_at_s` is None without a limit
        error = UtteranceIdle(utterance.id, utterance.idle_timeout_s)
        self._queue.totals.dropped_bytes += utterance.seal(error)
