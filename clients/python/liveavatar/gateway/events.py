"""Events of a session as plain values, and the log from which several readers follow them."""

import enum
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import grpc

from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import EventsCompacted, GatewayError
from liveavatar.gateway.model import (
    EndReason,
    Outcome,
    Pose,
    RoomAccess,
    SessionRecord,
    SessionState,
    end_reason_from_proto,
    error_from_proto,
    moment,
    pose_from_proto,
    state_from_proto,
)
from liveavatar.gateway.room import (
    MicrophoneState,
    RoomDisconnectCause,
    RoomParticipant,
    disconnect_cause_from_proto,
    microphone_from_proto,
)
from liveavatar.gateway.v1 import session_pb2, session_service_pb2

KEPT_EVENTS = 1000
"""Events kept for readers that start late or lag. A reader further behind gets EventsCompacted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """Base of all events of a session."""

    sequence: int
    """Number of the event, from 1 in each session, without holes."""
    time: datetime
    """Time of the event, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChangedEvent(SessionEvent):
    """Change of the session's state."""

    state: SessionState
    """New state."""
    previous_state: SessionState
    """State before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseChangedEvent(SessionEvent):
    """Change of the avatar's pose."""

    pose: Pose
    """New pose."""
    previous_pose: Pose
    """Pose before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceStartedEvent(SessionEvent):
    """First sound of an utterance."""

    utterance_id: str
    """Id of the utterance."""
    inferred: bool
    """True when LiveAvatar sent no event and the gateway inferred the start from its own clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceUnderrunEvent(SessionEvent):
    """Lack of audio inside an utterance: the avatar is silent until more audio arrives."""

    utterance_id: str
    """Id of the utterance."""
    played: timedelta
    """Audio of the utterance that was heard before the silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceEndedEvent(SessionEvent):
    """End of an utterance of this or of another process."""

    outcome: Outcome
    """Outcome of the utterance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechPausedEvent(SessionEvent):
    """Pause of speech: the avatar is silent."""

    utterance_id: str
    """Utterance that is paused; empty when none was being spoken."""
    played: timedelta
    """Audio of the utterance that was heard."""
    heard_text: str = ""
    """Text of the utterance that was heard; empty without `words`."""


class ContinueCause(enum.StrEnum):
    """Cause of the end of a pause."""

    COMMAND = "command"
    """`continue_speech` or `continue_session`."""
    TIMEOUT = "timeout"
    """The timeout of the pause."""
    INTERRUPT = "interrupt"
    """An interrupt of the paused utterance."""
    UNKNOWN = "unknown"
    """Cause of a newer gateway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechContinuedEvent(SessionEvent):
    """End of a pause of speech."""

    utterance_id: str
    """Utterance that was paused; empty when none was being spoken."""
    repeated: timedelta
    """Length of the step back to the last silence: audio that is heard a second time."""
    cause: ContinueCause
    """Cause of the end; compares equal to "command", "timeout" or "interrupt"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExpiringEvent(SessionEvent):
    """Warning that the session's duration limit is near, or the end of a session that nobody uses."""

    expires_at: datetime
    """Time of the end."""
    reason: EndReason = EndReason.MAX_DURATION
    """Reason that the end will have: MAX_DURATION, IDLE or NO_VIEWERS. A `SessionExpiryCancelledEvent` may
    withdraw the last two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExpiryCancelledEvent(SessionEvent):
    """Withdrawal of a `SessionExpiringEvent`: somebody uses the session again."""

    reason: EndReason
    """Reason of the withdrawn end: IDLE or NO_VIEWERS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamNoticeEvent(SessionEvent):
    """Error or warning from LiveAvatar that does not end the session."""

    type: str
    """LiveAvatar's type, such as "video_starvation"."""
    message: str
    """Message of LiveAvatar."""
    error: bool
    """True for an error, false for a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamReconnectedEvent(SessionEvent):
    """Recovery of the gateway's lost connection to the avatar."""

    attempt_count: int
    """Number of attempts."""
    gap: timedelta
    """Time since the loss."""
    resent_bytes: int
    """Audio that was sent a second time, 24 kHz mono 16-bit PCM, bytes."""
    replaced: bool
    """True when a fresh avatar replaced the former avatar, which was no longer reachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRotatedEvent(SessionEvent):
    """Replacement of an avatar near its duration limit by a fresh avatar."""

    upstream_session_id: str
    """LiveAvatar's id of the new avatar's session."""
    room: RoomAccess
    """Room of the new avatar; `AsyncSession.room` returns the same room from now on."""
    expires_at: datetime | None
    """Time at which the new avatar reaches its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAdoptedEvent(SessionEvent):
    """Takeover of the session by another gateway process after the end of the former process."""

    gap: timedelta
    """Time without an owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomConnectedEvent(SessionEvent):
    """Join of the gateway to the avatar's room. What was known of its participants before is void.

    This event and the following ones need `SessionOptions.room_events`.
    """

    participants: tuple[RoomParticipant, ...]
    """Present participants, at most 64: avatars first."""
    participant_count: int
    """Number of all present participants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomDisconnectedEvent(SessionEvent):
    """Loss of the avatar's room, which the gateway keeps trying to join."""

    cause: RoomDisconnectCause
    """Cause; compares equal to "lost", "closed", "removed" or "refused"."""
    error: GatewayError | None
    """Reason of REFUSED; None otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantJoinedEvent(SessionEvent):
    """Arrival of a participant."""

    participant: RoomParticipant
    """The participant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantLeftEvent(SessionEvent):
    """Departure of a participant."""

    participant: RoomParticipant
    """The participant, as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicrophoneChangedEvent(SessionEvent):
    """Change of the voice of a participant that is no avatar."""

    identity: str
    """Identity of the participant."""
    microphone: MicrophoneState
    """Its voice now; compares equal to "none", "muted" or "live"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarTracksChangedEvent(SessionEvent):
    """Change of the tracks that an avatar publishes."""

    identity: str
    """Identity of the avatar."""
    has_audio: bool
    """True while it publishes audio."""
    has_video: bool
    """True while it publishes video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewersChangedEvent(SessionEvent):
    """Arrival of the first viewer of the avatar, or departure of the last."""

    present: bool
    """True if anybody can see the avatar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReceivedEvent(SessionEvent):
    """Data message of a participant, with one of `RoomEvents.data_topics`."""

    identity: str
    """Sender; empty for a program that used LiveKit's server API or is hidden, and for a participant that is not
    reported yet."""
    topic: str
    """Topic; empty for a message without a topic."""
    payload: bytes
    """Content; empty in a watch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDroppedEvent(SessionEvent):
    """Loss of data messages that came too fast or were too large."""

    count: int
    """Number of messages since the last event of this kind."""
    identities: tuple[str, ...]
    """Senders, at most 16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEndedEvent(SessionEvent):
    """End of the session. Always the last event."""

    record: SessionRecord
    """Final record."""
    error: GatewayError | None
    """Reason of an end that no caller asked for; None otherwise."""


class GoAwayReason(enum.StrEnum):
    """Cause of a `GoAwayEvent`."""

    DRAIN = "drain"
    """The gateway process drains: it ends the session at the deadline."""
    CREDENTIAL = "credential"
    """The client's API key has expired, and it has no other one: the gateway ends the stream at the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoAwayEvent(SessionEvent):
    """Announced end of a session or stream. Not numbered: `sequence` is that of the last event, `time` is local.

    In force until a `GoAwayCancelledEvent` or a `ResumedEvent`; a gateway that still drains sends it again.
    """

    deadline: datetime
    """Time at which the gateway ends the session, unless a `GoAwayCancelledEvent` comes first; or the stream."""
    reason: GoAwayReason = GoAwayReason.DRAIN
    """Cause of the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoAwayCancelledEvent(SessionEvent):
    """Cancellation of a drain: the `GoAwayEvent` before is void. Not numbered, like `GoAwayEvent`."""


class ResumedStream(enum.StrEnum):
    """Stream that was lost and resumed."""

    EVENTS = "events"
    """Stream of events and commands (`Attach`)."""
    SPEECH = "speech"
    """Stream of audio (`StreamAudio`). Utterances continue at the byte where they stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedEvent(SessionEvent):
    """Recovery of a stream that this process had lost. Not numbered, like `GoAwayEvent`."""

    stream: ResumedStream
    """The stream that was lost; compares equal to "events" or "speech"."""
    gap: timedelta
    """Time since the loss."""
    attempt_count: int
    """Number of attempts."""
    target: str
    """Address that resumed the stream: one of the client's targets, or an address that a target named."""
    missed_events: int = 0
    """Number of events that the gateway no longer keeps; the next sequence skips them. A process that took the
    session over from a killed process has none of its events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(SessionEvent):
    """Event of a newer gateway, for which this library has no class."""


Event = (
    StateChangedEvent
    | PoseChangedEvent
    | UtteranceStartedEvent
    | UtteranceUnderrunEvent
    | UtteranceEndedEvent
    | SpeechPausedEvent
    | SpeechContinuedEvent
    | SessionExpiringEvent
    | SessionExpiryCancelledEvent
    | UpstreamNoticeEvent
    | UpstreamReconnectedEvent
    | SessionRotatedEvent
    | SessionAdoptedEvent
    | RoomConnectedEvent
    | RoomDisconnectedEvent
    | ParticipantJoinedEvent
    | ParticipantLeftEvent
    | MicrophoneChangedEvent
    | AvatarTracksChangedEvent
    | ViewersChangedEvent
    | DataReceivedEvent
    | DataDroppedEvent
    | SessionEndedEvent
    | GoAwayEvent
    | GoAwayCancelledEvent
    | ResumedEvent
    | UnknownEvent
)
"""Union of all events; type checkers check that a `match` over it is exhaustive."""


_CAUSES = {
    session_service_pb2.CONTINUE_CAUSE_COMMAND: ContinueCause.COMMAND,
    session_service_pb2.CONTINUE_CAUSE_TIMEOUT: ContinueCause.TIMEOUT,
    session_service_pb2.CONTINUE_CAUSE_INTERRUPT: ContinueCause.INTERRUPT,
}


def event_from_proto(message: session_service_pb2.SessionEvent) -> Event:  # noqa: C901, PLR0911, PLR0912  one per kind
    """Convert the gateway's message."""
    sequence, time = message.sequence, moment(message.time)
    match message.WhichOneof("event"):
        case "state_changed":
            return StateChangedEvent(
                sequence=sequence,
                time=time,
                state=state_from_proto(message.state_changed.state),
                previous_state=state_from_proto(message.state_changed.previous_state),
            )
        case "pose_changed":
            return PoseChangedEvent(
                sequence=sequence,
                time=time,
                pose=pose_from_proto(message.pose_changed.pose),
                previous_pose=pose_from_proto(message.pose_changed.previous_pose),
            )
        case "utterance_started":
            return UtteranceStartedEvent(
                sequence=sequence,
                time=time,
                utterance_id=message.utterance_started.utterance_id,
                inferred=message.utterance_started.inferred,
            )
        case "utterance_underrun":
            return UtteranceUnderrunEvent(
                sequence=sequence,
                time=time,
                utterance_id=message.utterance_underrun.utterance_id,
                played=message.utterance_underrun.played.ToTimedelta(),
            )
        case "utterance_ended":
            return UtteranceEndedEvent(
                sequence=sequence, time=time, outcome=Outcome.from_proto(message.utterance_ended)
            )
        case "speech_paused":
            return SpeechPausedEvent(
                sequence=sequence,
                time=time,
                utterance_id=message.speech_paused.utterance_id,
                played=message.speech_paused.played.ToTimedelta(),
                heard_text=message.speech_paused.heard_text,
            )
        case "speech_continued":
            return SpeechContinuedEvent(
                sequence=sequence,
                time=time,
                utterance_id=message.speech_continued.utterance_id,
                repeated=message.speech_continued.repeated.ToTimedelta(),
                cause=_CAUSES.get(message.speech_continued.cause, ContinueCause.UNKNOWN),
            )
        case "expiring":
            return SessionExpiringEvent(
                sequence=sequence,
                time=time,
                expires_at=moment(message.expiring.expires_at),
                # A gateway before `idle_timeout` announces nothing but the limit, and names no reason.
                reason=end_reason_from_proto(message.expiring.reason or session_pb2.END_REASON_MAX_DURATION),
            )
        case "expiry_cancelled":
            return SessionExpiryCancelledEvent(
                sequence=sequence, time=time, reason=end_reason_from_proto(message.expiry_cancelled.reason)
            )
        case "notice":
            return UpstreamNoticeEvent(
                sequence=sequence,
                time=time,
                type=message.notice.type,
                message=message.notice.message,
                error=message.notice.error,
            )
        case "reconnected":
            return UpstreamReconnectedEvent(
                sequence=sequence,
                time=time,
                attempt_count=message.reconnected.attempt_count,
                gap=message.reconnected.gap.ToTimedelta(),
                resent_bytes=message.reconnected.resent_bytes,
                replaced=message.reconnected.replaced,
            )
        case "rotated":
            return SessionRotatedEvent(
                sequence=sequence,
                time=time,
                upstream_session_id=message.rotated.upstream_session_id,
                room=RoomAccess.from_proto(message.rotated.room),
                expires_at=moment(message.rotated.expires_at) if message.rotated.HasField("expires_at") else None,
            )
        case "adopted":
            return SessionAdoptedEvent(sequence=sequence, time=time, gap=message.adopted.gap.ToTimedelta())
        case "ended":
            return SessionEndedEvent(
                sequence=sequence,
                time=time,
                record=SessionRecord.from_proto(message.ended.session),
                error=error_from_proto(message.ended.error),
            )
        case _:
            return _room_event(message, sequence, time)


def _room_event(  # noqa: PLR0911  one per kind
    message: session_service_pb2.SessionEvent, sequence: int, time: datetime
) -> Event:
    match message.WhichOneof("event"):
        case "room_connected":
            return RoomConnectedEvent(
                sequence=sequence,
                time=time,
                participants=tuple(map(RoomParticipant.from_proto, message.room_connected.participants)),
                participant_count=message.room_connected.participant_count,
            )
        case "room_disconnected":
            return RoomDisconnectedEvent(
                sequence=sequence,
                time=time,
                cause=disconnect_cause_from_proto(message.room_disconnected.cause),
                error=error_from_proto(message.room_disconnected.error),
            )
        case "participant_joined":
            joined = RoomParticipant.from_proto(message.participant_joined.participant)
            return ParticipantJoinedEvent(sequence=sequence, time=time, participant=joined)
        case "participant_left":
            left = RoomParticipant.from_proto(message.participant_left.participant)
            return ParticipantLeftEvent(sequence=sequence, time=time, participant=left)
        case "microphone_changed":
            return MicrophoneChangedEvent(
                sequence=sequence,
                time=time,
                identity=message.microphone_changed.identity,
                microphone=microphone_from_proto(message.microphone_changed.microphone),
            )
        case "avatar_tracks_changed":
            return AvatarTracksChangedEvent(
                sequence=sequence,
                time=time,
                identity=message.avatar_tracks_changed.identity,
                has_audio=message.avatar_tracks_changed.has_audio,
                has_video=message.avatar_tracks_changed.has_video,
            )
        case "viewers_changed":
            return ViewersChangedEvent(sequence=sequence, time=time, present=message.viewers_changed.present)
        case "data_received":
            return DataReceivedEvent(
                sequence=sequence,
                time=time,
                identity=message.data_received.identity,
                topic=message.data_received.topic,
                payload=message.data_received.payload,
            )
        case "data_dropped":
            return DataDroppedEvent(
                sequence=sequence,
                time=time,
                count=message.data_dropped.count,
                identities=tuple(message.data_dropped.identities),
            )
        case _:
            return UnknownEvent(sequence=sequence, time=time)


class EventLog:
    """Newest events of a session, for any number of readers, each at its own pace.

    Bound: `KEPT_EVENTS`. A reader further behind gets EventsCompacted, never a silent hole.
    """

    def __init__(self, condition: Condition, *, after_sequence: int = 0, kept: int = KEPT_EVENTS) -> None:
        """Begin without events.

        Args:
            condition: Notified of each event.
            after_sequence: Sequence of the event before the first event to come.
            kept: Number of events to keep.
        """
        self._condition = condition
        self._after_sequence = after_sequence
        self._events: deque[Event] = deque(maxlen=kept)
        self._count = 0
        self._closed = False
        self._error: GatewayError | None = None

    @property
    def newest_sequence(self) -> int:
        """Sequence of the newest event; without events, the sequence that this log began with."""
        return self._events[-1].sequence if self._events else self._after_sequence

    def append(self, event: Event) -> None:
        """Add an event and wake the readers."""
        self._events.append(event)
        self._count += 1
        self._condition.notify()

    def close(self, error: GatewayError | None) -> None:
        """Note that no more events come: readers end, or raise `error`."""
        self._closed = True
        self._error = error
        self._condition.notify()

    async def read(self, after_sequence: int) -> AsyncIterator[Event]:
        """Iterate over the events after a sequence, past and future, until the end of the session.

        Events without a sequence of their own carry the sequence of the event before and count as behind it.

        Raises:
            EventsCompacted: the next event is no longer kept.
            GatewayError: the session was lost to this process.
        """
        position = self._count - len(self._events)
        while True:
            while position < self._count:
                oldest = self._count - len(self._events)
                if position < oldest:
                    raise _compacted(after_sequence, self._events[0].sequence)
                event = self._events[position - oldest]
                position += 1
                unnumbered = isinstance(event, GoAwayEvent | GoAwayCancelledEvent | ResumedEvent)
                if event.sequence > after_sequence or (unnumbered and event.sequence == after_sequence):
                    after_sequence = event.sequence
                    yield event
            if self._closed:
                if self._error is not None:
                    raise self._error
                return
            await self._condition.wait()


def _compacted(after_sequence: int, oldest_sequence: int) -> EventsCompacted:
    return EventsCompacted(
        f"events after {after_sequence} are not kept, the oldest is {oldest_sequence}; "
        f"continue with events(after_sequence={oldest_sequence - 1})",
        code=grpc.StatusCode.OUT_OF_RANGE,
        metadata={"after_sequence": str(after_sequence), "oldest_sequence": str(oldest_sequence)},
    )
