"""State of a session by the messages of its Attach stream."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc

from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import EventsCompacted, GatewayError, SessionEnded
from liveavatar.gateway.events import (
    EventLog,
    GoAwayCancelledEvent,
    GoAwayEvent,
    GoAwayReason,
    PoseChangedEvent,
    ResumedEvent,
    ResumedStream,
    SessionEndedEvent,
    SessionRotatedEvent,
    SpeechContinuedEvent,
    SpeechPausedEvent,
    StateChangedEvent,
    UtteranceEndedEvent,
    UtteranceStartedEvent,
    event_from_proto,
)
from liveavatar.gateway.model import AudioLimits, Pose, RoomAccess, SessionRecord, SessionState, moment
from liveavatar.gateway.speech import Speech
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb

_ORDER = {state: position for position, state in enumerate(SessionState)}
_ORDER[SessionState.RECONNECTING] = _ORDER[SessionState.READY]


class ObservedSession:
    """Newest known state of a session. Forwards the events of utterances to `Speech`.

    Invariant: `state` only moves forward, also while past events are replayed; READY and RECONNECTING alternate.
    """

    def __init__(self, speech: Speech, condition: Condition, *, after_sequence: int = 0) -> None:
        """Begin without a record; events up to `after_sequence` are known to the caller."""
        self.record: SessionRecord | None = None
        """Newest record; None until the stream was attached."""
        self.room = RoomAccess(url="", viewer_token="")
        self.limits: AudioLimits | None = None
        self.state = SessionState.UNSPECIFIED
        self.pose = Pose.UNSPECIFIED
        self.end_cause: GatewayError | None = None
        self.events = EventLog(condition, after_sequence=after_sequence)
        self._speech = speech

    def on_opened(self, message: pb.SessionOpened) -> None:
        """Take over the record, room and limits from the answer to `open` or `resume`."""
        self.record = SessionRecord.from_proto(message.session)
        self.advance(self.record.state)
        self.pose = self.record.pose
        if not self.record.paused:
            # The event may be among those that a resumed stream misses.
            self._speech.on_continued()
        self.room = RoomAccess.from_proto(message.room)
        self.limits = AudioLimits.from_proto(message.audio_limits)

    def on_event(self, message: pb.SessionEvent) -> None:
        """Take over an event and append it to the log."""
        event = event_from_proto(message)
        match event:
            case StateChangedEvent():
                self.advance(event.state)
            case PoseChangedEvent():
                self.pose = event.pose
            case UtteranceStartedEvent():
                self._speech.on_started(event.utterance_id)
            case UtteranceEndedEvent():
                self._speech.on_ended(event.outcome)
            case SpeechPausedEvent():
                self._speech.on_paused(event.utterance_id)
            case SpeechContinuedEvent():
                self._speech.on_continued()
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
        """Append a GoAwayEvent."""
        is_credential = message.reason == pb.GO_AWAY_REASON_CREDENTIAL
        self.events.append(
            GoAwayEvent(
                sequence=self.events.newest_sequence,
                time=datetime.now(UTC),
                deadline=moment(message.deadline),
                reason=GoAwayReason.CREDENTIAL if is_credential else GoAwayReason.DRAIN,
            )
        )

    def on_go_away_cancelled(self) -> None:
        """Append a GoAwayCancelledEvent."""
        self.events.append(GoAwayCancelledEvent(sequence=self.events.newest_sequence, time=datetime.now(UTC)))

    def on_resumed(self, gap_s: float, attempt_count: int, target: str, missed_events: int) -> None:
        """Append a ResumedEvent of the Attach stream."""
        self._resumed(ResumedStream.EVENTS, gap_s, attempt_count, target, missed_events)

    def on_speech_resumed(self, gap_s: float, attempt_count: int, target: str) -> None:
        """Append a ResumedEvent of the StreamAudio stream."""
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
        """Fail utterances whose outcome only events could report: those events may be lost."""
        self._speech.fail_all(error, orphans_only=True)

    def on_end_confirmed(self, message: session_pb2.Session) -> None:
        """Take over the final record of a session that a unary call has ended."""
        self.record = SessionRecord.from_proto(message)
        self.advance(SessionState.ENDED)

    def advance(self, state: SessionState) -> None:
        """Take over a state, unless a later state is known."""
        if _ORDER[state] >= _ORDER[self.state]:
            self.state = state

    def ended(self) -> SessionEnded:
        """Return the error of calls on a session that has ended, in the gateway's words."""
        session_id, reason, upstream = "", "", ""
        if self.record is not None:
            session_id, reason, upstream = self.record.id, self.record.end_reason.name, self.record.upstream_reason
        suffix = f" (LiveAvatar: {upstream})" if upstream else ""
        error = SessionEnded(
            f"session {session_id} has ended: {reason}{suffix}; create a new one",
            code=grpc.StatusCode.FAILED_PRECONDITION,
            metadata={"session_id": session_id, "end_reason": reason, "upstream_reason": upstream},
        )
        error.__cause__ = self.end_cause
        return error
