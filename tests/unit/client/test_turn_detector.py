"""Voice becomes turns: with hysteresis, pre-roll, a trailing silence and a bound; no audio is lost or doubled."""

import struct
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar.gateway import TurnEnd, TurnRules
from liveavatar.gateway.turn_detector import (
    PHASE_TRANSITIONS,
    TurnAudio,
    TurnDetector,
    TurnEnded,
    TurnPhase,
    TurnStarted,
)

RULES = TurnRules(start_voice=0.2, end_silence=0.3, pre_roll=0.2, max_duration=2.0)
"""With windows of 0.1 s: two of voice start, three of silence end, two before belong to it, 20 are the most."""


def window(number: int) -> bytes:
    return struct.pack("<H", number)


class Run:
    """A detector, and what it has said of windows that are numbered."""

    def __init__(self, rules: TurnRules = RULES) -> None:
        self.detector = TurnDetector(rules, window_bytes=2, window_s=0.1)
        self.outputs = []
        self.phases = {self.detector.phase}
        self._number = 0

    def hear(self, *probabilities: float) -> "Run":
        for probability in probabilities:
            before = self.detector.phase
            self.outputs += self.detector.advance(window(self._number), probability)
            self._number += 1
            after = self.detector.phase
            self.phases.add(after)
            # A window may start a turn at once: two steps.
            assert after is before or any(
                after is step or after in PHASE_TRANSITIONS[step] for step in PHASE_TRANSITIONS[before]
            )
        return self

    @property
    def turns(self) -> list[list[int]]:
        """Numbers of the windows of each turn."""
        found: list[list[int]] = []
        for output in self.outputs:
            if isinstance(output, TurnStarted):
                found.append([])
            if isinstance(output, TurnStarted | TurnAudio):
                found[-1] += [number for (number,) in struct.iter_unpack("<H", output.audio)]
        return found

    @property
    def ends(self) -> list[TurnEnd]:
        return [output.reason for output in self.outputs if isinstance(output, TurnEnded)]


def test_a_turn_begins_before_its_voice_and_ends_after_a_silence():
    run = Run().hear(0, 0, 0, 0, 0.9, 0.9, 0.9, 0, 0)
    assert run.turns == [[2, 3, 4, 5, 6, 7, 8]]
    assert run.detector.phase is TurnPhase.TRAILING
    run.hear(0, 0)
    assert run.turns == [[2, 3, 4, 5, 6, 7, 8, 9]]
    assert run.ends == [TurnEnd.SILENCE]
    assert run.detector.phase is TurnPhase.QUIET
    assert run.detector.voice_s == pytest.approx(0.3)


def test_the_start_says_when_the_voice_began():
    (started,) = Run().hear(0, 0, 0.9, 0.1, 0.9).outputs
    assert started.since_voice_s == pytest.approx(0.3)
    assert len(started.audio) == 10


def test_a_click_starts_nothing_and_stays_in_the_pre_roll():
    run = Run().hear(0.9, 0, 0)
    assert (run.outputs, run.detector.phase) == ([], TurnPhase.QUIET)
    assert run.hear(0.9, 0.9).turns == [[1, 2, 3, 4]]


def test_between_both_probabilities_a_turn_continues_and_none_starts():
    run = Run().hear(*[0.4] * 10)
    assert run.outputs == []
    run.hear(0.6, 0.4, *[0.4] * 5)
    assert len(run.turns) == 1
    assert run.ends == []
    assert run.detector.phase is TurnPhase.SPEECH


def test_a_short_silence_does_not_end_a_turn():
    run = Run().hear(0.9, 0.9, 0, 0, 0.9, 0, 0, 0.9)
    assert run.ends == []
    assert run.turns == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_the_longest_turn_ends_and_the_next_begins_where_it_ended():
    run = Run().hear(*[0.9] * 23)
    assert run.ends == [TurnEnd.MAX_DURATION]
    assert run.turns == [list(range(20)), [20, 21, 22]]


def test_time_without_audio_is_silence():
    run = Run().hear(0.9, 0.9)
    run.outputs += run.detector.lapse(0.2)
    assert run.ends == []
    run.outputs += run.detector.lapse(1_000_000.0)
    assert run.ends == [TurnEnd.SILENCE]
    assert run.detector.lapse(1_000_000.0) == []


def test_an_open_turn_ends_with_the_listening():
    run = Run().hear(0.9, 0.9)
    assert run.detector.finish() == [TurnEnded(reason=TurnEnd.LISTENING_ENDED)]
    assert run.detector.finish() == []


def test_a_start_may_need_a_single_window_and_no_pre_roll():
    run = Run(TurnRules(start_voice=0.01, pre_roll=0)).hear(0, 0.9)
    assert run.turns == [[1]]


@given(st.lists(st.sampled_from([0.0, 0.4, 0.9]), max_size=200))
def test_turns_are_whole_and_in_order_whatever_is_heard(probabilities):
    run = Run().hear(*probabilities)
    heard = [number for turn in run.turns for number in turn]
    assert heard == sorted(set(heard))
    for turn in run.turns:
        assert turn == list(range(turn[0], turn[0] + len(turn)))
        assert len(turn) <= 20
    assert len(run.ends) == len(run.turns) - run.detector.is_open
    assert run.phases <= set(TurnPhase)


@pytest.mark.parametrize(
    "values",
    [
        {"start_probability": 1.1},
        {"continue_probability": -0.1},
        {"start_probability": 0.3, "continue_probability": 0.4},
        {"pre_roll": -0.1},
        {"start_voice": 0},
        {"min_voice": 0},
        {"end_silence": timedelta()},
        {"max_duration": -1.0},
    ],
)
def test_rules_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=r"must|between"):
        TurnRules(**values)


def test_each_phase_can_be_reached_and_left():
    assert set(PHASE_TRANSITIONS) == set(TurnPhase)
    assert all(PHASE_TRANSITIONS.values())


def test_a_step_that_the_table_lacks_is_a_bug():
    with pytest.raises(AssertionError, match="QUIET is not followed by TRAILING"):
        Run().detector._enter(TurnPhase.TRAILING)
