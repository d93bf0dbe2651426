import random

import grpc
import pytest

from liveavatar.gateway import errors
from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.targets import ADOPTION_S, Retries, Route, target_list

LOST = errors.ConnectionLost("", code=grpc.StatusCode.UNAVAILABLE)
DRAINING = errors.Draining("", code=grpc.StatusCode.UNAVAILABLE)
UNKNOWN = errors.SessionNotFound("", code=grpc.StatusCode.NOT_FOUND)
ENDED = errors.SessionEnded("", code=grpc.StatusCode.FAILED_PRECONDITION)


def retries(count: int) -> Retries:
    return Retries(Route(count), Backoff(rng=random.Random(1)))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("a:1", ("a:1",)),
        ("a:1, b:2,a:1", ("a:1", "b:2")),
        (["a:1", "b:2"], ("a:1", "b:2")),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", ("ipv4:10.0.0.1:1,10.0.0.2:1",)),
        ("dns:///a:1", ("dns:///a:1",)),
    ],
)
def test_targets_are_a_name_a_list_in_one_or_a_list(given, found):
    assert target_list(given) == found


@pytest.mark.parametrize("given", ["", "a:1,", [], ["a:1", ""]])
def test_no_target_is_refused_with_what_it_may_be(given):
    with pytest.raises(ValueError, match="host:port"):
        target_list(given)


def test_each_target_is_tried_at_once_and_all_again_after_a_delay():
    tried = []
    attempts = retries(3)
    delays = []
    for _ in range(6):
        tried.append(attempts.route.current)
        delays.append(attempts.next_delay_s(attempts.route.current, LOST))
    assert tried == [0, 1, 2, 0, 1, 2]
    assert [bool(delay) for delay in delays] == [False, False, True, False, False, True]
    assert attempts.attempt_count == 6
    assert attempts.round_count == 2


def test_a_stream_that_broke_asks_the_same_target_first():
    attempts = retries(2)
    assert attempts.next_delay_s(0, LOST, held=True)
    assert attempts.route.current == 0
    assert attempts.next_delay_s(0, LOST) == 0
    assert attempts.route.current == 1


def test_a_target_that_says_to_go_is_left_at_once():
    attempts = retries(2)
    assert attempts.next_delay_s(0, DRAINING, held=True) == 0
    assert attempts.route.current == 1


def test_both_streams_leave_a_target_together():
    route = Route(3)
    first, second = Retries(route), Retries(route)
    first.next_delay_s(0, LOST)
    second.next_delay_s(0, LOST)
    assert route.current == 1


def test_a_session_is_unknown_when_every_target_says_so():
    attempts = retries(3)
    assert attempts.next_delay_s(0, UNKNOWN) == 0
    assert attempts.next_delay_s(1, LOST) == 0
    assert attempts.next_delay_s(2, UNKNOWN)
    assert attempts.next_delay_s(0, UNKNOWN) is not None
    assert attempts.next_delay_s(1, UNKNOWN) is None
    assert retries(1).next_delay_s(0, UNKNOWN) is None


def test_a_session_whose_gateway_died_may_be_unknown_for_a_moment():
    """Until another process has taken it over."""
    attempts = retries(1)
    assert attempts.next_delay_s(0, UNKNOWN, lost_s=0.5)
    assert attempts.next_delay_s(0, UNKNOWN, lost_s=ADOPTION_S) is None
    assert retries(1).next_delay_s(0, ENDED, lost_s=0) is None


def test_what_a_target_said_before_it_took_the_stream_is_forgotten():
    attempts = retries(2)
    attempts.next_delay_s(0, UNKNOWN)
    attempts.reached()
    assert attempts.attempt_count == 0
    assert attempts.next_delay_s(1, UNKNOWN) is not None


def test_a_refusal_is_final_everywhere():
    assert retries(3).next_delay_s(0, ENDED) is None


def test_a_connection_that_lasted_begins_with_short_delays():
    attempts = retries(1)
    for _ in range(5):
        attempts.next_delay_s(0, LOST)
    attempts.stable()
    assert attempts.next_delay_s(0, LOST) <= 0.1
