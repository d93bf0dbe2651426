"""What this process knows of a session, from the messages of its Attach stream."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc

from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import EventsCompacted, GatewayError, SessionEnded
from liveavatar.gateway.events import (
    EventLog,
    GoAwayCancelledEvent,
    GoAwayEvent,
    PoseChangedEvent,
    ResumedEvent,
    ResumedStream,
    SessionEndedEvent,
    SessionRotatedEvent,
    StateChangedEvent,
    UtteranceEndedEvent,
    UtteranceStartedEvent,
    event_from_proto,
)
from liveavatar.gateway.model import AudioLimits, Pose, RoomAccess, SessionRecord, SessionState, moment
from liveavatar.gateway.speech import Speech
from liveavatar.gateway.v1 import session_service_pb2 as pb

_ORDER = {state: position for position, state in enumerate(SessionState)}
_ORDER[SessionState.RECONNECTING] = _ORDER[SessionState.READY]


class ObservedSession:
    """The session as last heard of; passes on to speech what the events say of utterances.

    Invariant: `state` only moves forward, also while events of the past are replayed; READY and RECONNECTING
    alternate.
    """

    def __init__(self, speech: Speech, changes: Condition, *, after_sequence: int = 0) -> None:
        """Begin with nothing heard of the session but its events up to `after_sequence`."""
        self.record: SessionRecord | None = None
        """None until the stream was opened."""
        self.room = RoomAccess(url="", viewer_token="")
        self.limits: AudioLimits | None = None
        self.state = SessionState.UNSPECIFIED
        self.pose = Pose.UNSPECIFIED
        self.end_cause: GatewayError | None = None
        self.events = EventLog(changes, after_sequence=after_sequence)
        self._speech = speech

    def on_opened(self, message: pb.SessionOpened) -> None:
        """The Attach stream holds the session."""
        self.record = SessionRecord.from_proto(message.session)
        self.advance(self.record.state)
        self.pose = self.record.pose
        self.room = RoomAccess.from_proto(message.room)
        self.limits = AudioLimits.from_proto(message.audio_limits)

    def on_event(self, message: pb.SessionEvent) -> None:
        """The Attach stream brings an event."""
        event = event_from_proto(message)
        match event:
            case StateChangedEvent():
                self.advance(event.state)
            case PoseChangedEvent():
                self.pose = event.pose
            case UtteranceStartedEvent():
                self._speech.heard(event.utterance_id)
            case UtteranceEndedEvent():
                self._speech.settle(event.outcome)
            case SessionRotatedEvent():
                self.room = event.room
                if self.record is not None:
                    self.record = replace(
                        self.record,
                        upstream_session_id=event.upstream_session_id,
                        expires_at=event.expires_at,
                    )
            case SessionEndedEvent():
                self.record, self.end_cause = event.record, event.error
                self.advance(SessionState.ENDED)
        self.events.append(event)

    def on_go_away(self, message: pb.GoAway) -> None:
        """The gateway process drains."""
        sequence, deadline = self.events.newest_sequence, moment(message.deadline)
        self.events.append(GoAwayEvent(sequence=sequence, time=datetime.now(UTC), deadline=deadline))

    def on_go_away_cancelled(self) -> None:
        """The gateway does not shut down after all."""
        self.events.append(GoAwayCancelledEvent(sequence=self.events.newest_sequence, time=datetime.now(UTC)))

    def on_resumed(self, gap_s: float, attempt_count: int, target: str, missed_events: int) -> None:
        """The Attach stream is there again."""
        self._resumed(ResumedStream.EVENTS, gap_s, attempt_count, target, missed_events)

    def on_speech_resumed(self, gap_s: float, attempt_count: int, target: str) -> None:
        """Utterances go on on another StreamAudio stream."""
        self._resumed(ResumedStream.SPEECH, gap_s, attempt_count, target)

    def _resumed(
        self, stream: ResumedStream, gap_s: float, attempt_count: int, target: str, missed_events: int = 0
    ) -> None:
        self.events.append(
            ResumedEvent(
                sequence=self.events.newest_sequence,
                time=datetime.now(UTC),
                stream=stream,
                gap=timedelta(seconds=gap_s),
                attempt_count=attempt_count,
                target=target,
                missed_events=missed_events,
            )
        )

    def on_events_lost(self, error: EventsCompacted) -> None:
        """Events were missed for good, among them perhaps the ends of utterances whose stream is gone."""
        self._speech.fail_all(error, orphans_only=True)

    def advance(self, state: SessionState) -> None:
        """Take over a state, unless a later one is known."""
        if _ORDER[state] >= _ORDER[self.state]:
            self.state = state

    def ended(self) -> SessionEnded:
        """What calls on a session that is over get, in the gateway's words."""
        session_id, why, upstream = "", "", ""
        if self.record is not None:
            session_id, why, upstream = self.record.id, self.record.end_reason.name, self.record.upstream_reason
        said = f" (LiveAvatar: {upstream})" if upstream else ""
        error = SessionEnded(
            f"session {session_id} has ended: {why}{said}; create a new one",
            code=grpc.StatusCode.FAILED_PRECONDITION,
            metadata={"session_id": session_id, "end_reason": why, "upstream_reason": upstream},
        )
        error.__cause__ = self.end_cause
        return error
