"""State machine of a session whose avatar a hosted agent drives: no socket, no commands, the same limits."""

from datetime import UTC, datetime, timedelta

import pytest

from liveavatar_gateway.core.abandonment import KEPT_FOREVER, AbandonmentConfig
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import AgentHosted, SessionEnded
from liveavatar_gateway.core.events import Adopted, Ended, Expiring, StateChanged
from liveavatar_gateway.core.outputs import Deadline
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.snapshot import SessionSnapshot
from liveavatar_gateway.core.speech.pauses import PauseTimeout
from liveavatar_gateway.core.states import EndReason, Pose, SessionState, TimeoutAction

AT = datetime(2026, 1, 1, tzinfo=UTC)


def session(**options) -> Session:
    return Session(
        "session-1", SessionConfig(), new_id=lambda: "id", utc_now=lambda: AT, has_socket=False, **options
    )


def ready(*, max_duration_s: float | None = None, **options) -> Session:
    found = session(**options)
    found.started(max_duration_s=max_duration_s, now_s=1000.0)
    found.agent_started()
    return found


def events(found: Session) -> list:
    return [entry.event for entry in found.log.after(0)]


def test_it_is_ready_once_its_agent_is_started_and_its_pose_stays_unknown():
    found = ready()
    assert (found.state, found.pose, found.ready_at) == (SessionState.READY, Pose.UNKNOWN, AT)
    found.agent_started()
    assert events(found) == [
        StateChanged(SessionState.CONNECTING, SessionState.CREATING),
        StateChanged(SessionState.READY, SessionState.CONNECTING),
    ]


def test_an_agent_that_starts_too_late_changes_nothing():
    found = session()
    found.started(max_duration_s=None, now_s=1000.0)
    found.end(EndReason.CALLER_ENDED, 1000.0)
    found.agent_started()
    assert found.state is SessionState.ENDING
    assert found.ready_at is None


@pytest.mark.parametrize(
    ("call", "act"),
    [
        ("StreamAudio", lambda found: found.begin("u-1", None)),
        ("interrupt", lambda found: found.interrupt("")),
        (
            "pause",
            lambda found: found.pause("", PauseTimeout(seconds=None, action=TimeoutAction.CONTINUE), 1000.0),
        ),
        ("continue_speech", lambda found: found.continue_speech()),
        ("start_listening", lambda found: found.listen()),
        ("stop_listening", lambda found: found.stop_listening()),
    ],
)
def test_what_needs_a_socket_is_refused_by_name_and_after_the_end_as_everywhere(call, act):
    found = ready()
    with pytest.raises(AgentHosted) as refused:
        act(found)
    assert refused.value.metadata == {"session_id": "session-1", "call": call}
    found.end(EndReason.CALLER_ENDED, 1000.0)
    with pytest.raises(SessionEnded):
        act(found)


def test_no_command_is_ever_due_and_keep_alives_need_another_way():
    found = ready()
    assert not found.keep_alive()
    found.tick(2000.0)
    assert found.drain(2000.0)[-1] == Deadline(None)


def test_the_limit_is_announced_and_ends_it():
    found = ready(max_duration_s=60.0)
    found.tick(1046.0)
    assert isinstance(events(found)[-1], Expiring)
    found.tick(1062.0)
    assert found.end_reason is EndReason.MAX_DURATION
    found.ended()
    assert isinstance(events(found)[-1], Ended)


def test_without_a_new_stream_it_is_idle():
    found = ready(abandonment=AbandonmentConfig(idle_s=30.0))
    found.tick(1000.0)
    found.tick(1020.0)
    found.note_activity()
    found.tick(1020.0)
    found.tick(1040.0)
    assert not found.over
    # The notice came late, and the end keeps its distance to it.
    found.tick(1056.0)
    assert found.end_reason is EndReason.IDLE


@pytest.mark.parametrize(
    ("ready_at", "state"), [(AT, SessionState.READY), (None, SessionState.CONNECTING)], ids=["ready", "started"]
)
def test_another_process_finds_it_as_it_was(ready_at, state):
    snapshot = SessionSnapshot(
        id="session-1", created_at=AT - timedelta(seconds=60), ready_at=ready_at, last_sequence=7
    )
    found = Session.restored(
        snapshot,
        SessionConfig(),
        new_id=lambda: "id",
        utc_now=lambda: AT,
        now_s=1000.0,
        gap_s=3.0,
        abandonment=KEPT_FOREVER,
        has_socket=False,
    )
    assert found.state is state
    (entry,) = found.log.after(7)
    assert (entry.sequence, entry.event) == (8, Adopted(3.0))
    found.agent_started()
    assert found.state is SessionState.READY


def test_liveavatars_reason_is_learned_when_a_stop_finds_the_session_ended():
    found = ready()
    found.end(EndReason.UPSTREAM_ENDED, 1000.0)
    found.learn_end("AGENT_HANG_UP")
    assert (found.end_reason, found.upstream_reason) == (EndReason.AGENT_HUNG_UP, "AGENT_HANG_UP")
