"""Pause between the end of a session and the next start, learned from LiveAvatar's answers."""

import pytest

from liveavatar_gateway.upstream.settling import Settling


def test_the_pause_after_a_refusal_grows_up_to_some_seconds():
    settling, waited_s, steps = Settling(0.2), 0.2, []
    for _ in range(9):
        steps.append(settling.refused(waited_s))
        waited_s += steps[-1]
    assert steps == pytest.approx([0.25, 0.25, 0.35, 0.525, 0.79, 1.18, 1.77, 2.66, 3.99], abs=0.01)
    assert settling.pause_s == 8.0


@pytest.mark.parametrize("frees_after_s", [0.3, 1.7, 3.0, 5.5])
def test_the_pause_is_learnt_and_then_costs_hardly_a_refusal(frees_after_s):
    settling, now_s = Settling(0.2), 0.0
    refusals, waits = [], []
    for _ in range(60):
        count, waited_s = 0, settling.pause_s
        while waited_s < frees_after_s:
            count += 1
            waited_s += settling.refused(waited_s)
        now_s += waited_s + 10
        settling.accepted(waited_s, had_refusals=count > 0, now_s=now_s)
        refusals.append(count)
        waits.append(waited_s)
    assert sum(refusals[10:]) <= 10, "once learnt, a refusal is rare"
    assert max(waits[10:]) <= 1.6 * frees_after_s + 0.25
    assert sum(waits[10:]) / 50 <= 1.3 * frees_after_s + 0.1


def test_a_pause_that_is_not_needed_any_more_is_forgotten():
    settling, now_s = Settling(0.5), 0.0
    settling.refused(4.0)
    settling.accepted(6.0, had_refusals=True, now_s=now_s)
    assert settling.pause_s == 6.0
    for _ in range(300):
        now_s += 10
        settling.accepted(settling.pause_s, had_refusals=False, now_s=now_s)
    assert settling.pause_s == 0.5


def test_many_starts_at_once_shrink_the_pause_once():
    settling = Settling(0.5)
    settling.accepted(4.0, had_refusals=True, now_s=0.0)
    for _ in range(50):
        settling.accepted(4.0, had_refusals=False, now_s=1.0)
    assert settling.pause_s == pytest.approx(3.6)


def test_a_pause_that_is_set_longer_than_any_that_is_learnt_stays():
    settling = Settling(30.0)
    settling.refused(30.0)
    settling.accepted(34.0, had_refusals=True, now_s=0.0)
    assert settling.pause_s == 30.0
