"""Handover: the audio that the outgoing avatar is still sent during a rotation."""

from enum import Enum, unique

from liveavatar_gateway.core.messages import SpeakEnd
from liveavatar_gateway.core.speech.interrupts import Interrupts
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance


@unique
class SendGate(Enum):
    """Part of the speech that waits for the next avatar."""

    NOTHING = "nothing"
    NEXT = "next"
    """Utterances of which the outgoing avatar has no audio."""
    ALL = "all"
    """All audio that the outgoing avatar was not sent yet."""


class Handover:
    """Gate for speech to the outgoing avatar, and the time at which that avatar has played all its audio."""

    def __init__(self, queue: UtteranceQueue, interrupts: Interrupts, *, grace_s: float) -> None:
        self.gate = SendGate.NOTHING
        """Part of the speech that waits for the next avatar; set by the session."""
        self.utterance: Utterance | None = None
        """Utterance that continues on the next avatar: the outgoing avatar was sent an end after its part."""
        self.is_played = False
        """True when the outgoing avatar has played its part of `utterance`."""
        self._queue = queue
        self._interrupts = interrupts
        self._grace_s = grace_s

    def is_free(self, now_s: float) -> bool:
        """Return True when the next avatar can take over without cutting audio of the outgoing one."""
        queue = self._queue
        if self._interrupts.pending is not None and queue.enabled:
            return False
        if not any(one.is_upstream for one in queue.active):
            return True
        gets_no_more = self.gate is SendGate.ALL or not queue.enabled
        return gets_no_more and (self.is_played or now_s >= self._played_by_s)

    @property
    def at_s(self) -> float | None:
        """Time at which `is_free` may change by itself; None when only an event can change it."""
        return None if self.gate is SendGate.NEXT and self._queue.enabled else self._played_by_s

    @property
    def _played_by_s(self) -> float:
        return self._queue.clock.dry_at_s + self._grace_s

    def next_command(self) -> SpeakEnd | None:
        """Return the end for an utterance that continues on the next avatar; its part here is played then."""
        utterance = next((one for one in self._queue.active if one.is_upstream and not one.end_sent), None)
        if utterance is None or utterance is self.utterance:
            return None
        self.utterance, self.is_played = utterance, False
        return SpeakEnd(utterance.upstream_id)

    def forget(self) -> None:
        """Reset, since the socket is lost."""
        self.utterance, self.is_played = None, False
