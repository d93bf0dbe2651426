"""Start and end of a user's speech by probabilities of voice: pure, no model, no clock, no I/O."""

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

from liveavatar.gateway.model import as_timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRules:
    """Rules for the start and the end of a user's turn. Numbers of durations count seconds.

    Raises:
        ValueError: a value is outside its range.
    """

    start_probability: float = 0.5
    """Probability of voice from which a turn may start, 0 to 1. Higher: less noise, and later starts."""
    continue_probability: float = 0.35
    """Probability below which a started turn is silent; at most `start_probability`, or turns would flicker."""
    start_voice: timedelta | float = 0.06
    """Voice that starts a turn. It is the delay of the detector; lower reacts to clicks."""
    min_voice: timedelta | float = 0.2
    """Voice of the shortest turn. A shorter turn is dropped; what cuts into the avatar's speech may need more."""
    end_silence: timedelta | float = 0.6
    """Silence that ends a turn. Lower answers sooner, and cuts users who think while they speak."""
    pre_roll: timedelta | float = 0.3
    """Audio before the first voice that belongs to the turn, since words begin softly."""
    max_duration: timedelta | float = 60.0
    """Longest turn. Whoever speaks on begins another turn."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.continue_probability <= self.start_probability <= 1.0:
            msg = (
                f"continue_probability {self.continue_probability} and start_probability {self.start_probability} "
                "must be between 0 and 1, the first no higher than the second"
            )
            raise ValueError(msg)
        if seconds(self.pre_roll) < 0:
            msg = f"pre_roll {self.pre_roll} must not be negative"
            raise ValueError(msg)
        for name in ("start_voice", "min_voice", "end_silence", "max_duration"):
            if seconds(getattr(self, name)) <= 0:
                msg = f"{name} {getattr(self, name)} must be longer than 0"
                raise ValueError(msg)


def seconds(duration: timedelta | float) -> float:
    """Return a duration in seconds."""
    return as_timedelta(duration).total_seconds()


class TurnPhase(enum.Enum):
    """Progress of a user's speech."""

    QUIET = enum.auto()
    """No voice."""
    ONSET = enum.auto()
    """Voice, but not yet `start_voice` of it."""
    SPEECH = enum.auto()
    """Turn with voice."""
    TRAILING = enum.auto()
    """Turn with a silence shorter than `end_silence`."""


PHASE_TRANSITIONS: Mapping[TurnPhase, frozenset[TurnPhase]] = {
    TurnPhase.QUIET: frozenset({TurnPhase.ONSET}),
    TurnPhase.ONSET: frozenset({TurnPhase.QUIET, TurnPhase.SPEECH}),
    TurnPhase.SPEECH: frozenset({TurnPhase.QUIET, TurnPhase.TRAILING}),
    TurnPhase.TRAILING: frozenset({TurnPhase.QUIET, TurnPhase.SPEECH}),
}
"""Phases that may follow each phase."""


class TurnEnd(enum.StrEnum):
    """Reason for the end of a turn."""

    SILENCE = "silence"
    """The user was silent for `end_silence`, or sent no audio."""
    MAX_DURATION = "max_duration"
    """The turn reached `max_duration`; the user may have spoken on."""
    LISTENING_ENDED = "listening_ended"
    """The session ended, or the program stopped listening."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted:
    """Start of a turn."""

    audio: bytes = field(repr=False)
    """Pre-roll and voice so far."""
    since_voice_s: float
    """Time from the first voice to the end of `audio`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAudio:
    """Next audio of the turn."""

    audio: bytes = field(repr=False)
    """Samples of one window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnded:
    """End of the turn."""

    reason: TurnEnd
    """Reason for the end."""


TurnOutput: TypeAlias = TurnStarted | TurnAudio | TurnEnded


class TurnDetector:
    """State machine of one user: windows of audio with their probability of voice become turns.

    Invariant: the audio of a turn is contiguous, no window belongs to two turns, and at most `pre_roll` and a
    start are kept outside a turn.
    """

    def __init__(self, rules: TurnRules, *, window_bytes: int, window_s: float) -> None:
        """Begin in silence.

        Args:
            rules: Rules for start and end.
            window_bytes: Size of a window.
            window_s: Duration of a window.
        """
        self._rules = rules
        self._silence = bytes(window_bytes)
        self._window_s = window_s
        self._phase = TurnPhase.QUIET
        # Whole windows, so that sums of many short durations cannot drift.
        self._start_windows = self._windows(rules.start_voice)
        self._end_windows = self._windows(rules.end_silence)
        self._max_windows = self._windows(rules.max_duration)
        self._pre_roll_windows = self._windows(rules.pre_roll, least=0)
        self._held: deque[bytes] = deque()
        self._onset_windows = 0
        self._voice_windows = 0
        self._silent_windows = 0
        self._turn_windows = 0

    @property
    def phase(self) -> TurnPhase:
        """Present phase."""
        return self._phase

    @property
    def is_open(self) -> bool:
        """True within a turn."""
        return self._phase in (TurnPhase.SPEECH, TurnPhase.TRAILING)

    @property
    def voice_s(self) -> float:
        """Voice of the turn, without its silences."""
        return self._voice_windows * self._window_s

    def advance(self, window: bytes, probability: float) -> list[TurnOutput]:
        """Take the next window and return its effects."""
        rules = self._rules
        has_started = self._phase is not TurnPhase.QUIET
        is_voice = probability >= (rules.continue_probability if has_started else rules.start_probability)
        return self._advance_turn(window, is_voice=is_voice) if self.is_open else self._wait(window, is_voice)

    def lapse(self, lapse_s: float) -> list[TurnOutput]:
        """Take time without audio as silence, until the end of the turn."""
        outputs: list[TurnOutput] = []
        for _ in range(min(round(lapse_s / self._window_s), self._end_windows + self._start_windows)):
            outputs += self.advance(self._silence, 0.0)
        return outputs

    def finish(self) -> list[TurnOutput]:
        """End an open turn, since there will be no more audio."""
        return [self._end(TurnEnd.LISTENING_ENDED)] if self.is_open else []

    def _wait(self, window: bytes, is_voice: bool) -> list[TurnOutput]:  # noqa: FBT001  one of two
        """Take a window outside a turn."""
        self._held.append(window)
        if self._phase is TurnPhase.QUIET:
            if not is_voice:
                self._trim()
                return []
            self._enter(TurnPhase.ONSET)
            self._onset_windows = self._voice_windows = self._silent_windows = 0
        self._onset_windows += 1
        if is_voice:
            self._voice_windows += 1
            self._silent_windows = 0
        else:
            self._silent_windows += 1
        if self._voice_windows >= self._start_windows:
            return [self._start()]
        if self._silent_windows >= self._start_windows:
            self._enter(TurnPhase.QUIET)
            self._trim()
        return []

    def _trim(self) -> None:
        """Keep the pre-roll alone."""
        while len(self._held) > self._pre_roll_windows:
            self._held.popleft()

    def _start(self) -> TurnStarted:
        self._enter(TurnPhase.SPEECH)
        audio = b"".join(self._held)
        self._turn_windows = len(self._held)
        self._held.clear()
        return TurnStarted(audio=audio, since_voice_s=self._onset_windows * self._window_s)

    def _advance_turn(self, window: bytes, *, is_voice: bool) -> list[TurnOutput]:
        outputs: list[TurnOutput] = [TurnAudio(audio=window)]
        self._turn_windows += 1
        if is_voice:
            self._voice_windows += 1
            self._silent_windows = 0
            if self._phase is TurnPhase.TRAILING:
                self._enter(TurnPhase.SPEECH)
        else:
            self._silent_windows += 1
            if self._phase is TurnPhase.SPEECH:
                self._enter(TurnPhase.TRAILING)
        if self._silent_windows >= self._end_windows:
            outputs.append(self._end(TurnEnd.SILENCE))
        elif self._turn_windows >= self._max_windows:
            outputs.append(self._end(TurnEnd.MAX_DURATION))
        return outputs

    def _end(self, reason: TurnEnd) -> TurnEnded:
        self._enter(TurnPhase.QUIET)
        return TurnEnded(reason=reason)

    def _enter(self, phase: TurnPhase) -> None:
        if phase not in PHASE_TRANSITIONS[self._phase]:
            msg = f"{self._phase.name} is not followed by {phase.name}"
            raise AssertionError(msg)
        self._phase = phase

    def _windows(self, duration: timedelta | float, *, least: int = 1) -> int:
        return max(round(seconds(duration) / self._window_s), least)
