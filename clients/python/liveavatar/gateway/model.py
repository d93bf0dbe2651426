"""What the gateway tells, as plain values: sessions, rooms, outcomes, limits."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from google.protobuf import duration_pb2, timestamp_pb2
from google.rpc import status_pb2

from liveavatar.gateway.audio import AudioEncoding, encodings_from_proto
from liveavatar.gateway.errors import GatewayError
from liveavatar.gateway.refusals import from_status
from liveavatar.gateway.v1 import audio_pb2, audio_service_pb2, session_pb2, session_service_pb2


class SessionState(enum.StrEnum):
    """Where a session is in its life. It only moves down this list; READY and RECONNECTING alternate."""

    UNSPECIFIED = "unspecified"
    """Not known yet, or known only to a newer gateway."""
    CREATING = "creating"
    """Waiting for a free place on the account, then for LiveAvatar to start the avatar."""
    CONNECTING = "connecting"
    """Started, so it is billed; audio is taken and held."""
    READY = "ready"
    """The avatar speaks what it gets."""
    RECONNECTING = "reconnecting"
    """The gateway lost the avatar and connects again; audio is taken and held."""
    ENDING = "ending"
    """No new speech; the avatar is being stopped."""
    ENDED = "ended"
    """Over."""


class Pose(enum.StrEnum):
    """What the avatar does while the session is ready."""

    UNSPECIFIED = "unspecified"
    """Not known, or the session is not ready."""
    IDLE = "idle"
    """Idle loop."""
    LISTENING = "listening"
    """Attentive, looking at the user."""
    TALKING = "talking"
    """Speaking."""


class EndReason(enum.StrEnum):
    """Why a session ended."""

    UNSPECIFIED = "unspecified"
    """It has not, or for a reason known only to a newer gateway."""
    CALLER_ENDED = "caller_ended"
    """A caller ended it."""
    CALLER_LOST = "caller_lost"
    """Nobody held a stream to it for `detach_grace`."""
    IDLE = "idle"
    """LiveAvatar saw no activity for too long."""
    MAX_DURATION = "max_duration"
    """The session's `max_duration` ran out."""
    UPSTREAM_ENDED = "upstream_ended"
    """LiveAvatar ended it; `upstream_reason` holds its own word."""
    UPSTREAM_FAILED = "upstream_failed"
    """The connection to LiveAvatar was lost, or the avatar never became ready."""
    OUT_OF_CREDITS = "out_of_credits"
    """The LiveAvatar account ran out of credits."""
    DRAINED = "drained"
    """The gateway shut down."""
    CREATE_FAILED = "create_failed"
    """The session could not be created."""
    OPERATOR = "operator"
    """An operator of the gateway ended it."""


class VideoQuality(enum.StrEnum):
    """Size of the avatar's video. Larger adds latency."""

    LOW = "low"
    """360p."""
    MEDIUM = "medium"
    """480p."""
    HIGH = "high"
    """720p, the default."""
    VERY_HIGH = "very_high"
    """1080p; needs a Business or Enterprise plan and a 1080p avatar."""


class VideoEncoding(enum.StrEnum):
    """Codec of the avatar's video."""

    H264 = "h264"
    """H.264, the default."""
    VP8 = "vp8"
    """VP8."""


class OutcomeKind(enum.StrEnum):
    """How an utterance ended."""

    PLAYED = "played"
    """All of it was heard."""
    INTERRUPTED = "interrupted"
    """A barge-in cut it; `played` says how much was heard."""
    FAILED = "failed"
    """Audio was refused, its source failed or the session ended under it; `error` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an utterance."""

    utterance_id: str
    """Which one."""
    kind: OutcomeKind
    """How it ended; compares equal to "played", "interrupted" and "failed"."""
    played: timedelta
    """How much of it was heard: cut the agent's text here."""
    error: Exception | None = None
    """Why it failed: a `GatewayError`, or what the audio's own iterator raised. None otherwise."""
    inferred: bool = False
    """True when LiveAvatar gave no sign and the gateway concluded it from its own clock."""

    @classmethod
    def from_proto(cls, message: audio_service_pb2.AudioEnded | session_service_pb2.UtteranceEnded) -> Self:
        """Read what either stream says of an utterance's end."""
        kind = _OUTCOMES.get(message.outcome, OutcomeKind.FAILED)
        return cls(
            utterance_id=message.utterance_id,
            kind=kind,
            played=message.played.ToTimedelta(),
            error=error_from_proto(message.error) if kind is OutcomeKind.FAILED else None,
            inferred=message.inferred,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an utterance has come."""

    received_bytes: int = 0
    """Bytes the gateway has taken, in the caller's format."""
    confirmed_bytes: int = 0
    """Bytes LiveAvatar has taken, in the caller's format."""
    played: timedelta = timedelta()
    """How much was heard."""
    underrun_count: int = 0
    """How often the avatar ran dry inside it, since its audio came too slowly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """What an interrupt did."""

    interrupted: tuple[Outcome, ...]
    """The utterances that were cut, the one being spoken first; empty when the avatar was silent."""

    @property
    def played(self) -> timedelta:
        """How much of the utterance being spoken was heard; zero when none was."""
        return self.interrupted[0].played if self.interrupted else timedelta()

    @classmethod
    def from_proto(cls, message: session_service_pb2.InterruptResult) -> Self:
        """Read the gateway's answer."""
        return cls(interrupted=tuple(Outcome.from_proto(ended) for ended in message.interrupted))


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitRoom:
    """A LiveKit room of the caller's own, on the gateway's LiveKit server, in which the avatar appears.

    It stays the caller's: the gateway neither makes it nor closes it, and everybody else in it stays when the
    session ends. A gateway without a LiveKit server refuses it with InvalidField.
    """

    name: str
    """Name of the room, 1 to 128 printable characters."""
    avatar_identity: str = ""
    """Identity of the avatar in the room. Default: "avatar". One that takes the place of another within the
    session has "-2", "-3" and so on behind it."""

    def to_proto(self) -> session_pb2.LiveKitRoom:
        """The gateway's message."""
        return session_pb2.LiveKitRoom(name=self.name, avatar_identity=self.avatar_identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAccess:
    """What an end user's browser needs to join the avatar's room."""

    url: str
    """LiveKit server, "wss://..."."""
    viewer_token: str = field(repr=False)
    """Joins the room as a viewer. Whoever holds it can join: hand it to the end user only."""

    @classmethod
    def from_proto(cls, message: session_pb2.RoomAccess) -> Self:
        """Read the gateway's message."""
        return cls(url=message.url, viewer_token=message.viewer_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a session has used."""

    billed_duration: timedelta
    """From LiveAvatar's start to its end (or to now)."""
    played_duration: timedelta
    """How much speech was heard."""
    utterance_count: int
    """Utterances that were begun."""
    received_bytes: int
    """Audio taken from the caller, bytes in the caller's formats."""
    dropped_bytes: int
    """Audio that came too late to be spoken, bytes."""
    upstream_bytes: int = 0
    """Audio sent to the avatar, 24 kHz mono 16-bit PCM, bytes; what was sent again counts again."""
    interruption_count: int = 0
    """Interrupts that cut speech."""
    reconnect_count: int = 0
    """Times the gateway lost the avatar and connected again."""
    rotation_count: int = 0
    """Times a fresh avatar took over before a limit."""

    @classmethod
    def from_proto(cls, message: session_pb2.Usage) -> Self:
        """Read the gateway's message."""
        return cls(
            billed_duration=message.billed_duration.ToTimedelta(),
            played_duration=message.played_duration.ToTimedelta(),
            utterance_count=message.utterance_count,
            received_bytes=message.received_bytes,
            dropped_bytes=message.dropped_bytes,
            upstream_bytes=message.upstream_bytes,
            interruption_count=message.interruption_count,
            reconnect_count=message.reconnect_count,
            rotation_count=message.rotation_count,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One session as it was when the gateway told."""

    id: str
    """The gateway's id. All calls take this one."""
    upstream_session_id: str
    """LiveAvatar's id, for its dashboard and support; empty until LiveAvatar has given one."""
    avatar_id: str
    """Which avatar."""
    sandbox: bool
    """Whether it runs in LiveAvatar's sandbox."""
    labels: Mapping[str, str]
    """The caller's own labels."""
    state: SessionState
    """Where it is in its life."""
    pose: Pose
    """What the avatar does."""
    attached: bool
    """Whether an `Attach` stream holds it."""
    created_at: datetime | None
    """When the gateway took the request (UTC, as all times here)."""
    ready_at: datetime | None
    """When the avatar became ready."""
    expires_at: datetime | None
    """When LiveAvatar will end it."""
    ended_at: datetime | None
    """When it ended."""
    max_duration: timedelta
    """The duration limit that applies, counted from LiveAvatar's start."""
    end_reason: EndReason
    """Why it ended."""
    upstream_reason: str
    """LiveAvatar's own word for the end; often empty."""
    usage: Usage
    """What it has used so far."""

    @classmethod
    def from_proto(cls, message: session_pb2.Session) -> Self:
        """Read the gateway's message."""
        return cls(
            id=message.id,
            upstream_session_id=message.upstream_session_id,
            avatar_id=message.avatar_id,
            sandbox=message.sandbox,
            labels=dict(message.labels),
            state=state_from_proto(message.state),
            pose=pose_from_proto(message.pose),
            attached=message.attached,
            created_at=moment(message.created_at) if message.HasField("created_at") else None,
            ready_at=moment(message.ready_at) if message.HasField("ready_at") else None,
            expires_at=moment(message.expires_at) if message.HasField("expires_at") else None,
            ended_at=moment(message.ended_at) if message.HasField("ended_at") else None,
            max_duration=message.max_duration.ToTimedelta(),
            end_reason=_END_REASONS.get(message.end_reason, EndReason.UNSPECIFIED),
            upstream_reason=message.upstream_reason,
            usage=Usage.from_proto(message.usage),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedSession:
    """A session that `create_session` made: ready, and attached to nobody."""

    session: SessionRecord
    """As it is now."""
    room: RoomAccess
    """How the end user's browser joins."""
    handle: str = field(repr=False)
    """For `resume_session`. A secret: whoever has it can take the session over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioLimits:
    """Limits for audio."""

    max_chunk_bytes: int
    """Largest audio of one chunk; `say` keeps to it."""
    max_buffered: timedelta
    """How much audio may wait in the gateway per session."""
    max_lead: timedelta
    """How far audio is sent ahead of what is heard."""

    @classmethod
    def from_proto(cls, message: session_service_pb2.AudioLimits) -> Self:
        """Read the gateway's message."""
        return cls(
            max_chunk_bytes=message.max_chunk_bytes,
            max_buffered=message.max_buffered.ToTimedelta(),
            max_lead=message.max_lead.ToTimedelta(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a gateway is and takes."""

    version: str
    """Version of the gateway, such as "0.1.0"."""
    audio_limits: AudioLimits
    """Limits for audio."""
    audio_encodings: tuple[AudioEncoding, ...]
    """Encodings that are taken."""
    min_sample_rate_hz: int
    """Lowest sample rate that is taken."""
    max_sample_rate_hz: int
    """Highest sample rate that is taken."""
    permit_count: int
    """Sessions that may live at once on the account."""
    used_permit_count: int
    """Sessions that live now."""
    waiting_count: int
    """Callers that wait for a place now."""
    detach_grace: timedelta
    """How long a session outlives its last stream by default."""
    draining: bool
    """True when the gateway process drains: it takes nothing new and ends its sessions."""

    @classmethod
    def from_proto(cls, message: session_service_pb2.GetServerInfoResponse) -> Self:
        """Read the gateway's message."""
        return cls(
            version=message.version,
            audio_limits=AudioLimits.from_proto(message.audio_limits),
            audio_encodings=encodings_from_proto(message.audio_encodings),
            min_sample_rate_hz=message.min_sample_rate_hz,
            max_sample_rate_hz=message.max_sample_rate_hz,
            permit_count=message.permit_count,
            used_permit_count=message.used_permit_count,
            waiting_count=message.waiting_count,
            detach_grace=message.detach_grace.ToTimedelta(),
            draining=message.draining,
        )


_OUTCOMES: Mapping[int, OutcomeKind] = {
    audio_pb2.UTTERANCE_OUTCOME_COMPLETED: OutcomeKind.PLAYED,
    audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED: OutcomeKind.INTERRUPTED,
    audio_pb2.UTTERANCE_OUTCOME_FAILED: OutcomeKind.FAILED,
}
_STATES: Mapping[int, SessionState] = {
    session_pb2.SessionState.Value(f"SESSION_STATE_{state.name}"): state for state in SessionState
}
_POSES: Mapping[int, Pose] = {session_pb2.Pose.Value(f"POSE_{pose.name}"): pose for pose in Pose}
_END_REASONS: Mapping[int, EndReason] = {
    session_pb2.EndReason.Value(f"END_REASON_{reason.name}"): reason for reason in EndReason
}


def state_from_proto(number: int) -> SessionState:
    """The state a number stands for; UNSPECIFIED for one of a newer contract."""
    return _STATES.get(number, SessionState.UNSPECIFIED)


def pose_from_proto(number: int) -> Pose:
    """The pose a number stands for; UNSPECIFIED for one of a newer contract."""
    return _POSES.get(number, Pose.UNSPECIFIED)


def state_to_proto(state: SessionState) -> session_pb2.SessionState.ValueType:
    """The number of a state."""
    return session_pb2.SessionState.Value(f"SESSION_STATE_{state.name}")


def video_to_proto(quality: VideoQuality | None, encoding: VideoEncoding | None) -> session_pb2.VideoSettings:
    """Video settings; None leaves the gateway's default."""
    settings = session_pb2.VideoSettings()
    if quality is not None:
        settings.quality = session_pb2.VideoQuality.Value(f"VIDEO_QUALITY_{quality.name}")
    if encoding is not None:
        settings.encoding = session_pb2.VideoEncoding.Value(f"VIDEO_ENCODING_{encoding.name}")
    return settings


def moment(timestamp: timestamp_pb2.Timestamp) -> datetime:
    """A timestamp as an aware time in UTC."""
    return timestamp.ToDatetime(tzinfo=UTC)


def duration_to_proto(duration: timedelta | float) -> duration_pb2.Duration:
    """Return the gateway's message for a duration."""
    message = duration_pb2.Duration()
    message.FromTimedelta(as_timedelta(duration))
    return message


def as_timedelta(duration: timedelta | float) -> timedelta:
    """Return a duration as a timedelta; a number counts seconds."""
    return duration if isinstance(duration, timedelta) else timedelta(seconds=duration)


def error_from_proto(status: status_pb2.Status) -> GatewayError | None:
    """The exception a status stands for; None for OK."""
    return from_status(status) if status.code else None
