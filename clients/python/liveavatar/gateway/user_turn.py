"""Turn of a user: the object that `user_turns` delivers, and the state that the turns keep."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta

from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.model import Interruption
from liveavatar.gateway.turn_detector import TurnEnd
from liveavatar.gateway.turn_interrupts import TurnJudge, TurnVerdict

TURN_FORMAT = AudioFormat(sample_rate_hz=16_000)
"""Format of the audio of turns and of the windows of a `VoiceDetector`: 16 kHz mono 16-bit PCM."""


class TurnState:
    """State of a turn. Changed in the event loop by `AsyncUserTurns`, which notifies `condition`."""

    def __init__(
        self,
        participant: str,
        started_at: datetime,
        judge: TurnJudge,
        condition: Condition,
        on_words: Callable[["TurnState", int], None],
    ) -> None:
        """Begin without audio.

        Args:
            participant: Identity of the user.
            started_at: Time of the first voice.
            judge: Judge of the turn.
            condition: Notified of each change.
            on_words: Called with the number of words that the program has recognized.
        """
        self.participant = participant
        self.started_at = started_at
        self.judge = judge
        self.condition = condition
        self.on_words = on_words
        self.pieces: list[bytes] = []
        self.size_bytes = 0
        self.end: TurnEnd | None = None
        self.interrupted: Interruption | None = None
        self.is_delivered = False

    def append(self, audio: bytes) -> None:
        """Add audio."""
        self.pieces.append(audio)
        self.size_bytes += len(audio)

    def finish(self, end: TurnEnd) -> None:
        """Note the end."""
        self.end = end

    def interrupt(self, interruption: Interruption) -> None:
        """Note the speech that the turn has interrupted."""
        self.interrupted = interruption

    def deliver(self) -> None:
        """Note that the program gets the turn."""
        self.is_delivered = True


class AsyncUserTurn:
    """Turn of a user: `async for chunk in turn` while the user speaks, or `await turn.complete()` for the whole.

    Several tasks may read, each from the beginning.
    """

    def __init__(self, state: TurnState) -> None:
        self._state = state

    def __repr__(self) -> str:
        end = "open" if self.end is None else self.end.value
        return f"<{type(self).__name__} {self.participant} {self.duration.total_seconds():.2f} s {end}>"

    @property
    def participant(self) -> str:
        """Identity of the user in the room."""
        return self._state.participant

    @property
    def started_at(self) -> datetime:
        """Time of the first voice, by the gateway's clock; the audio begins earlier by the pre-roll."""
        return self._state.started_at

    @property
    def format(self) -> AudioFormat:
        """Format of the audio: 16 kHz mono 16-bit PCM."""
        return TURN_FORMAT

    @property
    def audio(self) -> bytes:
        """Audio so far; after the end, all of the turn."""
        return b"".join(self._state.pieces)

    @property
    def duration(self) -> timedelta:
        """Duration of the audio so far, with pre-roll and silence."""
        return TURN_FORMAT.duration(self._state.size_bytes)

    @property
    def end(self) -> TurnEnd | None:
        """Reason for the end; None while the user speaks."""
        return self._state.end

    @property
    def verdict(self) -> TurnVerdict:
        """Verdict by the rules: ACCEPTED, but OPEN while a turn waits for words, and REFUSED if it lacked them."""
        return self._state.judge.verdict

    @property
    def interrupted(self) -> Interruption | None:
        """Speech of the avatar that the turn interrupted, and how much of it was heard; None if there was none."""
        return self._state.interrupted

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks()

    async def complete(self) -> bytes:
        """Wait for the end of the turn and return its audio."""
        await self._state.condition.until(lambda: self._state.end is not None)
        return self.audio

    def report_words(self, count: int) -> None:
        """Report the number of words recognized so far, for `InterruptRules.min_words`."""
        self._state.on_words(self._state, count)

    async def _chunks(self) -> AsyncIterator[bytes]:
        count = 0
        while True:
            if count < len(self._state.pieces):
                count += 1
                yield self._state.pieces[count - 1]
            elif self._state.end is not None:
                return
            else:
                await self._state.condition.wait()
