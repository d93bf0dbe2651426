"""Utterances whose stream broke off before their end: another stream may continue them for a while."""

from collections.abc import Callable
from functools import partial

from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.upstream.standstill import PatientTimer


class OrphanedUtterances:
    """Orphaned utterances of one session. Needs the running loop for its timers."""

    def __init__(self, *, grace_s: float, give_up: Callable[[Utterance], None]) -> None:
        """Begin without orphans.

        Args:
            grace_s: Longest wait for a stream that continues an utterance.
            give_up: Called with the utterance if no stream came.
        """
        self._grace_s = grace_s
        self._give_up = give_up
        self._timers: dict[Utterance, PatientTimer] = {}

    def add(self, utterance: Utterance) -> None:
        """Wait for another stream to continue an utterance, also for one that came during a standstill."""
        self._timers[utterance] = PatientTimer(self._grace_s, partial(self._expire, utterance))

    def take(self, utterance: Utterance) -> None:
        """Stop the wait: a stream continues the utterance. Does nothing for one that is not orphaned."""
        if (timer := self._timers.pop(utterance, None)) is not None:
            timer.cancel()

    def give_up_all(self) -> None:
        """Give up every orphan: the caller has begun another utterance."""
        for utterance in list(self._timers):
            self._expire(utterance)

    def _expire(self, utterance: Utterance) -> None:
        self.take(utterance)
        self._give_up(utterance)

    def close(self) -> None:
        """Stop all timers: the session is over."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
