"""Health of an account: its troubles, their ends, and the order of accounts."""

import pytest

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    InvalidField,
    UpstreamCreditsExhausted,
    UpstreamPlanRequired,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnauthenticated,
    UpstreamUnreachable,
)
from liveavatar_gateway.pool.account_health import (
    AccountHealth,
    AccountState,
    Candidate,
    HealthConfig,
    RateBudget,
    Trouble,
    may_differ_elsewhere,
    order_of,
)
from liveavatar_gateway.pool.breaker import BreakerConfig

CONFIG = HealthConfig(breaker=BreakerConfig(failures=2, interval_s=5.0), starts_per_s=2.0, credits_retry_s=60.0)
FULL = CapacityExhausted("full", scope="upstream_account", retry_after_s=1.0)


def make() -> AccountHealth:
    return AccountHealth(CONFIG)


@pytest.mark.parametrize(
    ("state", "trouble"), [(AccountState.PAUSED, Trouble.PAUSED), (AccountState.RETIRED, Trouble.RETIRED)]
)
def test_an_operator_decides_first(state, trouble):
    health = AccountHealth(CONFIG, state)
    health.refuse_key(UpstreamUnauthenticated("no"))
    assert (health.trouble(0.0), health.retry_in_s(0.0)) == (trouble, None)


def test_a_refused_key_is_not_used_again_until_it_changes():
    health = make()
    health.refuse_key(UpstreamUnauthenticated("no"))
    assert health.trouble(1e9) is Trouble.KEY_REFUSED
    health.renew_key()
    assert health.trouble(1e9) is None


def test_a_single_refusal_of_a_key_may_be_a_mistake():
    health = make()
    health.fail(UpstreamUnauthenticated("no"), 0.0)
    assert health.trouble(0.0) is None
    health.fail(UpstreamUnauthenticated("no"), 0.0)
    assert health.trouble(0.0) is Trouble.BREAKER_OPEN


def test_credits_are_missed_until_some_are_seen_and_sandbox_sessions_need_none():
    health = make()
    health.fail(UpstreamCreditsExhausted("no"), 0.0)
    assert (health.trouble(1.0), health.trouble(1.0, sandbox=True)) == (Trouble.NO_CREDITS, None)
    assert health.seems_poor()
    health.note_credits(0.0, 59.0)
    assert health.trouble(100.0) is Trouble.NO_CREDITS
    health.note_credits(5.0, 101.0)
    assert health.trouble(101.0) is None
    assert not health.seems_poor()


def test_a_balance_that_cannot_be_read_is_tried_by_a_start_after_a_while():
    health = make()
    health.fail(UpstreamCreditsExhausted("no"), 0.0)
    health.note_credits(None, 1.0)
    assert health.trouble(61.0) is None


def test_an_empty_balance_alone_refuses_nothing_since_there_may_be_overage():
    health = make()
    health.note_credits(0.0, 0.0)
    assert health.trouble(0.0) is None
    assert health.seems_poor()


def test_failures_open_the_breaker_and_refusals_of_a_request_close_it():
    health = make()
    for error in (UpstreamUnreachable("down"), UpstreamTimeout("late")):
        health.fail(error, 0.0)
    assert (health.trouble(1.0), health.retry_in_s(1.0)) == (Trouble.BREAKER_OPEN, 4.0)
    health.begin_start(5.0)
    health.fail(UpstreamRejected("no such avatar"), 5.1)
    assert health.trouble(5.1) is None


def test_a_rate_limit_lasts_as_long_as_liveavatar_says_but_not_for_ever():
    health = make()
    health.fail(UpstreamRateLimited("slowly", retry_after_s=3.0), 10.0)
    assert (health.trouble(12.9), health.retry_in_s(11.0)) == (Trouble.RATE_LIMITED, 2.0)
    assert health.trouble(13.0) is None
    health.fail(UpstreamRateLimited("slowly", retry_after_s=1e9), 20.0)
    assert health.trouble(80.0) is None


def test_a_budget_is_used_up_by_starts_until_the_next_window():
    health = make()
    health.note_budget(RateBudget(limit=10, remaining=1, reset_s=1.0), 10.0)
    assert health.trouble(10.0) is None
    health.begin_start(10.0)
    assert health.trouble(10.5) is Trouble.RATE_LIMITED
    assert health.trouble(11.0) is None


def test_starts_per_second_are_bounded():
    health, now_s, starts = make(), 100.0, []
    while now_s < 110.0:
        if health.trouble(now_s) is None:
            health.begin_start(now_s)
            starts.append(now_s)
        now_s += 0.01
    for begin_s in starts:
        assert sum(begin_s <= one < begin_s + 1 for one in starts) <= 2 * CONFIG.starts_per_s
    assert len(starts) <= CONFIG.starts_per_s * 11


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UpstreamUnreachable("x"), True),
        (UpstreamUnauthenticated("x"), True),
        (UpstreamPlanRequired("x"), True),
        (FULL, True),
        (InvalidField("x", field="y"), False),
    ],
)
def test_another_account_may_help_where_accounts_differ(error, expected):
    assert may_differ_elsewhere(error) is expected


def test_accounts_are_ordered_by_health_then_cost_then_free_capacity():
    found = order_of(
        [
            Candidate(name="poor", cost=0.0, free_share=1.0, is_poor=True),
            Candidate(name="doubtful", cost=0.0, free_share=1.0, is_doubtful=True),
            Candidate(name="dear", cost=2.0, free_share=1.0),
            Candidate(name="busy", cost=1.0, free_share=0.1),
            Candidate(name="free", cost=1.0, free_share=0.9),
        ]
    )
    assert found == ["free", "busy", "dear", "doubtful", "poor"]
