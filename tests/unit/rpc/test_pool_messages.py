"""Messages about the pool: absent values are unset, and every state has a value in the contract."""

import pytest

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar_gateway.pool.account_health import RateBudget
from liveavatar_gateway.pool.breaker import BreakerState
from liveavatar_gateway.pool.fair_order import TenantShare
from liveavatar_gateway.pool.overview import (
    AccountStatus,
    AccountUse,
    PoolOverview,
    PoolStatus,
    TenantUse,
    WarmUse,
)
from liveavatar_gateway.rpc.pool_messages import account_message, pool_message, reload_message
from liveavatar_gateway.upstream.operations import PoolReload


def account(**changes: object) -> AccountStatus:
    values = {
        "name": "main",
        "state": "active",
        "use": AccountUse(name="id", limit=4, allowed=4),
        "configured_limit": 5,
        "trouble": "",
        "retry_in_s": None,
        "breaker": BreakerState.CLOSED,
        "last_error": "",
        "credits": None,
        "budget": None,
        "cost": 1.0,
    }
    return AccountStatus(**{**values, **changes})


def test_values_that_are_unknown_are_unset():
    message = account_message(account())
    unset = ("drain_left", "set_limit", "learned_limit", "retry_in", "credits", "rate_limit", "rate_remaining")
    assert not any(message.HasField(field) for field in unset)
    assert (message.name, message.configured_limit, message.effective_limit) == ("main", 5, 4)


def test_values_that_are_known_are_set():
    use = AccountUse(
        name="id", limit=1, allowed=2, set_limit=9, learned=2, foreign=1, held=3, draining=True, drain_left_s=1.5
    )
    budget = RateBudget(limit=60, remaining=0, reset_s=10)
    message = account_message(account(use=use, credits=0.0, budget=budget, trouble="rate_limited", retry_in_s=2.5))
    assert (message.set_limit, message.learned_limit, message.held_count) == (9, 2, 3)
    assert message.drain_left.ToTimedelta().total_seconds() == 1.5
    assert message.HasField("credits")
    assert (message.rate_limit, message.HasField("rate_remaining"), message.rate_remaining) == (60, True, 0)
    assert (message.set_aside, message.retry_in.ToTimedelta().total_seconds()) == ("rate_limited", 2.5)


@pytest.mark.parametrize("state", ["active", "paused", "draining", "retired"])
def test_each_state_has_a_value(state):
    assert p.AccountState.Name(account_message(account(state=state)).state).lower() == f"account_state_{state}"


@pytest.mark.parametrize("breaker", BreakerState)
def test_each_state_of_a_breaker_has_a_value(breaker):
    name = p.BreakerState.Name(account_message(account(breaker=breaker)).breaker)
    assert name.lower() == f"breaker_state_{breaker.value}"


def test_the_pool_has_accounts_tenants_and_warm_sessions():
    overview = PoolOverview(
        tenants=[
            TenantUse(
                name="acme", share=TenantShare(weight=3.0, floor=1, ceiling=4), waiting=2, longest_wait_s=7.5
            ),
            TenantUse(name="", share=TenantShare(), used=1),
        ],
        warm=[WarmUse(profile="desk", account="main", warm=2, reserved=1)],
        waiting=2,
        other_tenants=3,
        blocked_s=1.0,
    )
    message = pool_message(PoolStatus(accounts=[account()], overview=overview), owner="me")
    acme, anonymous = message.tenants
    assert (acme.weight, acme.reserved, acme.ceiling, acme.waiting_count) == (3.0, 1, 4, 2)
    assert acme.longest_wait.ToTimedelta().total_seconds() == 7.5
    assert not anonymous.HasField("ceiling")
    assert not anonymous.HasField("longest_wait")
    assert (message.warm[0].warm_count, message.warm[0].reserved_count) == (2, 1)
    assert (message.waiting_count, message.other_tenant_count, message.owner) == (2, 3, "me")
    assert message.blocked_for.seconds == 1


def test_a_reload_names_what_changed_failed_and_is_tried_again():
    message = reload_message(PoolReload(changed=["a"], failed=["b: no"], retried=["c"]))
    assert (list(message.changed), list(message.failed), list(message.retried_accounts)) == (
        ["a"],
        ["b: no"],
        ["c"],
    )
