"""What happens in a session, as plain values, and the log that lets several readers follow it."""

import enum
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import grpc

from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import EventsCompacted, GatewayError
from liveavatar.gateway.model import (
    Outcome,
    Pose,
    RoomAccess,
    SessionRecord,
    SessionState,
    error_from_proto,
    moment,
    pose_from_proto,
    state_from_proto,
)
from liveavatar.gateway.v1 import session_service_pb2

KEPT_EVENTS = 1000
"""Events a session keeps for readers that start late or lag; a reader further behind is told so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """Something that happened in a session; what it was is the subclass."""

    sequence: int
    """Counts from 1 in each session, without holes."""
    time: datetime
    """When it happened, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChangedEvent(SessionEvent):
    """The session moved on in its life."""

    state: SessionState
    """Where it is now."""
    previous_state: SessionState
    """Where it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseChangedEvent(SessionEvent):
    """The avatar took another pose."""

    pose: Pose
    """What it does now."""
    previous_pose: Pose
    """What it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceStartedEvent(SessionEvent):
    """The first sound of an utterance is out."""

    utterance_id: str
    """Which utterance."""
    inferred: bool
    """True when LiveAvatar gave no sign and the gateway concluded it from its own clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceUnderrunEvent(SessionEvent):
    """The avatar ran dry inside an utterance: it has nothing left to say until more audio comes."""

    utterance_id: str
    """Which utterance."""
    played: timedelta
    """How much of it was heard before the silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceEndedEvent(SessionEvent):
    """An utterance is over, spoken by this process or by another."""

    outcome: Outcome
    """What became of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExpiringEvent(SessionEvent):
    """The session's limit is near."""

    expires_at: datetime
    """When it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamNoticeEvent(SessionEvent):
    """LiveAvatar reported an error or a warning that does not end the session."""

    type: str
    """LiveAvatar's type, such as "video_starvation"."""
    message: str
    """LiveAvatar's words."""
    error: bool
    """True for an error, false for a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamReconnectedEvent(SessionEvent):
    """The gateway's connection to the avatar is there again."""

    attempt_count: int
    """Tries it took."""
    gap: timedelta
    """From the loss to now."""
    resent_bytes: int
    """Audio that was sent a second time, 24 kHz mono 16-bit PCM, bytes."""
    replaced: bool
    """Whether a fresh avatar was started, since the old one could not be reached any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRotatedEvent(SessionEvent):
    """A fresh avatar took over from the one whose limit was near."""

    upstream_session_id: str
    """LiveAvatar's id of the new avatar's session."""
    room: RoomAccess
    """Where it is, as `AsyncSession.room` says from now on."""
    expires_at: datetime | None
    """When its limit ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAdoptedEvent(SessionEvent):
    """Another process of the gateway drives the session now: the one before is gone."""

    gap: timedelta
    """How long nobody did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEndedEvent(SessionEvent):
    """The session is over. Always last."""

    record: SessionRecord
    """The final record."""
    error: GatewayError | None
    """Why, when it did not end by a caller's will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoAwayEvent(SessionEvent):
    """The gateway process drains. Not numbered: `sequence` is the last event's, `time` is this process's.

    In force until a `GoAwayCancelledEvent` or a `ResumedEvent`: a gateway that still drains then says so again.
    """

    deadline: datetime
    """Time at which the session is ended, unless a `GoAwayCancelledEvent` comes before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoAwayCancelledEvent(SessionEvent):
    """The gateway does not shut down after all: the `GoAwayEvent` before is void. Not numbered, as that one."""


class ResumedStream(enum.StrEnum):
    """What broke and is there again."""

    EVENTS = "events"
    """The stream of events and commands. None was lost."""
    SPEECH = "speech"
    """The stream of audio. Utterances go on where they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedEvent(SessionEvent):
    """This process had lost the gateway and has it again. Not numbered, as `GoAwayEvent`."""

    stream: ResumedStream
    """What was lost; compares equal to "events" and "speech"."""
    gap: timedelta
    """From the loss to now."""
    attempt_count: int
    """Tries it took."""
    target: str
    """The address that took it: one of the client's targets, or what one of them named."""
    missed_events: int = 0
    """Events that the gateway does not keep any more: the next number is higher by as many. A gateway that goes on
    with the session of one that was killed has none of its events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(SessionEvent):
    """An event of a newer gateway that this library has no class for."""


Event = (
    StateChangedEvent
    | PoseChangedEvent
    | UtteranceStartedEvent
    | UtteranceUnderrunEvent
    | UtteranceEndedEvent
    | SessionExpiringEvent
    | UpstreamNoticeEvent
    | UpstreamReconnectedEvent
    | SessionRotatedEvent
    | SessionAdoptedEvent
    | SessionEndedEvent
    | GoAwayEvent
    | GoAwayCancelledEvent
    | ResumedEvent
    | UnknownEvent
)
"""All there are: a `match` over it is checked for completeness."""


def event_from_proto(message: session_service_pb2.SessionEvent) -> Event:  # noqa: C901, PLR0911  one per kind
    """Read the gateway's message."""
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
        case "expiring":
            return SessionExpiringEvent(
                sequence=sequence, time=time, expires_at=moment(message.expiring.expires_at)
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
        case None:
            return UnknownEvent(sequence=sequence, time=time)


class EventLog:
    """The newest events of a session, readable by many, each at its own pace.

    Bound: `KEPT_EVENTS`. A reader that falls further behind gets EventsCompacted, never a silent hole.
    """

    def __init__(self, changes: Condition, *, after_sequence: int = 0, kept: int = KEPT_EVENTS) -> None:
        """Begin without events.

        Args:
            changes: Notified of each event.
            after_sequence: The event before the first one that is to come.
            kept: How many events are kept.
        """
        self._changes = changes
        self._after_sequence = after_sequence
        self._events: deque[Event] = deque(maxlen=kept)
        self._count = 0
        self._closed = False
        self._error: GatewayError | None = None

    @property
    def newest_sequence(self) -> int:
        """Sequence of the newest event, of one that was known before this log began when there is none."""
        return self._events[-1].sequence if self._events else self._after_sequence

    def append(self, event: Event) -> None:
        """Add an event and wake the readers."""
        self._events.append(event)
        self._count += 1
        self._changes.notify()

    def close(self, error: GatewayError | None) -> None:
        """No more events come; readers end, or raise `error`."""
        self._closed = True
        self._error = error
        self._changes.notify()

    async def read(self, after_sequence: int) -> AsyncIterator[Event]:
        """All events after a sequence, then each as it comes, to the end of the session.

        Those without a number of their own carry that of the event before them: they count as behind it.

        Raises:
            EventsCompacted: the next event is no longer kept here.
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
            await self._changes.wait()


def _compacted(after_sequence: int, oldest_sequence: int) -> EventsCompacted:
    return EventsCompacted(
        f"events after {after_sequence} are not kept, the oldest is {oldest_sequence}; "
        f"go on with events(after_sequence={oldest_sequence - 1})",
        code=grpc.StatusCode.OUT_OF_RANGE,
        metadata={"after_sequence": str(after_sequence), "oldest_sequence": str(oldest_sequence)},
    )
