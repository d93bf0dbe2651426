"""A cough pauses the avatar and no more; a sentence interrupts it."""

import itertools

import pytest

from liveavatar.gateway import InterruptRules, TurnRules, TurnVerdict
from liveavatar.gateway.turn_interrupts import VERDICT_TRANSITIONS, Floor, FloorCommand, TurnJudge

RULES = TurnRules(min_voice=0.2)


def judge(interrupts: InterruptRules | None = None, *, is_cutting_in: bool = False) -> TurnJudge:
    return TurnJudge(RULES, interrupts, is_cutting_in=is_cutting_in)


def test_a_turn_in_silence_counts_after_little_voice():
    found = judge(InterruptRules())
    assert not found.cuts_in
    found.hear(0.15)
    assert found.verdict is TurnVerdict.OPEN
    found.hear(0.2)
    assert found.verdict is TurnVerdict.ACCEPTED


def test_a_turn_that_cuts_in_needs_more_voice():
    found = judge(InterruptRules(min_voice=0.5), is_cutting_in=True)
    assert found.cuts_in
    found.hear(0.4)
    assert found.verdict is TurnVerdict.OPEN
    found.hear(0.5)
    assert found.verdict is TurnVerdict.ACCEPTED


def test_without_rules_a_turn_that_cuts_in_is_any_other():
    found = judge(is_cutting_in=True)
    assert not found.cuts_in
    found.hear(0.2)
    assert found.verdict is TurnVerdict.ACCEPTED


def test_the_voice_of_any_turn_is_needed_by_one_that_cuts_in_too():
    found = judge(InterruptRules(min_voice=0), is_cutting_in=True)
    found.hear(0.1)
    assert found.verdict is TurnVerdict.OPEN


@pytest.mark.parametrize("order", list(itertools.permutations(["voice", "words", "fewer words"])))
def test_words_are_needed_beside_voice_in_any_order(order):
    found = judge(InterruptRules(min_words=2), is_cutting_in=True)
    assert found.needs_words
    for step in order:
        assert found.verdict is TurnVerdict.OPEN or step == "fewer words"
        if step == "voice":
            found.hear(1.0)
        else:
            found.count_words(2 if step == "words" else 1)
    assert found.verdict is TurnVerdict.ACCEPTED
    assert not found.needs_words


def test_a_verdict_is_final():
    refused = judge()
    refused.refuse()
    refused.hear(10.0)
    assert refused.verdict is TurnVerdict.REFUSED
    accepted = judge()
    accepted.hear(10.0)
    accepted.refuse()
    assert accepted.verdict is TurnVerdict.ACCEPTED
    assert set(VERDICT_TRANSITIONS) == set(TurnVerdict)
    with pytest.raises(AssertionError, match="ACCEPTED is not followed by REFUSED"):
        accepted._enter(TurnVerdict.REFUSED)


@pytest.mark.parametrize(
    "values",
    [
        {"min_voice": -0.1},
        {"min_words": -1},
        {"word_timeout": -1},
        {"max_pause": 0.5},
        {"max_pause": 601},
        {"max_pause": 0.05, "min_voice": 0},
        {"min_voice": 20},
    ],
)
def test_rules_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match="must"):
        InterruptRules(**values)


class TestFloor:
    def test_one_cough_pauses_and_continues(self):
        floor = Floor()
        assert floor.cut_in("ann") is FloorCommand.PAUSE
        assert floor.refuse("ann") is FloorCommand.CONTINUE
        assert floor.refuse("ann") is None

    def test_the_avatar_waits_for_all_who_may_be_cutting_in(self):
        floor = Floor()
        assert floor.cut_in("ann") is FloorCommand.PAUSE
        assert floor.cut_in("bob") is None
        assert floor.refuse("ann") is None
        assert floor.refuse("bob") is FloorCommand.CONTINUE

    def test_an_interrupt_ends_the_pause_for_all(self):
        floor = Floor()
        floor.cut_in("ann")
        floor.cut_in("bob")
        assert floor.accept() is FloorCommand.INTERRUPT
        assert floor.refuse("bob") is None
        assert floor.cut_in("cy") is FloorCommand.PAUSE
