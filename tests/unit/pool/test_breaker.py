"""Circuit breaker of an account."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_gateway.pool.breaker import TRANSITIONS, Breaker, BreakerConfig, BreakerState

CONFIG = BreakerConfig(failures=3, interval_s=5.0)


def opened(at_s: float = 0.0) -> Breaker:
    breaker = Breaker(CONFIG)
    for _ in range(CONFIG.failures):
        breaker.fail(at_s)
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not():
    breaker = Breaker(CONFIG)
    for _ in range(2):
        breaker.fail(0.0)
        breaker.fail(0.0)
        breaker.succeed()
    assert breaker.state is BreakerState.CLOSED
    assert opened().state is BreakerState.OPEN


def test_one_start_is_on_trial_after_the_interval():
    breaker = opened()
    assert (breaker.may_start(4.9), breaker.retry_in_s(4.0)) == (False, 1.0)
    assert breaker.may_start(5.0)
    breaker.begin(5.0)
    assert not breaker.may_start(5.1), "the trial is under way"


@pytest.mark.parametrize("succeeds", [True, False])
def test_the_trial_decides(succeeds):
    breaker = opened()
    breaker.begin(5.0)
    if succeeds:
        breaker.succeed()
    else:
        breaker.fail(6.0)
    assert breaker.state is (BreakerState.CLOSED if succeeds else BreakerState.OPEN)
    assert breaker.retry_in_s(6.0) == (0.0 if succeeds else 5.0)


def test_a_trial_that_proved_nothing_leaves_room_for_another():
    breaker = opened()
    breaker.begin(5.0)
    breaker.abandon(6.0)
    assert breaker.may_start(6.0)


def test_a_trial_without_a_result_does_not_close_the_account_for_good():
    breaker = opened()
    breaker.begin(5.0)
    assert breaker.may_start(10.0)


def test_late_failures_of_earlier_starts_do_not_delay_the_trial():
    breaker = opened()
    breaker.fail(4.0)
    assert breaker.may_start(5.0)


events = st.lists(
    st.tuples(st.sampled_from(["begin", "abandon", "succeed", "fail"]), st.floats(0, 20)), max_size=60
)


@given(events)
def test_only_transitions_of_the_table_happen_and_trials_are_rare(steps):
    breaker, now_s, trials = Breaker(CONFIG), 0.0, []
    for act, wait_s in steps:
        now_s += wait_s
        before = breaker.state
        match act:
            case "begin" if breaker.may_start(now_s):
                if before is not BreakerState.CLOSED:
                    trials.append(now_s)
                breaker.begin(now_s)
            case "abandon":
                breaker.abandon(now_s)
                trials.clear()
            case "succeed":
                breaker.succeed()
                trials.clear()
            case "fail":
                breaker.fail(now_s)
        assert breaker.state is before or breaker.state in TRANSITIONS[before]
        assert all(later - earlier >= CONFIG.interval_s for earlier, later in itertools.pairwise(trials))
