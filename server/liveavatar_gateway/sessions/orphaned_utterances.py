"""Utterances whose stream broke off before their end: another stream may go on with them for a while."""

from collections.abc import Callable
from functools import partial

from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.upstream.standstill import PatientTimer


class OrphanedUtterances:
    """Those of one session. Needs the running loop for its timers."""

    def __init__(self, *, grace_s: float, give_up: Callable[[Utterance], None]) -> None:
        """Begin with none.

        Args:
            grace_s: How long one is waited for.
            give_up: Called when nobody went on with it.
        """
        self._grace_s = grace_s
        self._give_up = give_up
        self._timers: dict[Utterance, PatientTimer] = {}

    def add(self, utterance: Utterance) -> None:
        """Wait for another stream to go on with it, also for one that came while the process stood still."""
        self._timers[utterance] = PatientTimer(self._grace_s, partial(self._is_over, utterance))

    def take(self, utterance: Utterance) -> None:
        """A stream goes on with it, if it was left open."""
        if (timer := self._timers.pop(utterance, None)) is not None:
            timer.cancel()

    def give_up_all(self) -> None:
        """The caller goes on with something else."""
        for utterance in list(self._timers):
            self._is_over(utterance)

    def _is_over(self, utterance: Utterance) -> None:
        self.take(utterance)
        self._give_up(utterance)

    def close(self) -> None:
        """The session is over."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
