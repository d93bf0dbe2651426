"""The life of a session: every move the table has, none that it has not."""

import itertools

import pytest

from liveavatar_gateway.core.states import (
    TRANSITIONS,
    EndReason,
    IllegalTransition,
    SessionState,
    end_reason_of,
    move,
)

_ALLOWED = {
    (SessionState.CREATING, SessionState.CONNECTING),
    (SessionState.CREATING, SessionState.ENDING),
    (SessionState.CONNECTING, SessionState.READY),
    (SessionState.CONNECTING, SessionState.RECONNECTING),
    (SessionState.CONNECTING, SessionState.ENDING),
    (SessionState.READY, SessionState.RECONNECTING),
    (SessionState.READY, SessionState.ENDING),
    (SessionState.RECONNECTING, SessionState.READY),
    (SessionState.RECONNECTING, SessionState.ENDING),
    (SessionState.ENDING, SessionState.ENDED),
}
_ALL = list(itertools.product(SessionState, SessionState))


@pytest.mark.parametrize(("current", "following"), [pair for pair in _ALL if pair in _ALLOWED])
def test_an_allowed_move_is_made(current, following):
    assert move(current, following) is following


@pytest.mark.parametrize(("current", "following"), [pair for pair in _ALL if pair not in _ALLOWED])
def test_any_other_move_is_a_bug_that_names_both_states(current, following):
    with pytest.raises(IllegalTransition, match=f"^{current.name} -> {following.name}$"):
        move(current, following)


def test_the_table_has_a_row_for_every_state():
    assert set(TRANSITIONS) == set(SessionState)


def test_every_state_leads_to_the_end():
    """No state can trap a paid session."""
    for state in SessionState:
        reached, front = {state}, [state]
        while front:
            following = TRANSITIONS[front.pop()] - reached
            reached |= following
            front += following
        assert SessionState.ENDED in reached


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("IDLE_TIMEOUT", EndReason.IDLE),
        ("MAX_DURATION_REACHED", EndReason.MAX_DURATION),
        ("NO_CREDITS", EndReason.OUT_OF_CREDITS),
        ("ZOMBIE_SESSION_REAP", EndReason.UPSTREAM_ENDED),
        ("SOMETHING_NEW", EndReason.UPSTREAM_ENDED),
        ("", EndReason.UPSTREAM_FAILED),
    ],
)
def test_words_of_liveavatar_become_one_closed_list_of_reasons(said, reason):
    assert end_reason_of(said) is reason
