"""Simulator of the pool: hand-computed queues, and properties of any trace."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.durations import Durations
from liveavatar_gateway.pool.fair_order import Shares, TenantShare
from liveavatar_gateway.pool.simulation_result import Refusal
from liveavatar_gateway.pool.simulator import SimulatedProfile, SimulationConfig, Simulator
from liveavatar_gateway.pool.trace import Arrival
from liveavatar_gateway.pool.warm_policy import WarmMode, WarmProfile

ONE = SimulationConfig(
    accounts=(AccountLimit(name="main", limit=1),),
    opening=Durations.parse("2"),
    release=Durations.parse("1"),
    wait_s=1000.0,
)


def accounts(*limits):
    return tuple(AccountLimit(name=f"a{number}", limit=limit) for number, limit in enumerate(limits))


def callers(*times_s, tenant="acme", duration_s=10.0, max_wait_s=None):
    return [
        Arrival(at_s=float(at_s), tenant=tenant, duration_s=duration_s, max_wait_s=max_wait_s) for at_s in times_s
    ]


def run(config, arrivals):
    return Simulator(config, sorted(arrivals, key=lambda arrival: arrival.at_s)).run()


def test_one_slot_serves_callers_one_after_the_other():
    """Each caller holds the slot for 2 s of opening, 10 s of use and 1 s of release."""
    result = run(ONE, callers(0, 1, 2))
    acme = result.tenants["acme"]
    assert acme.waits_s == pytest.approx([0, 12, 24])
    assert acme.openings_s == pytest.approx([2, 14, 26])
    assert acme.slot_s == pytest.approx(36)
    assert acme.credits == pytest.approx(3)
    assert result.seconds == pytest.approx(38)


def test_two_accounts_serve_two_at_once():
    result = run(replace(ONE, accounts=accounts(1, 1)), callers(0, 0, 0))
    assert result.tenants["acme"].waits_s == pytest.approx([0, 0, 13])


def test_an_account_serves_its_tenants_alone():
    config = replace(ONE, accounts=accounts(1, 1), tenants_of={"a1": frozenset({"zoo"})})
    result = run(config, [*callers(0, 0), *callers(0, tenant="zoo")])
    assert result.tenants["acme"].waits_s == pytest.approx([0, 13])
    assert result.tenants["zoo"].waits_s == pytest.approx([0])


def test_refuses_at_the_deadline_and_beyond_the_queue():
    bounded = replace(ONE, max_waiting=1)
    result = run(bounded, callers(0) + callers(1, max_wait_s=5) + callers(2) + callers(7, max_wait_s=0))
    assert result.tenants["acme"].served == 1
    assert result.tenants["acme"].refused == {Refusal.DEADLINE: 2, Refusal.QUEUE_FULL: 1}


def test_a_caller_that_does_not_wait_is_served_if_a_permit_is_free():
    assert run(ONE, callers(0, max_wait_s=0)).tenants["acme"].served == 1


def test_weights_divide_the_slots_while_both_wait():
    shares = Shares(by_tenant={"a": TenantShare(weight=1), "b": TenantShare(weight=3)})
    config = replace(ONE, accounts=accounts(4), shares=shares, wait_s=300.0, max_waiting=10_000)
    arrivals = [*callers(*[0] * 400, tenant="a"), *callers(*[0] * 400, tenant="b")]
    result = run(config, arrivals)
    a, b = result.tenants["a"], result.tenants["b"]
    assert b.slot_s / (a.slot_s + b.slot_s) == pytest.approx(0.75, abs=0.03)


class TestWarm:
    """Warm sessions."""

    profile = WarmProfile(name="front-desk", minimum=1, maximum=2)
    config = replace(ONE, accounts=accounts(5), profiles=(SimulatedProfile(profile=profile),))

    def test_a_caller_takes_a_ready_session_at_once(self):
        result = run(self.config, callers(0, 10, 30))
        assert result.tenants["acme"].served_warm == 2
        assert result.tenants["acme"].openings_s == pytest.approx([2, 0, 0])
        warm = result.warm["front-desk"]
        assert (warm.taken, warm.most) == (2, 1)

    def test_another_tenant_takes_none_and_gets_the_permit(self):
        only = SimulatedProfile(profile=self.profile, tenants=frozenset({"zoo"}))
        config = replace(self.config, accounts=accounts(1), profiles=(only,))
        result = run(config, callers(100))
        assert result.tenants["acme"].served_warm == 0
        # The session is retired for the caller, within a step and the time of a release.
        late = run(config, [*callers(0, duration_s=1), *callers(100)])
        assert late.tenants["acme"].served == 2
        assert late.tenants["acme"].waits_s[1] <= 3.0

    def test_a_caller_that_waits_gets_the_permit_of_a_warm_session(self):
        config = replace(self.config, accounts=accounts(1), opening=Durations.parse("20"))
        assert run(config, callers(0, 5)).tenants["acme"].served == 2

    def test_waiting_is_charged_to_the_profile(self):
        result = run(self.config, callers(0, 62, duration_s=1))
        warm, acme = result.warm["front-desk"], result.tenants["acme"]
        assert acme.credits + warm.credits == pytest.approx(result.credits)
        assert acme.credits == pytest.approx(1 + 2 - 62 / 60, abs=0.1)

    def test_a_limit_on_life_replaces_sessions(self):
        limited = SimulatedProfile(profile=self.profile, life_s=100.0)
        result = run(replace(self.config, profiles=(limited,)), callers(0, 300))
        assert result.warm["front-desk"].started >= 5


@st.composite
def traces(draw):
    arrivals = draw(
        st.lists(
            st.builds(
                Arrival,
                at_s=st.floats(0, 600),
                tenant=st.sampled_from("abc"),
                duration_s=st.floats(0.1, 300),
                max_wait_s=st.none() | st.floats(0, 60),
            ),
            min_size=1,
            max_size=40,
        )
    )
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


@given(
    traces(),
    st.lists(st.integers(1, 4), min_size=1, max_size=2),
    st.sampled_from(WarmMode),
    st.integers(0, 3),
    st.none() | st.floats(1, 100),
)
def test_any_trace_accounts_for_every_caller_and_keeps_every_bound(arrivals, limits, mode, minimum, ceiling):
    profile = WarmProfile(
        name="front-desk", mode=mode, minimum=minimum, maximum=minimum + 1, max_credits_per_hour=ceiling
    )
    config = replace(
        ONE,
        accounts=accounts(*limits),
        opening=Durations.parse("2.5..4.7"),
        release=Durations.parse("0..5"),
        profiles=(SimulatedProfile(profile=profile, tenants=frozenset("ab")),),
        wait_s=30.0,
        max_waiting=10,
    )
    result = run(config, arrivals)
    total = result.total
    assert total.arrivals == len(arrivals)
    assert total.served + total.refused.total() == len(arrivals)
    assert max(total.waits_s, default=0.0) <= 60.0 + 1e-6
    assert result.warm["front-desk"].most <= profile.maximum
    assert result.tenants.get("c") is None or result.tenants["c"].served_warm == 0
    assert all(point.callers + point.warm + point.settling <= sum(limits) + 1e-6 for point in result.timeline)
    if ceiling is not None and result.seconds <= 3600:
        assert result.warm["front-desk"].credits <= ceiling + 1e-6
