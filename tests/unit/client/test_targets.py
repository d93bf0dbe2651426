import random

import grpc
import pytest

from liveavatar.gateway import CredentialExpired, CredentialInvalid, errors
from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.credentials import Renewal
from liveavatar.gateway.targets import ADOPTION_S, Retries, Route, is_local, named_by, target_list

LOST = errors.ConnectionLost("", code=grpc.StatusCode.UNAVAILABLE)
DRAINING = errors.Draining("", code=grpc.StatusCode.UNAVAILABLE)
UNKNOWN = errors.SessionNotFound("", code=grpc.StatusCode.NOT_FOUND)
NAMES = ("a:1", "b:1", "c:1")
A, B, C = NAMES
ENDED = errors.SessionEnded("", code=grpc.StatusCode.FAILED_PRECONDITION)


def retries(count: int) -> Retries:
    return Retries(Route(NAMES[:count]), Backoff(rng=random.Random(1)))


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
    assert tried == [A, B, C, A, B, C]
    assert [bool(delay) for delay in delays] == [False, False, True, False, False, True]
    assert attempts.attempt_count == 6
    assert attempts.round_count == 2


def test_a_stream_that_broke_asks_the_same_target_first():
    attempts = retries(2)
    assert attempts.next_delay_s(A, LOST, held=True)
    assert attempts.route.current == A
    assert attempts.next_delay_s(A, LOST) == 0
    assert attempts.route.current == B


def test_a_target_that_says_to_go_is_left_at_once():
    attempts = retries(2)
    assert attempts.next_delay_s(A, DRAINING, held=True) == 0
    assert attempts.route.current == B


def test_both_streams_leave_a_target_together():
    route = Route(NAMES)
    first, second = Retries(route), Retries(route)
    first.next_delay_s(A, LOST)
    second.next_delay_s(A, LOST)
    assert route.current == B


def test_a_session_is_unknown_when_every_target_says_so():
    attempts = retries(3)
    assert attempts.next_delay_s(A, UNKNOWN) == 0
    assert attempts.next_delay_s(B, LOST) == 0
    assert attempts.next_delay_s(C, UNKNOWN)
    assert attempts.next_delay_s(A, UNKNOWN) is not None
    assert attempts.next_delay_s(B, UNKNOWN) is None
    assert retries(1).next_delay_s(A, UNKNOWN) is None


def test_a_session_whose_gateway_died_may_be_unknown_for_a_moment():
    """Until another process has taken it over."""
    attempts = retries(1)
    assert attempts.next_delay_s(A, UNKNOWN, lost_s=0.5)
    assert attempts.next_delay_s(A, UNKNOWN, lost_s=ADOPTION_S) is None
    assert retries(1).next_delay_s(A, ENDED, lost_s=0) is None


def test_what_a_target_said_before_it_took_the_stream_is_forgotten():
    attempts = retries(2)
    attempts.next_delay_s(A, UNKNOWN)
    attempts.reached()
    assert attempts.attempt_count == 0
    assert attempts.next_delay_s(B, UNKNOWN) is not None


def test_a_refusal_is_final_everywhere():
    assert retries(3).next_delay_s(A, ENDED) is None


def test_a_connection_that_lasted_begins_with_short_delays():
    attempts = retries(1)
    for _ in range(5):
        attempts.next_delay_s(A, LOST)
    attempts.stable()
    assert attempts.next_delay_s(A, LOST) <= 0.1


def moved_to(address: str) -> errors.OwnerMoved:
    return errors.OwnerMoved("", code=grpc.StatusCode.ABORTED, metadata={"address": address})


@pytest.mark.parametrize(
    ("address", "target", "named"),
    [
        ("10.0.0.7:50051", "gateway:50051", "10.0.0.7:50051"),
        ("gateway-7:50051", "gateway:50051", "gateway-7:50051"),
        ("fd00::7:50051", "gateway:50051", "[fd00::7]:50051"),
        ("[fd00::7]:50051", "gateway:50051", "[fd00::7]:50051"),
        ("", "gateway:50051", ""),
        ("gateway-7", "gateway:50051", ""),
        ("0.0.0.0:50051", "gateway:50051", ""),
        ("[::]:50051", "localhost:50051", ""),
        ("127.0.0.1:50052", "gateway:50051", ""),
        ("localhost:50052", "10.0.0.7:50051", ""),
        ("127.0.0.1:50052", "127.0.0.1:50051", "127.0.0.1:50052"),
        ("127.0.0.1:50052", "dns:///localhost:50051", "127.0.0.1:50052"),
        ("127.0.0.1:50052", "ipv4:127.0.0.1:50051", "127.0.0.1:50052"),
        ("127.0.0.1:50052", "[::1]:50051", "127.0.0.1:50052"),
        ("localhost:50052", "unix:/run/gateway", "localhost:50052"),
    ],
)
def test_an_address_is_followed_where_it_leads_somewhere(address, target, named):
    """Not to this machine, when the gateway that named it is on another."""
    assert named_by(moved_to(address), target) == named
    assert named_by(DRAINING, target) == ""


def test_the_process_that_is_named_is_asked_next():
    attempts = retries(3)
    assert attempts.next_delay_s(A, moved_to("c:1")) == 0
    assert attempts.route.current == C
    assert attempts.next_delay_s(C, LOST) == 0
    assert attempts.route.current == A


def test_a_named_process_that_is_no_target_is_asked_and_left_again():
    attempts = retries(2)
    assert attempts.next_delay_s(A, moved_to("x:1")) == 0
    assert attempts.route.current == "x:1"
    assert attempts.route.round() == ["x:1", B, A]
    assert attempts.next_delay_s("x:1", LOST) == 0
    assert attempts.route.current == B
    assert attempts.next_delay_s(B, LOST)
    assert attempts.route.current == A


def test_two_processes_that_name_each_other_are_not_asked_without_a_pause():
    attempts = retries(1)
    assert attempts.next_delay_s(A, moved_to("x:1")) == 0
    assert attempts.next_delay_s("x:1", moved_to("a:1")) == 0
    assert attempts.next_delay_s(A, moved_to("x:1"))
    assert attempts.next_delay_s(A, moved_to("x:1")) == 0


def test_a_stream_that_broke_at_a_named_process_asks_that_first():
    attempts = retries(1)
    attempts.next_delay_s(A, moved_to("x:1"))
    attempts.reached()
    assert attempts.next_delay_s("x:1", LOST, held=True)
    assert attempts.route.current == "x:1"
    assert attempts.next_delay_s("x:1", UNKNOWN, lost_s=ADOPTION_S) == 0
    assert attempts.route.current == A
    assert attempts.next_delay_s(A, UNKNOWN, lost_s=ADOPTION_S) is None


def test_the_second_stream_does_not_follow_from_where_the_first_has_left():
    route = Route(NAMES)
    first, second = Retries(route), Retries(route)
    first.next_delay_s(A, moved_to("x:1"))
    second.next_delay_s(A, moved_to("y:1"))
    assert route.current == "x:1"
    assert Route(NAMES, B).round() == [B, C, A]


@pytest.mark.parametrize("name", ["::1:50051", "::1", "2001:db8::1:50051", "[::1]:1,::1:2"])
def test_an_ipv6_address_without_brackets_is_refused_with_the_right_form(name):
    with pytest.raises(ValueError, match=r'needs brackets and a port, such as "\[::1\]:50051"'):
        target_list(name)


@pytest.mark.parametrize("name", ["[::1]:50051", "dns:host:1", "ipv6:[::1]:1", "unix:/x", "dns:///[::1]:50051"])
def test_targets_with_colons_that_are_right(name):
    assert target_list(name) == (name,)


def test_a_renewed_credential_is_tried_once_at_the_same_target():
    attempts = Retries(Route(NAMES[:2]), Backoff(rng=random.Random(1)), renewal=Renewal(renewable=True))
    refused = CredentialExpired("expired", code=grpc.StatusCode.UNAUTHENTICATED, reason="CREDENTIAL_EXPIRED")
    assert attempts.next_delay_s(NAMES[0], refused) == 0.0
    assert attempts.route.current == NAMES[0]
    assert attempts.next_delay_s(NAMES[0], refused) is None
    attempts.reached()
    # Accepted and refused in turn: each attempt waits longer.
    first_s = attempts.next_delay_s(NAMES[0], refused, held=True)
    attempts.reached()
    second_s = attempts.next_delay_s(NAMES[0], refused, held=True)
    assert 0 < first_s < second_s


def test_a_refused_key_is_final():
    refused = CredentialInvalid("revoked", code=grpc.StatusCode.UNAUTHENTICATED, reason="CREDENTIAL_INVALID")
    assert retries(2).next_delay_s(NAMES[0], refused) is None


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("localhost:1", True),
        ("dns:///127.0.0.1:1", True),
        ("unix:/run/gateway", True),
        ("unix-host:1", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
        ("example.org:1", False),
    ],
)
def test_targets_on_this_machine(target, local):
    assert is_local(target) is local
