"""Policy of warm sessions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_gateway.pool.warm_policy import (
    DayWindow,
    RetireReason,
    WarmBound,
    WarmCredits,
    WarmMode,
    WarmPolicyConfig,
    WarmProfile,
    WarmSession,
    WarmSituation,
    WarmState,
    charges,
    credits_per_hour,
    decide,
)

CONFIG = WarmPolicyConfig()
READY, STARTING, RETIRING = WarmState.READY, WarmState.STARTING, WarmState.RETIRING


def profile(minimum=2, maximum=4, **changes):
    return WarmProfile(name="front-desk", minimum=minimum, maximum=maximum, **changes)


def ready(name="a", *, age_s=10.0, **changes):
    return WarmSession(id=name, state=READY, age_s=age_s, **({"idle_s": age_s - 5} | changes))


def situation(*sessions, **changes):
    return WarmSituation(sessions=sessions, **changes)


def reasons(plan):
    return {item.session_id: item.reason for item in plan.retire}


def test_starts_the_minimum():
    plan = decide(profile(2), situation())
    assert (plan.start, plan.wanted, plan.bound, plan.retire) == (2, 2, WarmBound.NONE, ())


def test_counts_what_is_starting_as_present():
    plan = decide(profile(3), situation(ready(), WarmSession(id="b", state=STARTING, age_s=1)))
    assert plan.start == 1


@pytest.mark.parametrize("gone", [READY, STARTING, RETIRING])
def test_never_starts_above_the_maximum_whatever_the_sessions_do(gone):
    present = [WarmSession(id=str(n), state=gone, age_s=239, idle_s=239) for n in range(4)]
    assert decide(profile(4, 4), situation(*present)).start == 0


def test_replaces_a_session_before_it_has_waited_too_long():
    old = ready(age_s=231.0)
    plan = decide(profile(1, 2), situation(old))
    assert (plan.start, plan.retire) == (1, ())
    plan = decide(profile(1, 2), situation(ready(age_s=236.0), ready("b", age_s=5)))
    assert plan.start == 0
    assert reasons(plan) == {"a": RetireReason.IDLE}


def test_retires_first_and_replaces_then_if_the_maximum_leaves_no_room():
    plan = decide(profile(1, 1), situation(ready(age_s=236.0)))
    assert plan.start == 0
    assert plan.bound is WarmBound.MAXIMUM
    assert reasons(plan) == {"a": RetireReason.IDLE}


def test_buys_a_further_minute_only_if_the_session_may_be_used_through_it():
    assert not decide(profile(1), situation(ready(age_s=176.0))).retire
    assert decide(profile(1), situation(ready(age_s=236.0))).retire


def test_a_free_session_is_kept_until_its_idle_limit():
    sandbox = profile(1, credits_per_minute=0.0)
    assert not decide(sandbox, situation(ready(age_s=236.0))).retire
    assert reasons(decide(sandbox, situation(ready(age_s=246.0)))) == {"a": RetireReason.IDLE}


def test_retires_a_session_with_too_little_life_left():
    plan = decide(profile(1), situation(ready(remaining_s=59.0)))
    assert reasons(plan) == {"a": RetireReason.SHORT_LIFE}
    assert plan.start == 1


@pytest.mark.parametrize(
    ("at_h", "wanted"), [(6.99, 0), (7, 2), (18.99, 2), (19, 0), (22, 2), (23.9, 2), (0, 2), (1.99, 2), (2, 0)]
)
def test_keeps_hours_also_across_midnight(at_h, wanted):
    hours = (DayWindow(from_s=7 * 3600, until_s=19 * 3600), DayWindow(from_s=22 * 3600, until_s=2 * 3600))
    assert decide(profile(2, hours=hours), situation(time_of_day_s=at_h * 3600)).wanted == wanted


def test_outside_its_hours_a_session_may_still_be_used_until_its_paid_minute_is_over():
    night = profile(2, hours=(DayWindow(from_s=0, until_s=3600),))
    plan = decide(night, situation(ready("a", age_s=30), ready("b", age_s=56), time_of_day_s=4000))
    assert reasons(plan) == {"b": RetireReason.OUT_OF_HOURS}


def test_retires_what_a_lowered_maximum_no_longer_allows():
    plan = decide(profile(1, 1), situation(ready("a", age_s=20), ready("b", age_s=30)))
    assert reasons(plan) == {"b": RetireReason.ABOVE_MAXIMUM}


def test_gives_way_to_callers_that_wait():
    plan = decide(profile(2), situation(ready("a"), ready("b"), waiting=1))
    assert list(reasons(plan).values()) == [RetireReason.CALLERS_WAIT]
    assert (plan.start, plan.bound) == (0, WarmBound.PERMITS)
    going = WarmSession(id="c", state=RETIRING, age_s=20, retiring_s=1)
    assert not decide(profile(2), situation(ready("a"), going, waiting=1)).retire


def test_gives_a_permit_that_helps_a_caller_and_starts_none_while_callers_wait():
    older = ready("b", age_s=20, in_need=False)
    plan = decide(profile(2), situation(older, ready("a"), waiting=1))
    assert reasons(plan) == {"a": RetireReason.CALLERS_WAIT}
    plan = decide(profile(2), situation(older, is_contended=True))
    assert (plan.start, plan.bound, plan.retire) == (0, WarmBound.PERMITS, ())


def test_takes_no_permit_that_is_not_spare():
    plan = decide(profile(3), situation(spare_permits=1))
    assert (plan.start, plan.bound) == (1, WarmBound.PERMITS)


def test_pauses_longer_after_each_failed_start():
    def after(failed, age_s):
        return decide(profile(3), situation(failed_starts=failed, last_failure_age_s=age_s))

    assert (after(1, 0.9).start, after(1, 0.9).bound) == (0, WarmBound.FAILURES)
    assert (after(1, 1.0).start, after(1, 1.0).bound) == (1, WarmBound.STARTING)
    assert after(4, 7.9).start == 0
    assert after(4, 8.0).start == 1
    assert after(1000, 59.0).start == 0
    assert after(1000, 60.0).start == 1


def test_starts_a_few_at_once():
    assert decide(profile(9, 9), situation()).start == CONFIG.max_starting


class TestLearnt:
    """Learnt mode."""

    learnt = profile(0, 8, mode=WarmMode.LEARNT)

    def wanted(self, ages_s, **changes):
        return decide(self.learnt, situation(arrival_ages_s=ages_s, **changes)).wanted

    def test_without_demand_keeps_the_minimum(self):
        assert self.wanted([]) == 0
        assert decide(profile(2, 8, mode=WarmMode.LEARNT), situation()).wanted == 2

    def test_a_caller_now_and_then_keeps_nothing_warm(self):
        assert self.wanted([60.0]) == 0
        assert self.wanted([30.0, 400.0]) == 0

    def test_follows_a_rise_at_once_and_never_exceeds_the_maximum(self):
        assert self.wanted([5.0, 10.0, 15.0]) == 2
        assert self.wanted([float(age_s) for age_s in range(30)]) > self.wanted([5.0 * n for n in range(10)])
        assert self.wanted([0.1 * n for n in range(600)]) == 8

    def test_holds_warmth_for_a_while_after_a_peak(self):
        peak = [300.0 + n for n in range(60)]
        assert self.wanted(peak) >= 1
        assert self.wanted([age_s + 400 for age_s in peak]) == 0

    @given(st.lists(st.floats(0, 2000), max_size=50), st.floats(0, 2000))
    def test_more_demand_never_keeps_fewer_warm(self, ages_s, another_s):
        assert self.wanted([*ages_s, another_s]) >= self.wanted(ages_s)

    def test_an_unwanted_session_is_kept_while_its_minute_is_paid(self):
        assert not decide(self.learnt, situation(ready(age_s=90))).retire
        plan = decide(self.learnt, situation(ready(age_s=116)))
        assert reasons(plan) == {"a": RetireReason.UNWANTED}


class TestCeiling:
    """Ceiling on credits per hour."""

    def test_starts_only_what_the_ceiling_pays_for_until_the_stop_is_sure(self):
        bounded = profile(4, 8, mode=WarmMode.LEARNT, max_credits_per_hour=100.0)
        plan = decide(bounded, situation(credits_used=96.0))
        assert (plan.start, plan.bound) == (2, WarmBound.CREDITS)

    def test_retires_first_the_session_that_is_charged_next(self):
        # The other's charge before its stop is confirmed still fits.
        bounded = profile(2, 8, max_credits_per_hour=200.0)
        plan = decide(bounded, situation(ready("a", age_s=10), ready("b", age_s=59.5), credits_used=198.0))
        assert reasons(plan) == {"b": RetireReason.CREDITS}

    def test_keeps_in_fixed_mode_what_the_ceiling_pays_for_all_the_time(self):
        assert decide(profile(5, 6, max_credits_per_hour=140.0), situation()).wanted == 2
        assert decide(profile(5, 6, max_credits_per_hour=10.0), situation()).wanted == 1
        assert decide(profile(5, 6, credits_per_minute=0, max_credits_per_hour=10.0), situation()).wanted == 5

    def test_free_sessions_have_no_ceiling(self):
        free = profile(2, credits_per_minute=0.0, max_credits_per_hour=0.0)
        assert decide(free, situation()).start == 2


def test_cost_per_hour():
    assert 60 <= credits_per_hour(profile(1)) <= 66
    assert credits_per_hour(profile(3)) == pytest.approx(3 * credits_per_hour(profile(1)))
    assert credits_per_hour(profile(3, max_credits_per_hour=100.0)) == 100.0
    assert credits_per_hour(profile(1, max_idle_s=20.0)) > 60
    assert credits_per_hour(profile(0)) == credits_per_hour(profile(1, credits_per_minute=0)) == 0


@pytest.mark.parametrize(
    ("age_s", "until_s", "number"),
    [(0, 59.9, 0), (0, 60, 1), (59, 121, 2), (60, 119, 0), (61, 61, 0), (70, 60, 0)],
)
def test_charges(age_s, until_s, number):
    assert charges(age_s, until_s) == number


class TestCredits:
    """Credits of the last hour."""

    def test_a_waiting_session_is_charged_for_each_begun_minute(self):
        used = WarmCredits()
        used.start("a", 100.0)
        assert [used.used(at_s) for at_s in (100.0, 159.0, 160.0, 221.0)] == [1, 1, 2, 3]

    def test_a_taken_session_costs_the_time_it_waited(self):
        used = WarmCredits(2.0)
        used.start("a", 0.0)
        used.take("a", 90.0)
        assert used.used(90.0) == pytest.approx(3.0)
        assert used.used(5000.0) == 0

    def test_an_unused_session_costs_whole_minutes_and_a_failed_start_nothing(self):
        used = WarmCredits()
        used.start("a", 0.0)
        used.start("b", 0.0)
        used.end("a", 90.0)
        used.end("b", 1.0, refunded=True)
        used.end("unknown", 1.0)
        used.take("unknown", 1.0)
        assert used.used(90.0) == 2
        assert used.used(3630.0) == 1

    @given(st.lists(st.floats(0, 600), max_size=5), st.floats(0, 8000))
    def test_taking_never_costs_more_than_waiting(self, starts_s, later_s):
        waited, taken = WarmCredits(), WarmCredits()
        for number, at_s in enumerate(starts_s):
            waited.start(str(number), at_s)
            taken.start(str(number), at_s)
            taken.take(str(number), 600.0)
        assert math.isfinite(taken.used(600.0))
        assert taken.used(600.0) <= waited.used(600.0) + 1e-6
