"""Messages of the gateway as plain values: sessions, rooms, outcomes, limits."""

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
    """State of a session. It only moves down this list; READY and RECONNECTING alternate."""

    UNSPECIFIED = "unspecified"
    """Not known yet, or a state of a newer gateway."""
    CREATING = "creating"
    """Waiting for a free permit, then for LiveAvatar to start the avatar."""
    CONNECTING = "connecting"
    """Started and billed; the gateway buffers audio."""
    READY = "ready"
    """The avatar speaks the audio it receives."""
    RECONNECTING = "reconnecting"
    """The gateway lost the avatar and is reconnecting; it buffers audio."""
    ENDING = "ending"
    """No new speech is accepted; the avatar is being stopped."""
    ENDED = "ended"
    """The session is over."""


class Pose(enum.StrEnum):
    """Pose of the avatar while the session is ready."""

    UNSPECIFIED = "unspecified"
    """Not known, or the session is not ready."""
    IDLE = "idle"
    """Idle loop."""
    LISTENING = "listening"
    """Attentive, looking at the user."""
    TALKING = "talking"
    """Speaking."""


class EndReason(enum.StrEnum):
    """Reason for the end of a session."""

    UNSPECIFIED = "unspecified"
    """The session has not ended, or a reason of a newer gateway."""
    CALLER_ENDED = "caller_ended"
    """A caller ended the session."""
    CALLER_LOST = "caller_lost"
    """No stream was attached for `detach_grace`."""
    IDLE = "idle"
    """The session was not used for `idle_timeout`, or LiveAvatar saw no activity (`upstream_reason` is set)."""
    MAX_DURATION = "max_duration"
    """The session's `max_duration` ran out."""
    UPSTREAM_ENDED = "upstream_ended"
    """LiveAvatar ended the session; `upstream_reason` holds its reason."""
    UPSTREAM_FAILED = "upstream_failed"
    """The connection to LiveAvatar was lost, or the avatar never became ready."""
    OUT_OF_CREDITS = "out_of_credits"
    """The LiveAvatar account ran out of credits."""
    DRAINED = "drained"
    """The gateway shut down."""
    CREATE_FAILED = "create_failed"
    """The session could not be created."""
    OPERATOR = "operator"
    """An operator of the gateway ended the session."""
    TENANT_SUSPENDED = "tenant_suspended"
    """An operator of the gateway suspended or removed the tenant."""
    NO_VIEWERS = "no_viewers"
    """Nobody could see the avatar for `viewer_absence_timeout`."""
    AGENT_HUNG_UP = "agent_hung_up"
    """The hosted agent of the session's connector hung up."""


class AgentSeat(enum.StrEnum):
    """Holder of the agent's seat in the avatar's room."""

    GATEWAY = "gateway"
    """The gateway may join the room for its callers; the default."""
    CALLER = "caller"
    """An agent of the caller's own joins the room with `RoomAccess.agent_token`."""


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
    """Kind of an utterance's end."""

    PLAYED = "played"
    """All of the utterance was heard."""
    INTERRUPTED = "interrupted"
    """Interrupted; `played` is the time that was heard."""
    FAILED = "failed"
    """The audio was refused, its source failed or the session ended; `error` is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of an utterance."""

    utterance_id: str
    """Id of the utterance."""
    kind: OutcomeKind
    """Kind of the end; compares equal to "played", "interrupted" or "failed"."""
    played: timedelta
    """Audio that was heard: truncate the agent's text here."""
    error: Exception | None = None
    """Reason of a failure: a `GatewayError`, or the exception of the audio's iterator. None otherwise."""
    inferred: bool = False
    """True when LiveAvatar sent no event and the gateway inferred the end from its own clock."""
    repeated: timedelta = timedelta()
    """Audio that was heard a second time after pauses; not part of `played`."""
    heard_text: str = ""
    """Text that was heard, of the `words` given to `say`; empty without them."""

    @classmethod
    def from_proto(cls, message: audio_service_pb2.AudioEnded | session_service_pb2.UtteranceEnded) -> Self:
        """Convert the report of either stream on the end of an utterance."""
        kind = _OUTCOMES.get(message.outcome, OutcomeKind.FAILED)
        return cls(
            utterance_id=message.utterance_id,
            kind=kind,
            played=message.played.ToTimedelta(),
            error=error_from_proto(message.error) if kind is OutcomeKind.FAILED else None,
            inferred=message.inferred,
            repeated=message.repeated.ToTimedelta(),
            heard_text=message.heard_text,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of an utterance."""

    received_bytes: int = 0
    """Bytes that the gateway has received, in the caller's format."""
    confirmed_bytes: int = 0
    """Bytes that are not needed again, in the caller's format: acknowledged, and heard more than a second ago."""
    played: timedelta = timedelta()
    """Audio that was heard."""
    underrun_count: int = 0
    """Number of silences inside the utterance for lack of audio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """Result of an interrupt."""

    interrupted: tuple[Outcome, ...]
    """Interrupted utterances, the utterance being spoken first; empty when the avatar was silent."""

    @property
    def played(self) -> timedelta:
        """Time for which the utterance being spoken was heard; zero when none was being spoken."""
        return self.interrupted[0].played if self.interrupted else timedelta()

    @property
    def heard_text(self) -> str:
        """Text that was heard of the utterance being spoken; empty when none was, or without `words`."""
        return self.interrupted[0].heard_text if self.interrupted else ""

    @classmethod
    def from_proto(cls, message: session_service_pb2.InterruptResult) -> Self:
        """Convert the gateway's answer."""
        return cls(interrupted=tuple(Outcome.from_proto(ended) for ended in message.interrupted))


class PauseTimeoutAction(enum.StrEnum):
    """Action at the timeout of a pause."""

    CONTINUE = "continue"
    """Continue as `continue_speech` does."""
    INTERRUPT = "interrupt"
    """Interrupt the paused utterance and all behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Result of a pause."""

    utterance_id: str
    """Utterance that is paused; empty when none was being spoken, or when the pause had no effect."""
    played: timedelta
    """Audio of the utterance that was heard."""
    paused: bool
    """True when speech is paused; False when the named utterance was not spoken, or an interrupt came first."""
    heard_text: str = ""
    """Text of the utterance that was heard; empty without `words`."""

    @classmethod
    def from_proto(cls, message: session_service_pb2.PauseResult) -> Self:
        """Convert the gateway's answer."""
        return cls(
            utterance_id=message.utterance_id,
            played=message.played.ToTimedelta(),
            paused=message.paused,
            heard_text=message.heard_text,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """Result of `continue_speech`."""

    utterance_id: str
    """Utterance that continues; empty when none was paused."""
    repeated: timedelta
    """Length of the step back to the last silence: audio that is heard a second time."""
    was_paused: bool
    """True when speech was paused."""

    @classmethod
    def from_proto(cls, message: session_service_pb2.ContinueResult) -> Self:
        """Convert the gateway's answer."""
        return cls(
            utterance_id=message.utterance_id,
            repeated=message.repeated.ToTimedelta(),
            was_paused=message.was_paused,
        )


def pause_to_proto(
    utterance_id: str, limit: float | timedelta | None, at_timeout: PauseTimeoutAction | str
) -> session_service_pb2.Pause:
    """Return the gateway's message for a pause.

    Raises:
        ValueError: `at_timeout` is no action.
    """
    pause = session_service_pb2.Pause(
        utterance_id=utterance_id, at_timeout=_TIMEOUT_ACTIONS[PauseTimeoutAction(at_timeout)]
    )
    if limit is not None:
        pause.timeout.FromTimedelta(limit if isinstance(limit, timedelta) else timedelta(seconds=limit))
    return pause


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitRoom:
    """Existing LiveKit room in which the avatar appears: on the gateway's LiveKit server, or with `url` on yours.

    The gateway neither creates nor closes the room, and its other participants stay when the session ends. A
    gateway without a LiveKit server refuses a room without `url` with InvalidField, as every gateway does a wrong
    URL or token.
    """

    name: str
    """Name of the room, 1 to 128 printable characters."""
    avatar_identity: str = ""
    """Identity of the avatar in the room. Default: "avatar", or that of `avatar_token`. Later avatars of the
    session get the suffix "-2", "-3" and so on."""
    url: str = ""
    """URL of your LiveKit server, "wss://...". Default: the gateway's server, for which it issues all tokens."""
    avatar_token: str = field(default="", repr=False)
    """Token with which the avatar joins, with the grants roomJoin, canPublish, canSubscribe and canPublishData.
    Required with `url`."""
    listener_token: str = field(default="", repr=False)
    """Token with which the gateway joins for `listen`. Only with `url`."""
    viewer_token: str = field(default="", repr=False)
    """Token that `session.room.viewer_token` is to be. Only with `url`."""

    def to_proto(self) -> session_pb2.LiveKitRoom:
        """Return the gateway's message."""
        return session_pb2.LiveKitRoom(
            name=self.name,
            avatar_identity=self.avatar_identity,
            url=self.url,
            avatar_token=self.avatar_token,
            listener_token=self.listener_token,
            viewer_token=self.viewer_token,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgoraRoom:
    """Existing Agora channel in which the avatar appears; the gateway passes it on and knows no more of it."""

    app_id: str
    """App id of the Agora project."""
    token: str = field(repr=False)
    """Token with which the avatar joins; it must outlive the session."""
    channel: str
    """Name of the channel, 1 to 64 printable characters."""
    uid: str
    """User id of the avatar; in the channel it must be the avatar's alone."""

    def to_proto(self) -> session_pb2.AgoraRoom:
        """Return the gateway's message."""
        return session_pb2.AgoraRoom(app_id=self.app_id, token=self.token, channel=self.channel, uid=self.uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Viewer of the avatar in a `LiveKitRoom`."""

    identity: str
    """Identity in the room, 1 to 128 printable characters; not that of an avatar or agent."""
    name: str = ""
    """Name for people."""
    can_publish: bool = False
    """Let the viewer publish audio, video and data too. Default: it only sees and hears."""
    lifetime: timedelta | float | None = None
    """Time in which the viewer can join with its token, 1 min to 24 h; a number counts seconds. Default: 1 h."""

    def to_proto(self) -> session_pb2.Viewer:
        """Return the gateway's message."""
        message = session_pb2.Viewer(identity=self.identity, name=self.name, can_publish=self.can_publish)
        if self.lifetime is not None:
            message.lifetime.CopyFrom(duration_to_proto(self.lifetime))
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerAccess:
    """Access of one viewer to a `LiveKitRoom`."""

    identity: str
    """Identity of the viewer."""
    token: str = field(repr=False)
    """Token that lets its holder join the room as this viewer: give it to this viewer only."""
    expires_at: datetime
    """Time until which the token is valid for joining."""

    @classmethod
    def from_proto(cls, message: session_pb2.ViewerAccess) -> Self:
        """Convert the gateway's message."""
        return cls(identity=message.identity, token=message.token, expires_at=moment(message.expires_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAccess:
    """Access of end users' browsers, and of the caller's agent, to the avatar's room; empty for an `AgoraRoom`."""

    url: str
    """URL of the LiveKit server, "wss://..."."""
    viewer_token: str = field(repr=False)
    """Token that lets its holder join the room as a viewer: give it to the end user only."""
    agent_token: str = field(default="", repr=False)
    """Token with which the caller's own agent joins; empty unless `agent_seat` is CALLER. A secret."""
    viewers: tuple[ViewerAccess, ...] = ()
    """Fresh tokens of the viewers that the options name, less those that were removed."""

    @classmethod
    def from_proto(cls, message: session_pb2.RoomAccess) -> Self:
        """Convert the gateway's message."""
        return cls(
            url=message.url,
            viewer_token=message.viewer_token,
            agent_token=message.agent_token,
            viewers=tuple(ViewerAccess.from_proto(viewer) for viewer in message.viewers),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Usage of a session."""

    billed_duration: timedelta
    """Time from the start of the avatar to its end, or to the present."""
    played_duration: timedelta
    """Speech that was heard."""
    utterance_count: int
    """Number of utterances that were begun."""
    received_bytes: int
    """Audio received from the caller, bytes in the caller's formats."""
    dropped_bytes: int
    """Audio that arrived too late to be spoken, bytes."""
    upstream_bytes: int = 0
    """Audio sent to the avatar, including resends, bytes of 24 kHz mono 16-bit PCM."""
    interruption_count: int = 0
    """Number of interrupts of speech."""
    reconnect_count: int = 0
    """Number of reconnections to the avatar."""
    rotation_count: int = 0
    """Number of avatars that were replaced before their limit."""
    repeated_duration: timedelta = timedelta()
    """Speech that was heard a second time after pauses; not part of `played_duration`."""

    @classmethod
    def from_proto(cls, message: session_pb2.Usage) -> Self:
        """Convert the gateway's message."""
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
            repeated_duration=message.repeated_duration.ToTimedelta(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """Snapshot of one session."""

    id: str
    """Id at the gateway, as all calls expect it."""
    upstream_session_id: str
    """Id at LiveAvatar, for its dashboard and support; empty until LiveAvatar has created the session."""
    avatar_id: str
    """Id of the avatar."""
    sandbox: bool
    """True for a session in LiveAvatar's sandbox."""
    labels: Mapping[str, str]
    """Labels of the caller."""
    state: SessionState
    """State of the session."""
    pose: Pose
    """Pose of the avatar."""
    attached: bool
    """True while an `Attach` stream is attached."""
    created_at: datetime | None
    """Time of the request (UTC, like all times here)."""
    ready_at: datetime | None
    """Time at which the avatar became ready."""
    expires_at: datetime | None
    """Time at which LiveAvatar will end the session."""
    ended_at: datetime | None
    """Time of the end."""
    max_duration: timedelta
    """Duration limit in force, counted from the start of the avatar."""
    end_reason: EndReason
    """Reason for the end."""
    upstream_reason: str
    """LiveAvatar's reason for the end; often empty."""
    usage: Usage
    """Usage so far."""
    tenant: str
    """Tenant of the session; empty where callers need no credential."""
    paused: bool = False
    """True while speech is paused."""

    @classmethod
    def from_proto(cls, message: session_pb2.Session) -> Self:
        """Convert the gateway's message."""
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
            end_reason=end_reason_from_proto(message.end_reason),
            upstream_reason=message.upstream_reason,
            usage=Usage.from_proto(message.usage),
            tenant=message.tenant,
            paused=message.paused,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedSession:
    """Session created by `create_session`: ready, without an attached stream."""

    session: SessionRecord
    """Record of the session."""
    room: RoomAccess
    """Room for the end user's browser."""
    handle: str = field(repr=False)
    """Handle for `resume_session`. A secret: its holder can take the session over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Avatar that `prepare_session` has started, and that waits for its caller."""

    id: str
    """Id, for the keyword `reservation` of `open_session` and `create_session`."""
    expires_at: datetime
    """Time at which the gateway ends the avatar if nobody has taken it."""

    @classmethod
    def from_proto(cls, message: session_service_pb2.Reservation) -> Self:
        """Convert the gateway's message."""
        return cls(id=message.id, expires_at=message.expires_at.ToDatetime(UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioLimits:
    """Limits for audio."""

    max_chunk_bytes: int
    """Largest chunk, bytes; `say` respects this limit."""
    max_buffered: timedelta
    """Most audio that a session may have waiting in the gateway."""
    max_lead: timedelta
    """Most audio that is sent to the avatar ahead of playout."""

    @classmethod
    def from_proto(cls, message: session_service_pb2.AudioLimits) -> Self:
        """Convert the gateway's message."""
        return cls(
            max_chunk_bytes=message.max_chunk_bytes,
            max_buffered=message.max_buffered.ToTimedelta(),
            max_lead=message.max_lead.ToTimedelta(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Avatar:
    """Avatar that the caller may use."""

    id: str
    """Id for `open_session` and `create_session`."""
    name: str
    """Name for people."""
    preview_url: str
    """Address of a picture; empty when LiveAvatar has none."""
    is_1080p: bool
    """True when the avatar can be shown in `VideoQuality.VERY_HIGH`."""
    sandbox: bool
    """True for the avatar of LiveAvatar's sandbox, the only avatar for sessions with `sandbox`."""

    @classmethod
    def from_proto(cls, message: session_service_pb2.Avatar) -> Self:
        """Convert the gateway's message."""
        return cls(
            id=message.id,
            name=message.name,
            preview_url=message.preview_url,
            is_1080p=message.is_1080p,
            sandbox=message.sandbox,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """Version, limits and supported formats of a gateway."""

    version: str
    """Version of the gateway, such as "0.1.0"."""
    audio_limits: AudioLimits
    """Limits for audio."""
    audio_encodings: tuple[AudioEncoding, ...]
    """Supported encodings."""
    min_sample_rate_hz: int
    """Lowest supported sample rate."""
    max_sample_rate_hz: int
    """Highest supported sample rate."""
    permit_count: int
    """Number of sessions that the account allows at once."""
    used_permit_count: int
    """Number of permits in use."""
    waiting_count: int
    """Number of callers that wait for a permit."""
    detach_grace: timedelta
    """Default time for which a session outlives its last stream."""
    draining: bool
    """True while the gateway process drains: it accepts no new sessions and ends its sessions."""

    @classmethod
    def from_proto(cls, message: session_service_pb2.GetServerInfoResponse) -> Self:
        """Convert the gateway's message."""
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
_TIMEOUT_ACTIONS: Mapping[PauseTimeoutAction, "session_service_pb2.PauseTimeoutAction.ValueType"] = {
    PauseTimeoutAction.CONTINUE: session_service_pb2.PAUSE_TIMEOUT_ACTION_CONTINUE,
    PauseTimeoutAction.INTERRUPT: session_service_pb2.PAUSE_TIMEOUT_ACTION_INTERRUPT,
}
_STATES: Mapping[int, SessionState] = {
    session_pb2.SessionState.Value(f"SESSION_STATE_{state.name}"): state for state in SessionState
}
_POSES: Mapping[int, Pose] = {session_pb2.Pose.Value(f"POSE_{pose.name}"): pose for pose in Pose}
_END_REASONS: Mapping[int, EndReason] = {
    session_pb2.EndReason.Value(f"END_REASON_{reason.name}"): reason for reason in EndReason
}


def state_from_proto(number: int) -> SessionState:
    """Return the state of a number; UNSPECIFIED for a state of a newer contract."""
    return _STATES.get(number, SessionState.UNSPECIFIED)


def pose_from_proto(number: int) -> Pose:
    """Return the pose of a number; UNSPECIFIED for a pose of a newer contract."""
    return _POSES.get(number, Pose.UNSPECIFIED)


def end_reason_from_proto(number: int) -> EndReason:
    """Return the reason of a number; UNSPECIFIED for a reason of a newer contract."""
    return _END_REASONS.get(number, EndReason.UNSPECIFIED)


def state_to_proto(state: SessionState) -> session_pb2.SessionState.ValueType:
    """Return the number of a state."""
    return session_pb2.SessionState.Value(f"SESSION_STATE_{state.name}")


def video_to_proto(quality: VideoQuality | None, encoding: VideoEncoding | None) -> session_pb2.VideoSettings:
    """Return video settings; None leaves the gateway's default."""
    settings = session_pb2.VideoSettings()
    if quality is not None:
        settings.quality = session_pb2.VideoQuality.Value(f"VIDEO_QUALITY_{quality.name}")
    if encoding is not None:
        settings.encoding = session_pb2.VideoEncoding.Value(f"VIDEO_ENCODING_{encoding.name}")
    return settings


def moment(timestamp: timestamp_pb2.Timestamp) -> datetime:
    """Return a timestamp as an aware time in UTC."""
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
    """Return the exception of a status; None for OK."""
    return from_status(status) if status.code else None
