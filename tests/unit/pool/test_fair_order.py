"""Virtual time of tenants: what a permit costs, and where a tenant begins to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_gateway.pool.fair_order import (
    EQUAL_SHARES,
    MAX_CHARGE_S,
    MIN_CHARGE_S,
    Shares,
    TenantShare,
    TenantTime,
    entry_time,
)

TIMES = st.floats(0, 1e6)


def test_a_permit_costs_its_duration_divided_by_the_weight():
    time = TenantTime(tenant="t")
    assert time.ended(30.0, 1.0).settled == 30.0
    assert time.ended(30.0, 3.0).settled == 10.0


@pytest.mark.parametrize("held_s", [0.0, 0.01, MIN_CHARGE_S])
def test_a_permit_that_is_held_for_a_moment_costs_something(held_s):
    assert TenantTime(tenant="t").ended(held_s, 1.0).settled == MIN_CHARGE_S


def test_the_expected_duration_follows_the_real_one():
    time = TenantTime(tenant="t")
    for _ in range(60):
        time = time.ended(5.0, 1.0)
    assert time.charge_s == pytest.approx(5.0, abs=0.2)


@given(st.floats(0, 1e9))
def test_a_charge_is_bounded(duration_s):
    assert MIN_CHARGE_S <= TenantTime(tenant="t", duration_s=duration_s).charge_s <= MAX_CHARGE_S


@given(settled=TIMES, reference=TIMES, leeway=TIMES)
def test_a_tenant_begins_no_earlier_than_those_who_wait_and_not_much_later(settled, reference, leeway):
    begun = entry_time(settled, reference, leeway)
    assert reference <= begun <= reference + leeway
    if reference <= settled <= reference + leeway:
        assert begun == settled


def test_a_tenant_that_the_settings_do_not_mention_has_the_default_share():
    shares = Shares(by_tenant={"a": TenantShare(weight=3.0)}, default=TenantShare(weight=0.5))
    assert (shares.of("a").weight, shares.of("b").weight, EQUAL_SHARES.of("a").weight) == (3.0, 0.5, 1.0)
