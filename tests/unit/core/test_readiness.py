"""Readiness of an avatar: by `connected`, by the answer to a probe, or by time after a reconnection."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import ReadyTimeout
from liveavatar_gateway.core.readiness import Due, Readiness, ReadinessConfig
from liveavatar_gateway.core.states import Pose

CONFIG = ReadinessConfig(ready_timeout_s=20.0, probe_after_s=5.0, connected_wait_s=3.0)


@pytest.fixture
def fresh() -> Readiness:
    """Readiness of a socket that was opened at 100 s, to an avatar that was never ready before."""
    readiness = Readiness(CONFIG)
    readiness.open(100.0, fresh=True)
    return readiness


@pytest.fixture
def again() -> Readiness:
    """Readiness of such a socket to an avatar that was ready before."""
    readiness = Readiness(CONFIG)
    readiness.open(100.0, fresh=False)
    return readiness


def test_before_a_socket_is_open_nothing_is_due():
    readiness = Readiness(CONFIG)
    assert readiness.deadline_s is None
    assert readiness.tick(1e9) is Due.NOTHING


def test_a_fresh_avatar_is_asked_every_five_seconds_and_given_up_after_twenty(fresh):
    due = []
    while (answer := fresh.tick(fresh.deadline_s)) is Due.PROBE:
        due.append(fresh.deadline_s)
    assert due == [110.0, 115.0, 120.0]
    assert answer is Due.GIVE_UP


def test_nothing_is_due_before_its_time(fresh, again):
    assert fresh.tick(104.99) is Due.NOTHING
    assert again.tick(102.99) is Due.NOTHING


def test_one_that_was_ready_before_is_taken_for_ready_after_three_seconds(again):
    assert again.deadline_s == 103.0
    assert again.tick(103.0) is Due.READY


@pytest.mark.parametrize("state", ["connected", "connecting", "closing"])
def test_only_connected_says_ready_without_being_asked(fresh, state):
    assert fresh.is_shown_by(m.StateUpdated(state)) is (state == "connected")


def test_any_answer_shows_it_but_only_to_a_probe(fresh):
    answer = m.Cleared(m.Refs())
    assert not fresh.is_shown_by(answer)
    fresh.tick(105.0)
    assert fresh.is_shown_by(answer)
    assert fresh.is_shown_by(m.PoseUpdated(Pose.IDLE))


@pytest.mark.parametrize("event", [m.PongReceived(1), m.Unknown("x")], ids=["a pong", "an unknown event"])
def test_what_the_socket_alone_says_shows_nothing(fresh, event):
    fresh.tick(105.0)
    assert not fresh.is_shown_by(event)


def test_another_socket_begins_anew(fresh):
    fresh.tick(105.0)
    fresh.open(200.0, fresh=True)
    assert fresh.deadline_s == 205.0
    assert not fresh.is_shown_by(m.Cleared(m.Refs())), "that probe went over the socket before"


def test_a_closed_one_waits_for_nothing(fresh):
    fresh.close()
    assert fresh.deadline_s is None


def test_giving_up_says_how_long_it_waited(fresh):
    error = fresh.timeout()
    assert isinstance(error, ReadyTimeout)
    assert error.metadata["timeout_s"] == "20.0"
