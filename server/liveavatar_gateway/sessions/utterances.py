"""Utterances of one session, as its audio streams open, fill and end them."""

import time
from typing import NamedTuple

import structlog

from liveavatar_gateway.core.errors import Draining, GatewayError
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.speech.utterance import AudioInput, Utterance
from liveavatar_gateway.core.speech.words import TimedText
from liveavatar_gateway.sessions.journal import SessionJournal
from liveavatar_gateway.sessions.orphaned_utterances import OrphanedUtterances
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import Metrics, SessionMeter

_log = structlog.get_logger(__name__)


class UtteranceProgress(NamedTuple):
    """Progress of one utterance; sizes in bytes of the caller's format."""

    received_bytes: int
    confirmed_bytes: int
    played_s: float
    credit_bytes: int
    underrun_count: int


class SessionUtterances:
    """Utterances of one session. Each method changes the state machine and wakes the driver if needed."""

    def __init__(
        self,
        core: Session,
        *,
        journal: SessionJournal,
        metrics: Metrics,
        meter: SessionMeter,
        wake: Wakeup,
        grace_s: float,
    ) -> None:
        """Begin without utterances, or with those that another process left.

        Args:
            core: State machine of the session.
            journal: Keeps the utterances that an interrupt stops.
            metrics: Counts audio that came too late.
            meter: Counts utterances.
            wake: Wakes the driver.
            grace_s: Longest time that an utterance without a stream waits for one.
        """
        self._core = core
        self._speech = core.speech
        self._journal = journal
        self._metrics = metrics
        self._meter = meter
        self._wake = wake
        self._orphans = OrphanedUtterances(grace_s=grace_s, give_up=self.cancel)
        self._accepts_new = True

    def accept_new(self, *, accepted: bool) -> None:
        """Accept or refuse new utterances from now on."""
        self._accepts_new = accepted

    def begin(
        self, utterance_id: str, audio_input: AudioInput, *, idle_timeout_s: float | None = None
    ) -> Utterance:
        """Open an utterance. Orphaned ones are cancelled, since their caller continues with another.

        Args:
            utterance_id: The caller's id; empty to have one generated.
            audio_input: Format and limits of its audio.
            idle_timeout_s: Longest time without audio before it is sealed; None for no limit.

        Raises:
            Draining, SessionEnded, UtteranceIdReused, CapacityExhausted: it was not opened.
        """
        utterance = self._begin(utterance_id, audio_input, idle_timeout_s)
        self._orphans.give_up_all()
        return utterance

    def _begin(self, utterance_id: str, audio_input: AudioInput, idle_timeout_s: float | None) -> Utterance:
        if not self._accepts_new and not self._core.over:
            raise Draining
        utterance = self._core.begin(utterance_id, audio_input)
        self._meter.utterance_begun(utterance.id)
        self._start_idle_limit(utterance, idle_timeout_s)
        return utterance

    def _start_idle_limit(self, utterance: Utterance, idle_timeout_s: float | None) -> None:
        """Restart the idle limit of an utterance; None keeps its length."""
        utterance.start_idle_limit(idle_timeout_s, time.monotonic())
        if utterance.idle_timeout_s is not None:
            self._wake.set()

    def pause(self, utterance: Utterance, pause_s: float) -> None:
        """Let time in which no audio is read count for no idle limit."""
        utterance.start_idle_limit(None, time.monotonic() + pause_s)

    def resume(
        self, utterance_id: str, audio_input: AudioInput, *, idle_timeout_s: float | None = None
    ) -> Utterance | UtteranceEnded:
        """Continue an utterance of an earlier stream; an unknown one is opened. For the arguments see `begin`.

        Raises:
            InvalidField: it was begun in another format.
            Draining, SessionEnded, CapacityExhausted: it is not known, and was not opened.
        """
        known = self._speech.take_up(utterance_id, audio_input)
        if known is None:
            return self._begin(utterance_id, audio_input, idle_timeout_s)
        if isinstance(known, Utterance):
            self._orphans.take(known)
            self._start_idle_limit(known, idle_timeout_s)
        return known

    def orphan(self, utterance: Utterance) -> None:
        """Wait for another stream to continue an utterance, for the detach grace; then cancel it."""
        if utterance.sealed or utterance.outcome is not None:
            return
        _log.info("utterance.orphaned", session=self._core.id, received_bytes=utterance.received)
        # Without a stream no audio can come: the grace counts instead.
        utterance.stop_idle_limit()
        self._orphans.add(utterance)

    def adopt(self) -> None:
        """Orphan the utterances that another process left: their streams ended with that process."""
        for utterance in self._speech.active:
            if not utterance.sealed and not utterance.interrupted:
                self._orphans.add(utterance)

    def receive(self, utterance: Utterance, offset: int | None, audio: bytes) -> None:
        """Take a chunk. This is the hot path: an append, and a wake-up when a packet is due.

        Raises:
            CallerError, CreditExceeded: nothing was taken.
        """
        if utterance.sealed:
            self.drop_stale(len(audio))
        elif self._speech.receive(utterance, offset, audio, time.monotonic()):
            self._wake.set()

    def find(self, utterance_id: str) -> Utterance | None:
        """Return the utterance with this id, unless it has ended."""
        return self._speech.find_by_id(utterance_id)

    def add_text(self, utterance: Utterance, piece: TimedText, *, field: str) -> None:
        """Add timings to the text of an utterance; those of an utterance that has ended have no effect.

        Raises:
            TimingsInvalid, TimingsGap, TimingsLimit: the timings were refused, and changed nothing.
        """
        if utterance.outcome is None:
            self._speech.add_text(utterance, piece, field=field)

    def drop_stale(self, size_bytes: int) -> None:
        """Count audio of an utterance that no longer takes any."""
        self._speech.drop_stale(size_bytes)
        self._metrics.stale_audio(size_bytes)

    def seal(self, utterance: Utterance, failure: GatewayError | None = None) -> None:
        """Accept no more audio for an utterance, which is spoken to its end."""
        self._core.seal(utterance, failure)
        self._wake.set()

    def cancel(self, utterance: Utterance) -> None:
        """Drop an utterance, or interrupt it if it is being spoken."""
        self._core.cancel(utterance)
        self._journal.note_interrupts(self._speech.active)
        self._wake.set()

    def close(self) -> None:
        """Stop all timers: the session is over."""
        self._orphans.close()

    def credit_bytes(self, audio_input: AudioInput) -> int:
        """Return the bytes of a format that the session takes beyond those received."""
        return self._speech.credit_bytes(audio_input)

    def progress(self, utterance: Utterance, audio_input: AudioInput, now_s: float) -> UtteranceProgress:
        """Return the progress of an utterance, and the present credit."""
        speech = self._speech
        played_s = utterance.position_s(speech.clock, now_s)
        return UtteranceProgress(
            received_bytes=utterance.received,
            confirmed_bytes=speech.discardable_bytes(utterance),
            played_s=played_s,
            credit_bytes=speech.credit_bytes(audio_input),
            underrun_count=utterance.underrun_count,
        )
