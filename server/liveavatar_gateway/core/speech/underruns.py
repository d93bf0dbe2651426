"""Sources that give too little: avatars that run dry inside an utterance, and utterances nobody goes on with."""

from liveavatar_gateway.core.errors import UtteranceIdle
from liveavatar_gateway.core.events import UtteranceUnderrun
from liveavatar_gateway.core.speech.interrupts import Interrupts
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance

_ROOM_S = 1.0
"""Credit below which a caller may have to wait for the next ack, so that its silence is not its own."""


class Underruns:
    """Watch over open utterances: notes dry spells of the one that is being heard, and seals those left idle.

    A sealed utterance is left alone, since nothing more is expected of it. A dry spell is noted once, and ends
    with the next packet.
    """

    def __init__(self, queue: UtteranceQueue, interrupts: Interrupts) -> None:
        self._queue = queue
        self._interrupts = interrupts

    @property
    def deadline_s(self) -> float | None:
        """Time of the next dry spell or idle limit, as things are now; None when neither can come."""
        due = [self._dry_at_s(), *(one.idle_at_s for one in self._queue.active)]
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self, now_s: float) -> None:
        """Note a dry spell that has begun, and seal utterances past their idle limit."""
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
        """Time at which the avatar has played all that it has of an open utterance.

        None while no socket is ready or an interrupt is on its way: then the silence is not the source's.
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
            # Its caller waits for credit, which an ack tells a while after there is some.
            utterance.idle_since_s = now_s + _ROOM_S
            return
        assert utterance.idle_timeout_s is not None  # noqa: S101 - else it has no time at which it is idle
        error = UtteranceIdle(utterance.id, utterance.idle_timeout_s)
        self._queue.totals.dropped_bytes += utterance.seal(error)
