"""A watch reports every event once and in order, or a gap with the missing events."""

import random
from math import inf

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from liveavatar.gateway import (
    WatchedEvent,
    WatchGap,
    WatchProgress,
    WatchRemoved,
    WatchSnapshot,
    errors,
)
from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.targets import ADOPTION_S
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar.gateway.watch_state import MAIN, OPEN_ATTEMPTS, Refusal, WatchState

A, B = "a:1", "b:1"
UNKNOWN = errors.SessionNotFound("", code=grpc.StatusCode.NOT_FOUND)
LOST = errors.ConnectionLost("", code=grpc.StatusCode.UNAVAILABLE)
TOO_HIGH = errors.InvalidField("", code=grpc.StatusCode.INVALID_ARGUMENT)


def snapshot(session_id: str, sequence: int) -> pb.WatchSessionsResponse:
    session = session_pb2.Session(id=session_id, state=session_pb2.SESSION_STATE_READY)
    return pb.WatchSessionsResponse(snapshot=pb.WatchSnapshot(session=session, sequence=sequence))


def event(session_id: str, sequence: int) -> pb.WatchSessionsResponse:
    found = pb.SessionEvent(sequence=sequence, notice=pb.UpstreamNotice(type="notice"))
    return pb.WatchSessionsResponse(event=pb.WatchEvent(session_id=session_id, event=found))


def removed(session_id: str, reason: str = "") -> pb.WatchSessionsResponse:
    status = status_pb2.Status()
    if reason:
        status.code = grpc.StatusCode.NOT_FOUND.value[0]
        status.details.add().Pack(error_details_pb2.ErrorInfo(domain="gateway.liveavatar", reason=reason))
    return pb.WatchSessionsResponse(removed=pb.WatchRemoved(session_id=session_id, status=status))


def moved_to(address: str) -> errors.OwnerMoved:
    return errors.OwnerMoved("", code=grpc.StatusCode.ABORTED, metadata={"address": address})


def changes_of(state: WatchState, *responses: pb.WatchSessionsResponse, stream: str = MAIN) -> list[tuple]:
    """Return the changes of each message, in short."""
    found = []
    for response in responses:
        for change in state.take(stream, response):
            match change:
                case WatchSnapshot() | WatchedEvent():
                    found.append((type(change), change.session_id, change.sequence))
                case WatchGap():
                    found.append((WatchGap, change.session_id, change.first_sequence, change.last_sequence))
                case WatchProgress():
                    found.append((WatchProgress, change.sequences))
                case WatchRemoved() | Refusal():
                    found.append((type(change), change.session_id, change.error and change.error.reason))
    return found


def relocate(state, session_id, target, error, *, now_mono_s=0.0, main_target=A, resume_timeout_s=60.0):
    return state.relocate(
        session_id,
        target,
        error,
        main_target=main_target,
        now_mono_s=now_mono_s,
        resume_timeout_s=resume_timeout_s,
        backoff=Backoff(rng=random.Random(1)),
    )


@pytest.fixture
def state():
    found = WatchState([A])
    found.add("s")
    return found


def asked(state: WatchState, session_id: str) -> tuple[str, int]:
    add = state.request(session_id).add
    return add.session_id, add.after_sequence


def test_events_follow_the_snapshot_each_once(state):
    assert asked(state, "s") == ("s", 0)
    assert changes_of(state, snapshot("s", 4), event("s", 4), event("s", 5), event("s", 5), event("s", 6)) == [
        (WatchSnapshot, "s", 4),
        (WatchedEvent, "s", 5),
        (WatchedEvent, "s", 6),
    ]
    assert asked(state, "s") == ("s", 6)


def test_what_two_streams_tell_is_told_once(state):
    changes_of(state, snapshot("s", 4))
    assert changes_of(state, event("s", 5), stream="x:1") == [(WatchedEvent, "s", 5)]
    assert changes_of(state, event("s", 5), event("s", 6)) == [(WatchedEvent, "s", 6)]


def test_a_snapshot_behind_known_events_says_which_are_missing(state):
    lagged = pb.WatchSessionsResponse(lagged=pb.WatchLagged(session_id="s", sent_sequence=5, oldest_sequence=8))
    changes_of(state, snapshot("s", 5))
    assert changes_of(state, lagged, snapshot("s", 9), event("s", 10)) == [
        (WatchGap, "s", 6, 9),
        (WatchSnapshot, "s", 9),
        (WatchedEvent, "s", 10),
    ]


def test_a_hole_is_never_silent(state):
    changes_of(state, snapshot("s", 5))
    assert changes_of(state, event("s", 8)) == [(WatchGap, "s", 6, 7), (WatchedEvent, "s", 8)]


def test_what_the_caller_knows_counts_as_told():
    state = WatchState([A])
    state.add("s", 7)
    assert asked(state, "s") == ("s", 7)
    assert changes_of(state, event("s", 7), event("s", 8)) == [(WatchedEvent, "s", 8)]
    state.add("s", 3)
    assert changes_of(state, snapshot("s", 9)) == [(WatchGap, "s", 4, 9), (WatchSnapshot, "s", 9)]


def test_sessions_that_labels_find_are_watched_like_those_named(state):
    assert changes_of(state, snapshot("found", 1)) == [(WatchSnapshot, "found", 1)]
    assert state.sessions_on(MAIN) == ["s", "found"]
    assert asked(state, "found") == ("found", 1)
    assert changes_of(state, event("nobody", 1)) == []


def test_a_session_that_has_ended_is_forgotten(state):
    changes_of(state, snapshot("s", 5))
    assert changes_of(state, event("s", 6), removed("s")) == [(WatchedEvent, "s", 6), (WatchRemoved, "s", None)]
    assert (len(state), state.sessions_on(MAIN), changes_of(state, removed("s"))) == (0, [], [])


def test_a_session_that_was_removed_is_not_found_again_by_its_labels(state):
    state.remove("s")
    assert changes_of(state, snapshot("s", 5), event("s", 6)) == []
    state.add("s")
    assert changes_of(state, snapshot("s", 7)) == [(WatchSnapshot, "s", 7)]


def test_progress_is_handed_on(state):
    response = pb.WatchSessionsResponse(progress=pb.WatchProgress(sequences={"s": 5, "other": 1}))
    assert changes_of(state, response) == [(WatchProgress, {"s": 5, "other": 1})]
    assert changes_of(state, pb.WatchSessionsResponse()) == []


def test_a_refusal_is_for_the_stream_that_the_session_is_on(state):
    assert changes_of(state, removed("s", "SESSION_NOT_FOUND")) == [(Refusal, "s", "SESSION_NOT_FOUND")]
    assert changes_of(state, removed("s", "SESSION_NOT_FOUND"), stream="x:1") == []


def test_a_session_of_another_process_is_watched_there_and_comes_back_when_that_is_gone(state):
    changes_of(state, snapshot("s", 5))
    assert relocate(state, "s", A, moved_to("x:1")) == 0
    assert (state.stream("s"), state.sessions_on("x:1"), state.sessions_on(MAIN)) == ("x:1", ["s"], [])
    assert state.wants("x:1")
    assert changes_of(state, event("s", 6), stream="x:1") == [(WatchedEvent, "s", 6)]
    state.lost("x:1", 10.0)
    assert relocate(state, "s", "x:1", LOST, now_mono_s=10.0) == 0
    assert (state.stream("s"), state.wants("x:1"), state.wants(MAIN)) == (MAIN, False, True)
    assert asked(state, "s") == ("s", 6)


def test_a_session_is_looked_for_at_every_target():
    state = WatchState([A, B])
    state.add("s")
    assert relocate(state, "s", A, UNKNOWN) == 0
    assert state.stream("s") == B
    assert relocate(state, "s", B, UNKNOWN) is None
    assert (state.stream("s"), len(state)) == (None, 0)
    assert relocate(state, "s", B, UNKNOWN) is None


def test_a_known_session_may_be_unknown_for_a_moment_after_its_process_died(state):
    changes_of(state, snapshot("s", 5))
    state.lost(MAIN, 10.0)
    state.lost(MAIN, 11.0)
    assert relocate(state, "s", A, UNKNOWN, now_mono_s=12.0)
    assert relocate(state, "s", A, UNKNOWN, now_mono_s=10.0 + ADOPTION_S) is None


def test_a_loss_of_long_ago_does_not_count_once_the_session_was_heard_of(state):
    progress = pb.WatchSessionsResponse(progress=pb.WatchProgress(sequences={"s": 5}))
    changes_of(state, snapshot("s", 5))
    state.lost(MAIN, 10.0)
    changes_of(state, progress)
    assert relocate(state, "s", A, UNKNOWN, now_mono_s=1000.0)


def test_a_session_that_nobody_tells_of_is_given_up_in_time(state):
    changes_of(state, snapshot("s", 5))
    now_mono_s = 0.0
    while (delay_s := relocate(state, "s", A, moved_to("x:1"), now_mono_s=now_mono_s)) is not None:
        now_mono_s += delay_s or 0.5
    assert 60 <= now_mono_s < 65


def test_a_session_that_was_never_found_is_not_looked_for_for_long():
    """An unreachable target is no reason to wait for a session that the others do not know."""
    state = WatchState([A, B])
    state.add("s")
    answers = {A: UNKNOWN, B: LOST}
    target, count = A, 0
    while relocate(state, "s", target, answers[target]) is not None:
        target = state.stream("s") or A
        count += 1
    assert count == 2 * OPEN_ATTEMPTS - 1


def test_an_heir_with_fewer_events_is_asked_from_the_start(state):
    changes_of(state, snapshot("s", 5))
    assert relocate(state, "s", A, TOO_HIGH) == 0
    assert asked(state, "s") == ("s", 0)
    assert changes_of(state, snapshot("s", 3), event("s", 4)) == [(WatchSnapshot, "s", 3), (WatchedEvent, "s", 4)]


def test_a_number_that_the_caller_made_up_is_refused():
    state = WatchState([A])
    state.add("s", 1000)
    assert relocate(state, "s", A, TOO_HIGH, now_mono_s=inf) is None


@pytest.mark.parametrize("seed", range(20))
def test_however_streams_break_no_event_comes_twice_or_is_missing_without_a_word(seed):
    """A session whose log keeps five events, and a stream that breaks, lags and repeats."""
    rng = random.Random(seed)
    state = WatchState([A])
    state.add("s")
    last, after, accounted = 3, -1, None
    for _ in range(500):
        last += rng.choice((0, 1, 1, 4))
        if rng.random() < 0.1:
            after = asked(state, "s")[1] or -1
        if rng.random() < 0.5:
            continue
        if after < max(last - 5, 0):
            responses = [snapshot("s", last)]
        else:
            responses = [event("s", number) for number in range(max(after - rng.randrange(2), 1), last + 1)]
        after = last
        for kind, *numbers in changes_of(state, *responses):
            if kind is WatchGap:
                assert numbers[1] == accounted + 1
                accounted = numbers[2]
            elif kind is WatchedEvent:
                assert numbers[1] == accounted + 1
                accounted += 1
            else:
                assert accounted in (None, numbers[1])
                accounted = numbers[1]
        assert accounted == last == asked(state, "s")[1]
