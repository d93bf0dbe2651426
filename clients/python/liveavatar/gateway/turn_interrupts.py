"""Decisions on a user who speaks while the avatar talks: pause, then interrupt or continue. Pure, no I/O."""

import enum
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from liveavatar.gateway.turn_detector import TurnRules, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptRules:
    """Rules for a user who speaks while the avatar talks. Numbers of durations count seconds.

    The avatar is paused with the first voice. Its speech is interrupted once the user has said enough. When the
    user has not, as after a cough, it continues from the pause.

    Raises:
        ValueError: a value is outside its range.
    """

    min_voice: timedelta | float = 0.5
    """Voice that interrupts. Lower reacts sooner, and to coughs."""
    min_words: int = 0
    """Words that interrupt, beside `min_voice`; the program calls `report_words`. 0: the voice alone decides."""
    word_timeout: timedelta | float = 2.0
    """Longest wait for words after the end of the turn, before the avatar continues."""
    max_pause: timedelta | float = 10.0
    """Longest pause, 0.1 s to 10 min: then the gateway continues by itself, also without this program."""

    def __post_init__(self) -> None:
        if self.min_words < 0 or seconds(self.min_voice) < 0 or seconds(self.word_timeout) < 0:
            msg = "min_voice, min_words and word_timeout must not be negative"
            raise ValueError(msg)
        if not 0.1 <= seconds(self.max_pause) <= 600 or seconds(self.max_pause) <= seconds(self.min_voice):
            msg = f"max_pause {self.max_pause} must be 0.1 s to 10 min, and longer than min_voice {self.min_voice}"
            raise ValueError(msg)


DEFAULT_INTERRUPTS = InterruptRules()
"""Rules of `user_turns` that is given none."""


class TurnVerdict(enum.Enum):
    """Verdict on a turn."""

    OPEN = enum.auto()
    """The user has not said enough yet."""
    ACCEPTED = enum.auto()
    """The turn counts, and the avatar's speech before it is interrupted."""
    REFUSED = enum.auto()
    """The turn was too short: a cough, a click, a word of approval."""


VERDICT_TRANSITIONS: Mapping[TurnVerdict, frozenset[TurnVerdict]] = {
    TurnVerdict.OPEN: frozenset({TurnVerdict.ACCEPTED, TurnVerdict.REFUSED}),
    TurnVerdict.ACCEPTED: frozenset(),
    TurnVerdict.REFUSED: frozenset(),
}
"""Verdicts that may follow each verdict."""


class TurnJudge:
    """Judge of one turn, by its voice and its words.

    Invariant: a verdict is final.
    """

    def __init__(self, rules: TurnRules, interrupts: InterruptRules | None, *, is_cutting_in: bool) -> None:
        """Begin without a verdict.

        Args:
            rules: Rules of all turns.
            interrupts: Rules of turns that cut into the avatar's speech; None treats them as any other.
            is_cutting_in: The avatar was talking when the turn started.
        """
        self._interrupts = interrupts if is_cutting_in else None
        self._min_voice_s = seconds(rules.min_voice)
        if self._interrupts is not None:
            self._min_voice_s = max(self._min_voice_s, seconds(self._interrupts.min_voice))
        self._word_count = 0
        self._voice_s = 0.0
        self._verdict = TurnVerdict.OPEN

    @property
    def verdict(self) -> TurnVerdict:
        """Verdict so far."""
        return self._verdict

    @property
    def cuts_in(self) -> bool:
        """True for a turn that pauses the avatar."""
        return self._interrupts is not None

    @property
    def needs_words(self) -> bool:
        """True while words are missing, which only the program can count."""
        missing = self._interrupts is not None and self._word_count < self._interrupts.min_words
        return self._verdict is TurnVerdict.OPEN and missing

    def hear(self, voice_s: float) -> None:
        """Note the voice of the turn."""
        self._voice_s = max(self._voice_s, voice_s)
        self._judge()

    def count_words(self, count: int) -> None:
        """Note the number of words that were recognized so far; a smaller number than before has no effect."""
        self._word_count = max(self._word_count, count)
        self._judge()

    def refuse(self) -> None:
        """Refuse a turn without a verdict, since there will be no more voice and no more words."""
        if self._verdict is TurnVerdict.OPEN:
            self._enter(TurnVerdict.REFUSED)

    def _judge(self) -> None:
        is_enough = self._voice_s >= self._min_voice_s - 1e-9
        if self._verdict is TurnVerdict.OPEN and is_enough and not self.needs_words:
            self._enter(TurnVerdict.ACCEPTED)

    def _enter(self, verdict: TurnVerdict) -> None:
        if verdict not in VERDICT_TRANSITIONS[self._verdict]:
            msg = f"{self._verdict.name} is not followed by {verdict.name}"
            raise AssertionError(msg)
        self._verdict = verdict


class FloorCommand(enum.Enum):
    """Command to the avatar."""

    PAUSE = enum.auto()
    CONTINUE = enum.auto()
    INTERRUPT = enum.auto()


class Floor:
    """Turns of several users against one avatar: one pause for all who may be cutting in.

    Invariant: the avatar continues only when no turn without a verdict is left that paused it.
    """

    def __init__(self) -> None:
        self._undecided: set[Hashable] = set()

    def cut_in(self, turn: Hashable) -> FloorCommand | None:
        """Note a turn that started while the avatar talked."""
        is_first = not self._undecided
        self._undecided.add(turn)
        return FloorCommand.PAUSE if is_first else None

    def accept(self) -> FloorCommand:
        """Note the verdict on a turn that counts: the interrupt ends the speech that others paused, too."""
        self._undecided.clear()
        return FloorCommand.INTERRUPT

    def refuse(self, turn: Hashable) -> FloorCommand | None:
        """Note the verdict on a turn that does not count."""
        if turn not in self._undecided:
            return None
        self._undecided.discard(turn)
        return None if self._undecided else FloorCommand.CONTINUE
