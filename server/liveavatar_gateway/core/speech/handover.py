"""The last words of an avatar that another one follows."""

from enum import Enum, unique

from liveavatar_gateway.core.messages import SpeakEnd
from liveavatar_gateway.core.speech.interrupts import Interrupts
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance


@unique
class SendGate(Enum):
    """How much of what is to be said waits for another avatar."""

    NOTHING = "nothing"
    NEXT = "next"
    """Utterances of which this avatar has nothing yet."""
    ALL = "all"
    """Whatever it has not got yet: it says what it has, to the end."""


class Handover:
    """What this avatar still gets, and when it has said what it has."""

    def __init__(self, line: UtteranceQueue, interrupts: Interrupts, *, grace_s: float) -> None:
        self.hold = SendGate.NOTHING
        """What waits for another avatar; set by the session."""
        self.utterance: Utterance | None = None
        """The one that is parted: this avatar was told to say the last of what it has of it."""
        self.is_said = False
        """Whether it did."""
        self._line = line
        self._interrupts = interrupts
        self._grace_s = grace_s

    def may_part(self, now_s: float) -> bool:
        """Whether another avatar can go on, with nothing cut of what this one has to say."""
        line = self._line
        if self._interrupts.pending is not None and line.enabled:
            return False
        if not any(one.is_upstream for one in line.active):
            return True
        says_all_it_will = self.hold is SendGate.ALL or not line.enabled
        return says_all_it_will and (self.is_said or now_s >= self._said_by_s)

    @property
    def at_s(self) -> float | None:
        """When to ask `may_part` again, even if nothing happens; None when only an event can change it."""
        return None if self.hold is SendGate.NEXT and self._line.enabled else self._said_by_s

    @property
    def _said_by_s(self) -> float:
        return self._line.clock.dry_at_s + self._grace_s

    def next_command(self) -> SpeakEnd | None:
        """Tell an avatar that no more of an utterance comes, so that it says the last of what it has."""
        utterance = next((one for one in self._line.active if one.is_upstream and not one.end_sent), None)
        if utterance is None or utterance is self.utterance:
            return None
        self.utterance, self.is_said = utterance, False
        return SpeakEnd(utterance.upstream_id)

    def forget(self) -> None:
        """The socket is gone, over which no more was to come of an utterance."""
        self.utterance, self.is_said = None, False
