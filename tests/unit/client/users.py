"""Users of a session without a room: audio on demand, a detector that reads it off, an avatar that notes all."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from liveavatar.gateway import (
    AsyncUserTurns,
    Interruption,
    InterruptRules,
    Outcome,
    OutcomeKind,
    TurnRules,
    UserAudio,
)

WINDOW_S = 0.1
WINDOW_BYTES = 3_200
BEGAN = datetime(2026, 12, 1, tzinfo=UTC)
RULES = TurnRules(start_voice=0.1, min_voice=0.2, end_silence=0.2, pre_roll=0.1)
"""Of windows of 0.1 s: one starts a turn, two make it count, two of silence end it."""
INTERRUPTS = InterruptRules(min_voice=0.4)
WORDS = InterruptRules(min_voice=0.2, min_words=2, word_timeout=0.05)


class Voice:
    """Detector that takes the first byte of a window for its probability, in percent."""

    window_samples = WINDOW_BYTES // 2

    def __init__(self) -> None:
        self.resets = 0

    def probability(self, window: bytes) -> float:
        return window[0] / 100

    def reset(self) -> None:
        self.resets += 1


class Users:
    """Listener to users who speak when a test says so."""

    def __init__(self) -> None:
        self.closed = False
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._spoken_s: dict[str, float] = {}

    def speak(self, seconds: float, *, who: str = "ann", percent: int = 90, dropped_s: float = 0.0) -> None:
        """Queue audio in pieces that do not fit the windows."""
        at_s = self._spoken_s.get(who, 0.0) + dropped_s
        left = round(seconds / WINDOW_S) * WINDOW_BYTES
        dropped = timedelta(seconds=dropped_s)
        while left:
            size = min(left, 1_280)
            audio = bytes([percent]) * size
            captured_at = BEGAN + timedelta(seconds=at_s)
            self._queue.put_nowait(
                UserAudio(participant=who, captured_at=captured_at, sequence=1, audio=audio, dropped=dropped)
            )
            at_s += size / 32_000
            left -= size
            dropped = timedelta()
        self._spoken_s[who] = at_s

    def be_silent(self, seconds: float, *, who: str = "ann") -> None:
        self.speak(seconds, who=who, percent=0)

    def end(self, error: Exception | None = None) -> None:
        self._queue.put_nowait(error)

    async def next(self) -> UserAudio | None:
        found = await self._queue.get()
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def connected(self) -> bool:
        return not self.closed

    def close(self) -> None:
        self.closed = True


class Avatar:
    """Session that notes commands, and fails or hangs with them when told to."""

    def __init__(self) -> None:
        self.talking = False
        self.commands: list[str] = []
        self.error: Exception | None = None

    async def pause(self, *, limit) -> None:
        self._note(f"pause {limit}")

    async def continue_speech(self) -> None:
        self._note("continue")

    async def interrupt(self) -> Interruption:
        self._note("interrupt")
        cut = Outcome(utterance_id="u", kind=OutcomeKind.INTERRUPTED, played=timedelta(seconds=1))
        return Interruption(interrupted=(cut,))

    def _note(self, command: str) -> None:
        self.commands.append(command)
        if self.error is not None:
            raise self.error


class Stage:
    """Turns of users, with all that they meet."""

    def __init__(self, *, rules: TurnRules = RULES, interrupts: InterruptRules | None = INTERRUPTS, voice=Voice):
        self.users = Users()
        self.avatar = Avatar()
        self.tasks: list[asyncio.Task[Any]] = []
        self.turns = AsyncUserTurns(
            self.users,
            self.avatar,
            voice,
            self._spawn,
            is_talking=lambda: self.avatar.talking,
            rules=rules,
            interrupts=interrupts,
        )

    def _spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]

    async def until(self, predicate) -> None:
        async with asyncio.timeout(5):
            while not predicate():
                await asyncio.sleep(0.001)
