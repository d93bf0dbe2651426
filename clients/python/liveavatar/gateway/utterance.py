"""Utterance: the object that `say` returns, and the state that the session keeps."""

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from liveavatar.gateway.audio import AudioFormat, ChunkBuffer
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.credit import SendWindow
from liveavatar.gateway.errors import GatewayError
from liveavatar.gateway.model import Interruption, Outcome, OutcomeKind, Progress
from liveavatar.gateway.source import Source
from liveavatar.gateway.words import SpokenText


class Phase(enum.Enum):
    """Progress of sending an utterance to the gateway."""

    QUEUED = enum.auto()
    """Waits in this process; the gateway does not know the utterance."""
    OPEN = enum.auto()
    """`begin` was sent, and audio is being sent."""
    SEALED = enum.auto()
    """All audio was sent, or no more will be sent. A later stream opens the utterance again to resume it."""
    ENDED = enum.auto()
    """The utterance has an outcome."""


PHASE_TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.QUEUED: frozenset({Phase.OPEN, Phase.ENDED}),
    Phase.OPEN: frozenset({Phase.QUEUED, Phase.SEALED, Phase.ENDED}),
    Phase.SEALED: frozenset({Phase.QUEUED, Phase.OPEN, Phase.ENDED}),
    Phase.ENDED: frozenset(),
}
"""Phases that may follow each phase."""


class Reception(enum.IntEnum):
    """Reports of the gateway on an utterance. Only increases."""

    UNKNOWN = 0
    """Nothing."""
    ACCEPTED = 1
    """The gateway knows the utterance, so it owes an `ended`."""
    STARTED = 2
    """The avatar has begun to speak the utterance."""


class Stop(enum.Enum):
    """Reason to stop sending an utterance before all of its audio was sent."""

    CANCEL = enum.auto()
    """Silence the utterance and drop its queued audio."""
    END = enum.auto()
    """Send no more, but let the avatar speak the audio that was received."""
    NOT_BEGUN = enum.auto()
    """The gateway refused `begin`, so nothing is to be closed."""


class UtteranceState:
    """State of an utterance within its session. Changed in the event loop only; `condition` is notified.

    Invariant: an utterance gets exactly one outcome, and with the outcome the phase ENDED.
    """

    def __init__(
        self, utterance_id: str, source: Source, condition: Condition, text: SpokenText | None = None
    ) -> None:
        self.id = utterance_id
        self.source = source
        self.text = SpokenText() if text is None else text
        """Text with its times, as far as it is known."""
        self.paused = False
        """True while the session's speech is paused at this utterance."""
        self.format = AudioFormat()
        self.buffer = ChunkBuffer(self.format)
        """Audio that the source has given and that was never sent."""
        self.phase = Phase.QUEUED
        self.reception = Reception.UNKNOWN
        self.window = SendWindow()
        self.progress = Progress()
        self.stop: Stop | None = None
        self.failure: Exception | None = None
        """Error that makes the outcome FAILED, whatever outcome the gateway reports."""
        self.stream_error: Exception | None = None
        """Error after which no audio stream can resume the utterance: only session events report its outcome."""
        self.not_before_mono_s = 0.0
        """Earliest time to send `begin`, on the loop's clock; set after the gateway had no room."""
        self.reported: Outcome | None = None
        """Outcome by the session's events, kept until the utterance's own stream reports the outcome."""
        self.done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._condition = condition

    @property
    def outcome(self) -> Outcome | None:
        """Final outcome; None until the utterance ends."""
        return self.done.result() if self.done.done() else None

    @property
    def accepted(self) -> bool:
        """True once the gateway has reported anything of the utterance."""
        return self.reception >= Reception.ACCEPTED

    @property
    def started(self) -> bool:
        """True once the avatar has begun to speak the utterance."""
        return self.reception is Reception.STARTED

    def prepare(self, audio_format: AudioFormat) -> None:
        """Set the format of the audio, before the first byte is buffered."""
        self.format = audio_format
        self.buffer = ChunkBuffer(audio_format)

    def begin(self) -> bool:
        """Note that `begin` is sent; return True when an earlier stream has begun the utterance."""
        resumes = self.phase is not Phase.QUEUED
        self._enter(Phase.OPEN)
        return resumes

    def seal(self) -> None:
        """Note that no more audio is sent."""
        self._enter(Phase.SEALED)

    def requeue(self) -> None:
        """Note that the gateway refused `begin` for want of room and dropped what was sent."""
        self._enter(Phase.QUEUED)

    def postpone(self, not_before_mono_s: float) -> None:
        """Set the earliest time, on the loop's clock, to send `begin` again."""
        self.not_before_mono_s = not_before_mono_s

    def accept(self, progress: Progress | None = None) -> None:
        """Note that the gateway knows the utterance, and its newest progress."""
        self.reception = max(self.reception, Reception.ACCEPTED)
        self.progress = progress or self.progress
        self._condition.notify()

    def start(self) -> None:
        """Note the first sound."""
        self.reception = Reception.STARTED
        self._condition.notify()

    def stop_sending(self, stop: Stop, failure: Exception | None = None) -> None:
        """Send no more audio; the first reason to stop wins, and so does the newest failure."""
        self.failure = failure or self.failure
        if self.stop is None:
            self.stop = stop
            self._condition.notify()

    def pause(self, *, paused: bool) -> None:
        """Note the begin or the end of a pause at this utterance."""
        self.paused = paused and self.outcome is None
        self._condition.notify()

    def report(self, outcome: Outcome) -> None:
        """Keep the outcome that the session's events report, until the utterance's own stream reports one."""
        self.reported = outcome

    def orphan(self, error: Exception) -> None:
        """Note that no audio stream will resume the utterance."""
        self.stream_error = error

    def finish(self, outcome: Outcome) -> None:
        """Set the outcome; the first outcome wins, since both streams report one."""
        if self.done.done():
            return
        error = self.failure
        if error is None and self.stop is None and outcome.kind is OutcomeKind.INTERRUPTED:
            error = self.stream_error
        if error is not None and outcome.kind is not OutcomeKind.FAILED:
            outcome = replace(outcome, kind=OutcomeKind.FAILED, error=error)
        if self.text and not outcome.heard_text:
            # A process that took the session over has no timings, and cannot say what was heard.
            is_complete = outcome.kind is OutcomeKind.PLAYED
            outcome = replace(outcome, heard_text=self.text.heard(outcome.played, is_complete=is_complete))
        self.paused = False
        self._enter(Phase.ENDED)
        self.stop_sending(Stop.CANCEL)
        self.done.set_result(outcome)
        self._condition.notify()

    def fail(self, error: Exception) -> None:
        """End the utterance for want of a stream: with the outcome of its events, or else with `error`."""
        failed = Outcome(utterance_id=self.id, kind=OutcomeKind.FAILED, played=self.progress.played, error=error)
        self.finish(self.reported or failed)

    def drop(self) -> None:
        """End the utterance as interrupted before the gateway knows it."""
        self.finish(Outcome(utterance_id=self.id, kind=OutcomeKind.INTERRUPTED, played=timedelta()))

    def _enter(self, phase: Phase) -> None:
        if phase in PHASE_TRANSITIONS[self.phase]:
            self.phase = phase


class AsyncUtterance:
    """Utterance on its way to the avatar: await it for its `Outcome`, or follow its progress.

    The avatar speaks an utterance whether or not a task awaits it, and cancelling that task does not silence the
    avatar; `interrupt` does.
    """

    def __init__(
        self, state: UtteranceState, condition: Condition, interrupt: Callable[[str], Awaitable[Interruption]]
    ) -> None:
        self._state = state
        self._condition = condition
        self._interrupt = interrupt

    def __repr__(self) -> str:
        ended = self.outcome.kind.value if self.outcome else self._state.phase.name.lower()
        return f"<{type(self).__name__} {self.id} {ended}>"

    @property
    def id(self) -> str:
        """Id of the utterance, in events and for `interrupt`."""
        return self._state.id

    @property
    def outcome(self) -> Outcome | None:
        """Final outcome, also of a failed utterance; None until the utterance ends."""
        return self._state.outcome

    @property
    def progress(self) -> Progress:
        """Progress by the newest ack."""
        return self._state.progress

    @property
    def paused(self) -> bool:
        """True while speech is paused at this utterance, by whichever process."""
        return self._state.paused

    async def result(self) -> Outcome:
        """Wait until the utterance was played or interrupted, and return its outcome.

        Raises:
            GatewayError: the utterance failed; the class is the reason, `outcome.played` the time that was heard.
            Exception: the iterator of the audio raised this, or the file could not be read.
        """
        outcome = await asyncio.shield(self._state.done)
        if outcome.kind is OutcomeKind.FAILED:
            raise outcome.error or GatewayError("the utterance failed; the gateway gave no reason")
        return outcome

    def __await__(self) -> Generator[Any, None, Outcome]:
        return self.result().__await__()

    async def started(self) -> bool:
        """Wait for the first sound; return False when the utterance ended before it was heard."""
        await self._condition.until(lambda: self._state.started or self._state.outcome)
        return self._state.started

    async def progress_updates(self) -> AsyncIterator[Progress]:
        """Iterate over the progress, after each change, until the utterance ends.

        A slow reader skips to the newest progress.
        """
        seen: Progress | None = None
        while True:
            if self.progress != seen:
                seen = self.progress
                yield seen
            elif self.outcome is not None:
                return
            else:
                await self._condition.wait()

    async def interrupt(self) -> Outcome:
        """Silence the utterance and wait for its outcome. Has no effect on an utterance that has ended.

        Raises:
            GatewayError: the gateway could not be reached.
        """
        if self.outcome is None:
            await self._interrupt(self.id)
        return await asyncio.shield(self._state.done)
