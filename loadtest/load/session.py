"""What all sessions have in common, be they with the gateway or with LiveAvatar directly: turns, waits, pace."""

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from load.figures import System
from load.integrity import Fate
from load.recorder import LoadRecorder
from load.speech import BYTE_RATE, Delivery, Text, Voice

_Answer = TypeVar("_Answer")
logger = logging.getLogger(__name__)

OPEN_WITHIN_S: Final = 45.0
"""Longest wait for a session that can speak; above what the gateway lets callers wait for a free place."""
ANSWER_WITHIN_S: Final = 15.0
"""Longest wait for any other answer."""
STALL_S: Final = 20.0
"""How much longer than it should take an utterance may be on its way."""

_EARLY_S: Final = 0.0005
# The loop's timers are whole milliseconds, rounded to the nearest one: half of one more, and they are never early.
_COUNTED_BYTES: Final = BYTE_RATE
# Written bytes are counted about once per second of speech, not with each chunk.


class Failure(Exception):
    """A session went wrong. `reason` is the gateway's, LiveAvatar's, or says which answer did not come."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(slots=True, eq=False)
class Turn:
    """One utterance: what is to be said when, and what became of it. Moments are monotonic."""

    id: str
    text: Text
    delivery: Delivery
    start_s: float
    """When its first chunk is due."""
    interrupt_s: float | None = None
    """When it is to be interrupted: nothing is sent from then on."""
    queued: bool = False
    """Whether it waits behind another one, so that its own start says nothing of speed."""
    paced: bool = True
    """Whether its chunks are due on the delivery's schedule; otherwise whenever the credit allows them."""
    sent_bytes: int = 0
    sealed: bool = False
    """Whether its end was told."""
    first_write_s: float | None = None
    acked: int = -1
    """Index of the newest chunk that an ack covered."""
    fate: Fate | None = None
    over: "asyncio.Future[Fate]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def due_s(self, index: int) -> float:
        """When a chunk is due."""
        return self.start_s + self.delivery.dues[index]

    def end(self, fate: Fate) -> None:
        """Note what became of it; the first word counts."""
        if self.fate is None:
            self.fate = fate
            if not self.over.done():
                self.over.set_result(fate)


async def until(due_s: float) -> None:
    """Sleep until a moment of the monotonic clock, never less."""
    loop = asyncio.get_running_loop()
    while (wait_s := due_s - time.monotonic()) > 0:
        # What `asyncio.sleep` does, without a coroutine of its own: this happens with every chunk.
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
    """What somebody waits for. All of it fails when the session fails, and each has a deadline."""

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
        """A reader ended: what it raised is a mistake of the generator, told like any other failure."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("generator: a reader failed", exc_info=error)
            self.fail(Failure(f"GENERATOR: {type(error).__name__}", str(error)))

    def fail(self, failure: Failure) -> None:
        """Wake everybody who waits; only the first failure counts."""
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
    """A session from open to end. Used by one task; closed by `end`, in whatever state it is."""

    system: System

    def __init__(self, meter: LoadRecorder, voice: Voice) -> None:
        self.meter = meter
        self.voice = voice
        self.upstream_id = ""
        """LiveAvatar's id, under which the emulator recorded it; empty before there is one."""
        self.turns: list[Turn] = []
        self.waits = Waits()
        self._late = meter.lateness_of(self.system)

    # --- what a caller does

    @abstractmethod
    async def open(self) -> None:
        """Bring it to the point where the avatar can speak."""

    @abstractmethod
    async def listen(self, from_s: float, to_s: float) -> None:
        """Let the avatar look attentive for a while."""

    @abstractmethod
    async def interrupt(self, turn: Turn, *, how: str = "") -> None:
        """Wait for the turn's moment and cut it, unless it is over before."""

    @abstractmethod
    async def end(self) -> None:
        """End it, so that nothing is left upstream. Never raises, whatever happened before."""

    async def speak(self, turn: Turn) -> None:
        """Say a turn: each chunk when it is due, late ones at once, up to its interrupt.

        Raises:
            Failure: the session failed, or the other side took no audio for too long.
        """
        self.turns.append(turn)
        pcm = self.voice.pcm(turn.text)
        due_in_s = max(0.0, turn.start_s - time.monotonic())
        async with deadline("audio taken", due_in_s + turn.text.seconds + STALL_S):
            await self._say(turn, pcm)

    async def _say(self, turn: Turn, pcm: bytes) -> None:
        ends, dues, start_s = turn.delivery.ends, turn.delivery.dues, turn.start_s
        stop_s = turn.interrupt_s if turn.interrupt_s is not None else float("inf")
        late, monotonic = self._late, time.monotonic
        position = uncounted = 0
        await until(start_s)
        await self._begin(turn)
        self.meter.count(self.system, "utterances")
        for end, due in zip(ends, dues, strict=True):
            due_s = start_s + due
            if due_s >= stop_s or turn.fate is not None:
                break
            now_s = monotonic()
            if now_s < due_s:
                await until(due_s)
                now_s = monotonic()
            if self._room() < end - position:
                await self._wait_for_room(turn, end - position)
                due_s = now_s = monotonic()
            elif turn.paced:
                late.append(now_s - due_s)
            if turn.first_write_s is None:
                turn.first_write_s = now_s
            chunk = pcm[position:end]
            turn.sent_bytes = position = end
            await self._write(turn, chunk)
            uncounted += len(chunk)
            if uncounted >= _COUNTED_BYTES:
                self.meter.count(self.system, "audio bytes", uncounted)
                uncounted = 0
        self.meter.count(self.system, "audio bytes", uncounted)
        if position == turn.text.size_bytes:
            await self._seal(turn)
            turn.sealed = True

    async def finish(self, turn: Turn) -> None:
        """Wait until a turn is over.

        Raises:
            Failure: the session failed, or the end did not come.
        """
        before_s = sum(other.text.seconds for other in self.turns if other.fate is None)
        fate = await self.waits.answer("utterance ended", turn.over, before_s + STALL_S)
        if fate != "failed":
            self.meter.count(self.system, "completed" if fate == "completed" else "interrupted")

    # --- how it is done

    @abstractmethod
    async def _begin(self, turn: Turn) -> None: ...

    @abstractmethod
    async def _write(self, turn: Turn, chunk: bytes) -> None: ...

    @abstractmethod
    async def _seal(self, turn: Turn) -> None: ...

    def _room(self) -> int:
        """Bytes that may be written now."""
        return 1 << 62

    async def _wait_for_room(self, turn: Turn, size_bytes: int) -> None:  # noqa: B027 - not all need it
        """Wait until so many bytes may be written, or the turn is over."""

    # --- what is noted

    def _told_started(self, turn: Turn, now_s: float) -> None:
        if turn.queued:
            return
        self.meter.took(self.system, "started", now_s - turn.start_s, at_mono_s=now_s)
        if turn.first_write_s is not None:
            self.meter.took(self.system, "started, closed loop", now_s - turn.first_write_s, at_mono_s=now_s)

    def _told_acked(self, turn: Turn, size_bytes: int, now_s: float) -> None:
        """An ack covers a turn up to `size_bytes`."""
        if not turn.paced or size_bytes <= 0:
            return
        index = turn.delivery.covered(size_bytes)
        if turn.delivery.ends[index] > size_bytes:
            index -= 1
        if index <= turn.acked:
            return
        turn.acked = index
        # An ack waits up to a second for its turn. Only while more follows is its age not that wait.
        if index < len(turn.delivery.ends) - 1:
            self.meter.took(self.system, "ack delay", now_s - turn.due_s(index), at_mono_s=now_s)
