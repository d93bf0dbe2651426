"""One utterance: the caller's view of it, and what the session keeps of it."""

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from liveavatar.gateway.audio import AudioFormat, ChunkBuffer
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.credit import SendWindow
from liveavatar.gateway.errors import GatewayError
from liveavatar.gateway.model import Interruption, Outcome, OutcomeKind, Progress
from liveavatar.gateway.source import Source


class Phase(enum.Enum):
    """Where an utterance is on its way to the gateway."""

    QUEUED = enum.auto()
    """Waits here; the gateway does not know it."""
    OPEN = enum.auto()
    """Begun; its audio is being sent."""
    SEALED = enum.auto()
    """All of its audio was sent, or no more will be; on a stream that follows it is opened again."""
    ENDED = enum.auto()
    """It has an outcome."""


class Stop(enum.Enum):
    """How sending an utterance stops before its audio does."""

    CANCEL = enum.auto()
    """Silence it and drop what waits."""
    END = enum.auto()
    """Take no more of it, but speak what was taken."""
    NOTHING = enum.auto()
    """It was never opened, so there is nothing to close."""


class UtteranceState:
    """What the session keeps of an utterance. Changed in the event loop only; `changes` tells of it.

    Invariant: it gets exactly one outcome, and with it the phase ENDED.
    """

    def __init__(self, utterance_id: str, source: Source, changes: Condition) -> None:
        self.id = utterance_id
        self.source = source
        self.format = AudioFormat()
        self.buffer = ChunkBuffer(self.format)
        """What the source has given and was never sent."""
        self.phase = Phase.QUEUED
        self.window = SendWindow()
        self.progress = Progress()
        self.taken = False
        """Whether the gateway has said anything of it, and so owes it an end."""
        self.started = False
        self.stop: Stop | None = None
        self.failure: Exception | None = None
        """Why it counts as failed, however the gateway says it ended."""
        self.lost: Exception | None = None
        """Why no stream can go on with it: only the session's events still tell of it, and if it was cut, then by
        that."""
        self.begin_mono_s = 0.0
        """When to begin it, on the loop's clock: later than now for one that found no room at the gateway."""
        self.told: Outcome | None = None
        """How the session's events say it ended, until its own stream says so."""
        self.done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._changes = changes

    @property
    def outcome(self) -> Outcome | None:
        """What became of it; None while it lives."""
        return self.done.result() if self.done.done() else None

    def acknowledge(self, progress: Progress) -> None:
        """Take over how far it has come."""
        self.taken = True
        self.progress = progress
        self._changes.notify()

    def start(self) -> None:
        """Note its first sound."""
        self.taken = self.started = True
        self._changes.notify()

    def halt(self, stop: Stop) -> None:
        """Send nothing more of it; the first way to stop counts."""
        if self.stop is None:
            self.stop = stop
            self._changes.notify()

    def finish(self, outcome: Outcome) -> None:
        """Give it its outcome; the first one counts, since both streams tell."""
        if self.done.done():
            return
        error = self.failure
        if error is None and self.stop is None and outcome.kind is OutcomeKind.INTERRUPTED:
            error = self.lost
        if error is not None and outcome.kind is not OutcomeKind.FAILED:
            outcome = replace(outcome, kind=OutcomeKind.FAILED, error=error)
        self.phase = Phase.ENDED
        self.halt(Stop.CANCEL)
        self.done.set_result(outcome)
        self._changes.notify()

    def fail(self, error: Exception) -> None:
        """End it for want of further news: as its events said, or else with `error` and what is known as heard."""
        failed = Outcome(utterance_id=self.id, kind=OutcomeKind.FAILED, played=self.progress.played, error=error)
        self.finish(self.told or failed)

    def drop(self) -> None:
        """End it before the gateway has heard of it."""
        self.finish(Outcome(utterance_id=self.id, kind=OutcomeKind.INTERRUPTED, played=timedelta()))


class AsyncUtterance:
    """An utterance on its way: await it for its `Outcome`, or follow it.

    An utterance is spoken whether or not anybody awaits it, and goes on when the one who awaits is cancelled;
    `interrupt` silences it.
    """

    def __init__(
        self, turn: UtteranceState, changes: Condition, interrupt: Callable[[str], Awaitable[Interruption]]
    ) -> None:
        self._turn = turn
        self._changes = changes
        self._interrupt = interrupt

    def __repr__(self) -> str:
        ended = self.outcome.kind.value if self.outcome else self._turn.phase.name.lower()
        return f"<{type(self).__name__} {self.id} {ended}>"

    @property
    def id(self) -> str:
        """Its id, in events and for `interrupt`."""
        return self._turn.id

    @property
    def outcome(self) -> Outcome | None:
        """What became of it, also where it failed; None while it lives."""
        return self._turn.outcome

    @property
    def progress(self) -> Progress:
        """How far it has come, by the newest ack."""
        return self._turn.progress

    async def result(self) -> Outcome:
        """Wait for its end: played or interrupted.

        Raises:
            GatewayError: it failed; the class says why, `outcome.played` how much was heard.
            Exception: its audio's own iterator raised this, or its file could not be read.
        """
        outcome = await asyncio.shield(self._turn.done)
        if outcome.kind is OutcomeKind.FAILED:
            raise outcome.error or GatewayError("the utterance failed; the gateway did not say why")
        return outcome

    def __await__(self) -> Generator[Any, None, Outcome]:
        return self.result().__await__()

    async def started(self) -> bool:
        """Wait for its first sound; False when it ended before anything was heard."""
        await self._changes.until(lambda: self._turn.started or self._turn.outcome)
        return self._turn.started

    async def progress_updates(self) -> AsyncIterator[Progress]:
        """Its progress, each time it changed, to its end. A slow reader skips to the newest."""
        seen: Progress | None = None
        while True:
            if self.progress != seen:
                seen = self.progress
                yield seen
            elif self.outcome is not None:
                return
            else:
                await self._changes.wait()

    async def interrupt(self) -> Outcome:
        """Silence it, wherever it is, and wait for its end: a no-op when it has ended.

        Raises:
            GatewayError: the gateway could not be asked.
        """
        if self.outcome is None:
            await self._interrupt(self.id)
        return await asyncio.shield(self._turn.done)
