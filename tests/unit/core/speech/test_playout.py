"""Playout clock: a cautious lead, and a realistic position."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.core.speech.playout import PlayoutClock


@pytest.fixture
def clock():
    return PlayoutClock(start_delay_s=0.2)


def test_a_new_clock_is_silent(clock):
    assert clock.lead_s(100.0) == 0.0
    assert clock.heard_s(100.0) == 0.0


def test_lead_falls_from_the_moment_of_sending(clock):
    clock.send(1.0, 100.0)
    assert clock.lead_s(100.0) == 1.0
    assert clock.lead_s(100.4) == pytest.approx(0.6)
    assert clock.lead_s(102.0) == 0.0


def test_nothing_is_heard_before_the_start_delay(clock):
    clock.send(1.0, 100.0)
    assert clock.heard_s(100.1) == 0.0
    assert clock.heard_s(100.7) == pytest.approx(0.5)


def test_nothing_is_heard_beyond_what_was_sent(clock):
    clock.send(1.0, 100.0)
    assert clock.heard_s(200.0) == 1.0


def test_a_confirmed_start_replaces_the_assumed_one(clock):
    clock.send(1.0, 100.0)
    clock.confirm(0.0, 100.5)
    assert clock.heard_s(100.5) == 0.0
    assert clock.heard_s(101.0) == pytest.approx(0.5)
    assert clock.lead_s(101.0) == pytest.approx(0.5)


def test_a_clock_that_ran_dry_starts_again_where_it_stopped(clock):
    clock.send(0.4, 100.0)
    clock.send(0.4, 110.0)
    assert clock.heard_s(110.2) == pytest.approx(0.4)
    assert clock.heard_s(110.3) == pytest.approx(0.5)


def test_playback_that_goes_on_after_running_dry_has_no_start_delay(clock):
    clock.send(0.4, 100.0)
    clock.confirm(0.0, 100.2)
    clock.send(0.4, 110.0)
    clock.resume()
    assert clock.heard_s(110.1) == pytest.approx(0.5)


def test_a_cut_forgets_what_was_sent_and_not_heard(clock):
    clock.send(3.0, 100.0)
    clock.confirm(0.0, 100.2)
    clock.cut(101.2)
    assert clock.sent_s == pytest.approx(1.0)
    assert clock.lead_s(101.2) == 0.0
    assert clock.heard_s(200.0) == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "confirm", "resume", "cut"]), st.floats(0, 3), st.floats(0, 2)),
        max_size=20,
    )
)
def test_heard_is_never_beyond_sent_nor_lead_negative(steps):
    clock, now_s = PlayoutClock(start_delay_s=0.2), 100.0
    for step, amount_s, pause_s in steps:
        now_s += pause_s
        match step:
            case "send":
                clock.send(amount_s, now_s)
            case "confirm":
                clock.confirm(min(amount_s, clock.sent_s), now_s)
            case "resume":
                clock.resume()
            case "cut":
                clock.cut(now_s)
        assert 0.0 <= clock.heard_s(now_s) <= clock.sent_s
        assert clock.lead_s(now_s) >= 0.0
