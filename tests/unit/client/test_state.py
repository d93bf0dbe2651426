import pytest

from liveavatar.gateway import (
    EventsCompacted,
    GoAwayCancelledEvent,
    GoAwayEvent,
    GoAwayReason,
    Pose,
    ResumedEvent,
    ResumedStream,
    SessionEndedEvent,
    SessionState,
)
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.state import ObservedSession
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb


class Speech:
    """Keeps the calls of the session's events."""

    def __init__(self):
        self.calls = []

    def on_started(self, utterance_id):
        self.calls.append(("started", utterance_id))

    def on_ended(self, outcome):
        self.calls.append(("ended", outcome.utterance_id))

    def on_paused(self, utterance_id):
        self.calls.append(("paused", utterance_id))

    def on_continued(self):
        self.calls.append(("continued", ""))

    def fail_all(self, error, *, orphans_only=False):
        self.calls.append(("failed", orphans_only))


@pytest.fixture
def speech():
    return Speech()


@pytest.fixture
def observed(speech):
    made = ObservedSession(speech, Condition())
    made.on_opened(
        pb.SessionOpened(
            session=session_pb2.Session(id="s", state=session_pb2.SESSION_STATE_CONNECTING),
            room=session_pb2.RoomAccess(url="wss://old"),
        )
    )
    speech.calls.clear()
    return made


def changed(state, sequence=1):
    return pb.SessionEvent(sequence=sequence, state_changed=pb.StateChanged(state=state))


async def test_the_answer_to_open_is_the_first_state(observed):
    assert (observed.record.id, observed.room.url, observed.state) == ("s", "wss://old", SessionState.CONNECTING)


async def test_the_state_only_moves_forward(observed):
    for state in ("READY", "RECONNECTING", "READY"):
        observed.on_event(changed(session_pb2.SessionState.Value(f"SESSION_STATE_{state}")))
        assert observed.state.name == state
    observed.on_event(changed(session_pb2.SESSION_STATE_CREATING))
    assert observed.state is SessionState.READY


async def test_events_of_utterances_reach_speech(observed, speech):
    observed.on_event(pb.SessionEvent(sequence=1, utterance_started=pb.UtteranceStarted(utterance_id="u")))
    observed.on_event(pb.SessionEvent(sequence=2, utterance_ended=pb.UtteranceEnded(utterance_id="u")))
    assert speech.calls == [("started", "u"), ("ended", "u")]


async def test_a_rotation_changes_room_and_record(observed):
    rotated = pb.SessionRotated(upstream_session_id="new", room=session_pb2.RoomAccess(url="wss://new"))
    observed.on_event(pb.SessionEvent(sequence=1, rotated=rotated))
    assert (observed.room.url, observed.record.upstream_session_id) == ("wss://new", "new")


async def test_the_pose_follows_the_events(observed):
    changed_pose = pb.PoseChanged(pose=session_pb2.POSE_TALKING)
    observed.on_event(pb.SessionEvent(sequence=1, pose_changed=changed_pose))
    assert observed.pose is Pose.TALKING


async def test_lost_events_fail_only_utterances_without_a_stream(observed, speech):
    observed.on_events_lost(EventsCompacted("lost"))
    assert speech.calls == [("failed", True)]


async def test_events_of_this_library_carry_the_sequence_of_the_event_before(observed):
    observed.on_event(changed(session_pb2.SESSION_STATE_READY, 7))
    observed.on_go_away(pb.GoAway())
    observed.on_go_away(pb.GoAway(reason=pb.GO_AWAY_REASON_CREDENTIAL))
    observed.on_go_away_cancelled()
    observed.on_resumed(1.0, 2, "a:1", 3)
    observed.on_speech_resumed(1.0, 2, "a:1")
    observed.events.close(None)
    events = [event async for event in observed.events.read(0)][1:]
    kinds = [GoAwayEvent, GoAwayEvent, GoAwayCancelledEvent, ResumedEvent, ResumedEvent]
    assert [type(event) for event in events] == kinds
    assert [event.reason for event in events[:2]] == [GoAwayReason.DRAIN, GoAwayReason.CREDENTIAL]
    assert {event.sequence for event in events} == {7}
    assert [event.stream for event in events[3:]] == [ResumedStream.EVENTS, ResumedStream.SPEECH]


async def test_the_error_of_an_ended_session_names_its_reason(observed):
    final = session_pb2.Session(
        id="s",
        state=session_pb2.SESSION_STATE_ENDED,
        end_reason=session_pb2.END_REASON_IDLE,
        upstream_reason="inactivity",
    )
    observed.on_event(pb.SessionEvent(sequence=1, ended=pb.SessionEnded(session=final)))
    error = observed.ended()
    assert (error.end_reason, error.metadata["session_id"]) == ("IDLE", "s")
    assert "inactivity" in str(error)
    observed.events.close(None)
    assert isinstance([event async for event in observed.events.read(0)][-1], SessionEndedEvent)


async def test_an_end_by_a_unary_call_is_final(observed):
    observed.on_end_confirmed(session_pb2.Session(id="s", state=session_pb2.SESSION_STATE_ENDED))
    assert observed.state is SessionState.ENDED


async def test_pauses_reach_speech_also_when_their_end_was_missed(observed, speech):
    observed.on_event(pb.SessionEvent(sequence=1, speech_paused=pb.SpeechPaused(utterance_id="u")))
    observed.on_event(pb.SessionEvent(sequence=2, speech_continued=pb.SpeechContinued(utterance_id="u")))
    observed.on_opened(pb.SessionOpened(session=session_pb2.Session(id="s", paused=True)))
    assert speech.calls == [("paused", "u"), ("continued", "")]
    observed.on_opened(pb.SessionOpened(session=session_pb2.Session(id="s")))
    assert speech.calls[2:] == [("continued", "")]
