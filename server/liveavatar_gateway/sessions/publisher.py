"""Publication of what the state machine of a session concludes: to streams, watchers, journal and metrics."""

import time
from collections.abc import Sequence
from typing import Protocol

import structlog

from liveavatar_gateway.core.errors import SessionEnded
from liveavatar_gateway.core.events import SessionEvent, SpeechContinued, SpeechPaused, UtteranceEnded
from liveavatar_gateway.core.outputs import Answer, ContinueAnswer, Emit, Output, PauseAnswer
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.states import Outcome
from liveavatar_gateway.sessions.attachments import Attachments
from liveavatar_gateway.sessions.interrupt_waiters import InterruptWaiters
from liveavatar_gateway.sessions.journal import SessionJournal
from liveavatar_gateway.telemetry.metrics import SessionMeter

_log = structlog.get_logger(__name__)


class SessionListener(Protocol):
    """Receiver of the news of all sessions of a process. It must neither raise nor wait."""

    def on_news(self, session_id: str) -> None:
        """Take note that the event log of a session has grown."""


class EventPublisher:
    """Publisher of one session: events once and in order, answers to interrupts."""

    def __init__(
        self,
        core: Session,
        *,
        journal: SessionJournal,
        meter: SessionMeter,
        attachments: Attachments,
        interrupts: InterruptWaiters[Sequence[UtteranceEnded]],
        pauses: InterruptWaiters[PauseAnswer],
        continuations: InterruptWaiters[ContinueAnswer],
        listener: SessionListener,
    ) -> None:
        """Prepare.

        Args:
            core: State machine of the session.
            journal: Keeps ends of utterances, and the number of the last event before anybody is sent it.
            meter: Counts what happens.
            attachments: Streams and calls to wake.
            interrupts: Callers that wait for the result of an interrupt.
            pauses: Callers that wait for the result of a pause.
            continuations: Callers that wait for speech to continue.
            listener: Receiver of news of all sessions.
        """
        self._core = core
        self._journal = journal
        self._meter = meter
        self._attachments = attachments
        self._interrupts = interrupts
        self._pauses = pauses
        self._continuations = continuations
        self._listener = listener
        self.last_completed_s: float | None = None
        """Monotonic time at which speech last ended by itself, not by an interrupt or the end of the session."""

    def report(self) -> None:
        """Publish what the state machine has concluded, without asking it for commands."""
        self.publish(self._core.reports())

    def publish(self, outputs: Sequence[Output]) -> None:
        """Publish the events and answers among outputs of the state machine."""
        entries = []
        for output in outputs:
            if isinstance(output, Emit):
                entries.append(output.entry)
            elif isinstance(output, Answer):
                self._interrupts.resolve(output.interrupt_id, output.ended)
            elif isinstance(output, PauseAnswer):
                self._pauses.resolve(output.call_id, output)
            elif isinstance(output, ContinueAnswer):
                self._continuations.resolve(output.call_id, output)
        if not entries:
            return
        for entry in entries:
            if _is_completion(entry.event):
                self.last_completed_s = time.monotonic()
            self._meter.on_event(entry.event, self._core.end_reason)
            self._log_pause(entry.event)
        self._journal.note_speech((entry.event for entry in entries), self._core.speech.active)
        self._journal.note_sequence(entries[-1].sequence)
        self._attachments.wake()
        self._listener.on_news(self._core.id)

    def _log_pause(self, event: SessionEvent) -> None:
        if isinstance(event, SpeechPaused):
            _log.info("speech.paused", session=self._core.id, played_s=round(event.played_s, 2))
        elif isinstance(event, SpeechContinued):
            cause, repeated_s = event.cause.value, round(event.repeated_s, 2)
            _log.info("speech.continued", session=self._core.id, cause=cause, repeated_s=repeated_s)


def _is_completion(event: SessionEvent) -> bool:
    """Return whether an utterance was heard and ended neither by an interrupt nor with its session."""
    if not isinstance(event, UtteranceEnded) or not event.played_s:
        return False
    return event.outcome is not Outcome.INTERRUPTED and not isinstance(event.error, SessionEnded)
