"""Effective limit of an account."""

import pytest

from liveavatar_gateway.pool.account_limits import (
    FOREIGN_S,
    FREED_WITHIN_S,
    UNLEARN_S,
    AccountLimit,
    AccountState,
)

MAIN = AccountLimit(name="main", limit=5)


def test_without_observations_the_configured_limit_applies():
    assert AccountState(name="main").effective(MAIN, 0.0) == 5


def test_an_account_that_is_paused_or_unusable_grants_nothing():
    assert AccountState(name="main", paused=True).effective(MAIN, 0.0) == 0
    assert AccountState(name="main").effective(AccountLimit(name="main", limit=5, usable=False), 0.0) == 0


def test_a_limit_that_an_operator_set_replaces_the_configured_one():
    assert AccountState(name="main", limit=9).effective(MAIN, 0.0) == 9
    assert AccountState(name="main", limit=0).effective(MAIN, 0.0) == 0


@pytest.mark.parametrize(("running", "expected"), [(3, 3), (1, 1), (0, 1), (9, 5)])
def test_a_refusal_teaches_the_limit_and_leaves_one_session_to_try(running, expected):
    assert AccountState(name="main").learn(running, 100.0).effective(MAIN, 100.0) == expected


def test_a_learned_limit_is_unlearned_one_session_at_a_time():
    state = AccountState(name="main").learn(2, 100.0)
    limits = [state.effective(MAIN, 100.0 + UNLEARN_S * periods) for periods in (0, 0.9, 1, 2, 3, 99)]
    assert limits == [2, 2, 3, 4, 5, 5]


def test_sessions_of_other_programs_reduce_the_limit_while_their_count_is_fresh():
    state = AccountState(name="main").count_foreign(2, 100.0)
    assert [state.effective(MAIN, at_s) for at_s in (100.0, 99.0 + FOREIGN_S, 100.0 + FOREIGN_S)] == [3, 3, 5]
    assert AccountState(name="main").count_foreign(9, 100.0).effective(MAIN, 100.0) == 0


def test_a_recent_end_explains_a_refusal():
    state = AccountState(name="main")
    assert not state.explains_refusal(0.0)
    ended = state.note_end(100.0, was_full=True)
    assert [ended.explains_refusal(at_s) for at_s in (100.0, 99.9 + FREED_WITHIN_S, 100.0 + FREED_WITHIN_S)] == [
        True,
        True,
        False,
    ]
    assert ended.full_until_s == 100.0 + FREED_WITHIN_S
    assert state.note_end(100.0, was_full=False).full_until_s < 0


@pytest.mark.parametrize(("foreign", "expected"), [(0, 3), (2, 3), (3, 2), (6, 0)])
def test_other_programs_sessions_are_not_taken_from_a_learned_limit_again(foreign, expected):
    state = AccountState(name="main").learn(3, 100.0).count_foreign(foreign, 100.0)
    assert state.effective(MAIN, 100.0) == expected
