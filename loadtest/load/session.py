"""Common base of sessions with the gateway and with LiveAvatar directly: utterances, waits, pace."""

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from liveavatar_gateway.escaping import escaped
from load.figures import System
from load.integrity import UtteranceOutcome
from load.recorder import LoadRecorder
from load.speech import BYTE_RATE, Delivery, Text, Voice

_Answer = TypeVar("_Answer")
logger = logging.getLogger(__name__)

OPEN_WITHIN_S: Final = 45.0
"""Longest wait for a session that can speak; above what the gateway lets callers wait for a free place."""
ANSWER_WITHIN_S: Final = 15.0
"""Longest wait for any other answer."""
STALL_S: Final = 20.0
"""Longest delay of an utterance beyond its own length."""

_EARLY_S: Final = 0.0005
# The loop's timers are rounded to the nearest millisecond; half a millisecond more keeps them from being early.
_COUNTED_BYTES: Final = BYTE_RATE
_MAX_REASON_CHARS: Final = 100
_MAX_MESSAGE_CHARS: Final = 1000
# Bytes between two updates of the counter, about a second of speech.


class Failure(Exception):
    """Failure of a session. `reason` is the gateway's, LiveAvatar's, or names the answer that did not come.

    Both texts are escaped and bounded, because the target chooses them and reports and terminals show them.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(escaped(message[:_MAX_MESSAGE_CHARS]))
        self.reason = escaped(reason[:_MAX_REASON_CHARS])


@dataclass(slots=True, eq=False)
class Utterance:
    """Utterance with its schedule and its outcome. Times are monotonic."""

    id: str
    text: Text
    delivery: Delivery
    start_s: float
    """Time at which its first chunk is due."""
    interrupt_s: float | None = None
    """Time of its interrupt; nothing is sent from then on."""
    queued: bool = False
    """True if it waits behind another utterance, so that its own start says nothing of speed."""
    paced: bool = True
    """True if its chunks are due on the delivery's schedule; otherwise they go whenever the credit allows."""
    sent_bytes: int = 0
    sealed: bool = False
    """True once its end was sent."""
    first_write_s: float | None = None
    acked: int = -1
    """Index of the newest chunk that an ack covered."""
    outcome: UtteranceOutcome | None = None
    over: "asyncio.Future[UtteranceOutcome]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def due_s(self, index: int) -> float:
        """Return the time at which a chunk is due."""
        return self.start_s + self.delivery.dues[index]

    def end(self, outcome: UtteranceOutcome) -> None:
        """Set the outcome; only the first call counts."""
        if self.outcome is None:
            self.outcome = outcome
            if not self.over.done():
                self.over.set_result(outcome)


async def until(due_s: float) -> None:
    """Sleep until a time of the monotonic clock, never shorter."""
    loop = asyncio.get_running_loop()
    while (wait_s := due_s - time.monotonic()) > 0:
        # The same as `asyncio.sleep` without a coroutine of its own, because this runs with every chunk.
        woken = loop.create_future()
        timer = loop.call_later(wait_s + _EARLY_S, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()


def _wake(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)


class Waits:
    """Answers that a session waits for. Each has a deadline, and all fail when the session fails."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self._pending: set[asyncio.Future[Any]] = set()

    async def answer(self, what: str, future: "asyncio.Future[_Answer]", within_s: float) -> _Answer:
        """Wait for an answer.

        Raises:
            Failure: the session failed, or the answer did not come; the reason says which.
        """
        if self.failure is not None and not future.done():
            raise self.failure
        self._pending.add(future)
        try:
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError:
            raise Failure(f"NO_ANSWER: {what}", f"no answer within {within_s:g} s: {what}") from None
        finally:
            self._pending.discard(future)

    def done(self, task: "asyncio.Task[None]") -> None:
        """Take the end of a reader; an exception is the generator's own fault, and fails the session."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("generator: a reader failed", exc_info=error)
            self.fail(Failure(f"GENERATOR: {type(error).__name__}", str(error)))

    def fail(self, failure: Failure) -> None:
        """Fail all pending answers; only the first failure counts."""
        if self.failure is None:
            self.failure = failure
            for future in self._pending:
                if not future.done():
                    future.set_exception(failure)


@contextlib.asynccontextmanager
async def deadline(what: str, within_s: float) -> AsyncIterator[None]:
    """Bound some steps together.

    Raises:
        Failure: they took longer.
    """
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError:
        raise Failure(f"NO_ANSWER: {what}", f"not done within {within_s:g} s: {what}") from None


class Session(ABC):
    """Session from open to end. One task uses it; `end` closes it in any state."""

    system: System

    def __init__(self, recorder: LoadRecorder, voice: Voice) -> None:
        self.recorder = recorder
        self.voice = voice
        self.upstream_id = ""
        """LiveAvatar's id, under which the emulator recorded it; empty before there is one."""
        self.utterances: list[Utterance] = []
        self.waits = Waits()
        self._late = recorder.lateness_of(self.system)

    @abstractmethod
    async def open(self) -> None:
        """Open the session; its avatar can speak when this returns."""

    @abstractmethod
    async def listen(self, from_s: float, to_s: float) -> None:
        """Show the listening pose for a time."""

    @abstractmethod
    async def interrupt(self, utterance: Utterance, *, how: str = "") -> None:
        """Wait for the utterance's `interrupt_s` and interrupt it, unless it ends before."""

    @abstractmethod
    async def end(self) -> None:
        """End the session upstream. Never raises."""

    async def speak(self, utterance: Utterance) -> None:
        """Send an utterance: each chunk when it is due, late chunks at once, until its interrupt.

        Raises:
            Failure: the session failed, or the other side took no audio for too long.
        """
        self.utterances.append(utterance)
        pcm = self.voice.pcm(utterance.text)
        due_in_s = max(0.0, utterance.start_s - time.monotonic())
        async with deadline("audio taken", due_in_s + utterance.text.seconds + STALL_S):
            await self._send_chunks(utterance, pcm)

    async def _send_chunks(self, utterance: Utterance, pcm: bytes) -> None:
        ends, dues, start_s = utterance.delivery.ends, utterance.delivery.dues, utterance.start_s
        stop_s = utterance.interrupt_s if utterance.interrupt_s is not None else float("inf")
        late, monotonic = self._late, time.monotonic
        position = uncounted = 0
        await until(start_s)
        await self._begin(utterance)
        self.recorder.count(self.system, "utterances")
        for end, due in zip(ends, dues, strict=True):
            due_s = start_s + due
            if due_s >= stop_s or utterance.outcome is not None:
                break
            now_s = monotonic()
            if now_s < due_s:
                await until(due_s)
                now_s = monotonic()
            if self._room() < end - position:
                await self._wait_for_room(utterance, end - position)
                due_s = now_s = monotonic()
            elif utterance.paced:
                late.append(now_s - due_s)
            if utterance.first_write_s is None:
                utterance.first_write_s = now_s
            chunk = pcm[position:end]
            utterance.sent_bytes = position = end
            await self._write(utterance, chunk)
            uncounted += len(chunk)
            if uncounted >= _COUNTED_BYTES:
                self.recorder.count(self.system, "audio bytes", uncounted)
                uncounted = 0
        self.recorder.count(self.system, "audio bytes", uncounted)
        if position == utterance.text.size_bytes:
            await self._seal(utterance)
            utterance.sealed = True

    async def finish(self, utterance: Utterance) -> None:
        """Wait until an utterance has ended.

        Raises:
            Failure: the session failed, or the end did not come.
        """
        before_s = sum(other.text.seconds for other in self.utterances if other.outcome is None)
        outcome = await self.waits.answer("utterance ended", utterance.over, before_s + STALL_S)
        if outcome != "failed":
            self.recorder.count(self.system, "completed" if outcome == "completed" else "interrupted")

    @abstractmethod
    async def _begin(self, utterance: Utterance) -> None: ...

    @abstractmethod
    async def _write(self, utterance: Utterance, chunk: bytes) -> None: ...

    @abstractmethod
    async def _seal(self, utterance: Utterance) -> None: ...

    def _room(self) -> int:
        """Return the bytes that may be written now."""
        return 1 << 62

    async def _wait_for_room(self, utterance: Utterance, size_bytes: int) -> None:  # noqa: B027 - not all need it
        """Wait until `size_bytes` may be written, or the utterance has ended."""

    def _note_started(self, utterance: Utterance, now_s: float) -> None:
        if utterance.queued:
            return
        self.recorder.record(self.system, "started", now_s - utterance.start_s, at_mono_s=now_s)
        if utterance.first_write_s is not None:
            self.recorder.record(
                self.system, "started, closed loop", now_s - utterance.first_write_s, at_mono_s=now_s
            )

    def _note_acked(self, utterance: Utterance, size_bytes: int, now_s: float) -> None:
        """Record an ack that covers an utterance up to `size_bytes`."""
        if not utterance.paced or size_bytes <= 0:
            return
        index = utterance.delivery.covered(size_bytes)
        if utterance.delivery.ends[index] > size_bytes:
            index -= 1
        if index <= utterance.acked:
            return
        utterance.acked = index
        # Acks are up to a second apart. The last ack's age would include that wait, so only earlier ones count.
        if index < len(utterance.delivery.ends) - 1:
            self.recorder.record(self.system, "ack delay", now_s - utterance.due_s(index), at_mono_s=now_s)
