"""Mapping between values of the gateway and messages of the contract."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final

from google.protobuf import duration_pb2, timestamp_pb2

from liveavatar.gateway.v1 import audio_pb2, audio_service_pb2, session_pb2, session_service_pb2
from liveavatar_gateway.audio.formats import AudioFormat
from liveavatar_gateway.core import events as ev
from liveavatar_gateway.core.abandonment import LEAST_VIEWER_ABSENCE_S
from liveavatar_gateway.core.errors import AudioFormatUnsupported, InvalidField
from liveavatar_gateway.core.outputs import ContinueAnswer, PauseAnswer
from liveavatar_gateway.core.speech.pauses import PauseTimeout
from liveavatar_gateway.core.states import ContinueCause, EndReason, Outcome, Pose, SessionState, TimeoutAction
from liveavatar_gateway.rpc.errors import status_of
from liveavatar_gateway.rpc.field_bounds import LABELS, MAX_ID_CHARS, is_printable
from liveavatar_gateway.rpc.room_events import set_event
from liveavatar_gateway.sessions.reservations import DEFAULT_HOLD_S, MAX_HOLD_S, MIN_HOLD_S
from liveavatar_gateway.sessions.spec import LiveKitRoom, SessionSpec
from liveavatar_gateway.sessions.view import SessionView
from liveavatar_gateway.upstream.avatars import Avatar
from liveavatar_gateway.upstream.model import AvatarRequest

_STATES: Final[Mapping[SessionState, "session_pb2.SessionState.ValueType"]] = {
    SessionState.CREATING: session_pb2.SESSION_STATE_CREATING,
    SessionState.CONNECTING: session_pb2.SESSION_STATE_CONNECTING,
    SessionState.READY: session_pb2.SESSION_STATE_READY,
    SessionState.RECONNECTING: session_pb2.SESSION_STATE_RECONNECTING,
    SessionState.ENDING: session_pb2.SESSION_STATE_ENDING,
    SessionState.ENDED: session_pb2.SESSION_STATE_ENDED,
}
_POSES: Final[Mapping[Pose, "session_pb2.Pose.ValueType"]] = {
    Pose.UNKNOWN: session_pb2.POSE_UNSPECIFIED,
    Pose.IDLE: session_pb2.POSE_IDLE,
    Pose.LISTENING: session_pb2.POSE_LISTENING,
    Pose.TALKING: session_pb2.POSE_TALKING,
}
_OUTCOMES: Final[Mapping[Outcome, "audio_pb2.UtteranceOutcome.ValueType"]] = {
    Outcome.COMPLETED: audio_pb2.UTTERANCE_OUTCOME_COMPLETED,
    Outcome.INTERRUPTED: audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED,
    Outcome.FAILED: audio_pb2.UTTERANCE_OUTCOME_FAILED,
}
_QUALITIES: Final[Mapping[int, str]] = {
    session_pb2.VIDEO_QUALITY_UNSPECIFIED: "high",
    session_pb2.VIDEO_QUALITY_LOW: "low",
    session_pb2.VIDEO_QUALITY_MEDIUM: "medium",
    session_pb2.VIDEO_QUALITY_HIGH: "high",
    session_pb2.VIDEO_QUALITY_VERY_HIGH: "very_high",
}
_ENCODINGS: Final[Mapping[int, str]] = {
    session_pb2.VIDEO_ENCODING_UNSPECIFIED: "H264",
    session_pb2.VIDEO_ENCODING_H264: "H264",
    session_pb2.VIDEO_ENCODING_VP8: "VP8",
}
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_DEFAULT_PAGE: Final = 100
_MAX_PAGE: Final = 500
_MAX_DETACH_GRACE_S: Final = 300.0
_LEAST_IDLE_S: Final = 1.0
_MAX_SESSION_S: Final = 86_400
"""Longest limit that a caller may request; LiveAvatar's plans allow hours at most."""
_MAX_WAIT_S: Final = 3600.0
_MAX_DURATION_S: Final = 315_576_000_000.0
"""Largest `Duration`, ten thousand years. Source: google/protobuf/duration.proto."""
_NANOS: Final = 1_000_000_000
_IDLE_TIMEOUTS_S: Final = (0.1, 600.0)
_PAUSE_TIMEOUTS_S: Final = (0.1, 600.0)
_CAUSES: Final[Mapping[ContinueCause, "session_service_pb2.ContinueCause.ValueType"]] = {
    ContinueCause.COMMAND: session_service_pb2.CONTINUE_CAUSE_COMMAND,
    ContinueCause.TIMEOUT: session_service_pb2.CONTINUE_CAUSE_TIMEOUT,
    ContinueCause.INTERRUPT: session_service_pb2.CONTINUE_CAUSE_INTERRUPT,
}
_TIMEOUT_ACTIONS: Final[Mapping[int, TimeoutAction]] = {
    session_service_pb2.PAUSE_TIMEOUT_ACTION_UNSPECIFIED: TimeoutAction.CONTINUE,
    session_service_pb2.PAUSE_TIMEOUT_ACTION_CONTINUE: TimeoutAction.CONTINUE,
    session_service_pb2.PAUSE_TIMEOUT_ACTION_INTERRUPT: TimeoutAction.INTERRUPT,
}


def duration(seconds: float) -> duration_pb2.Duration:
    """Return seconds as a `Duration`, to the microsecond; clamped to the range of `Duration`."""
    message = duration_pb2.Duration()
    message.FromTimedelta(timedelta(seconds=max(-_MAX_DURATION_S, min(seconds, _MAX_DURATION_S))))
    return message


def seconds_of(span: duration_pb2.Duration, field: str, *, least_s: float, most_s: float) -> float:
    """Return a caller's `Duration` in seconds.

    Raises:
        InvalidField: it is invalid or out of the range.
    """
    is_valid = -_NANOS < span.nanos < _NANOS and (not span.nanos or not span.seconds or _agree(span))
    seconds = span.seconds + span.nanos / _NANOS
    if not is_valid or not least_s <= seconds <= most_s:
        got = f"{seconds:g} s" if is_valid else f"{span.seconds} s and {span.nanos} ns, which is no duration"
        raise InvalidField(
            f"{field} must be {least_s:g} to {most_s:g} s, got {got}",
            field=field,
            seconds=span.seconds,
            nanos=span.nanos,
        )
    return seconds


def _agree(span: duration_pb2.Duration) -> bool:
    return (span.seconds > 0) == (span.nanos > 0)


def timestamp(at: datetime | None) -> timestamp_pb2.Timestamp | None:
    """Return a UTC time as a `Timestamp`; None leaves a field unset."""
    if at is None:
        return None
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(at)
    return message


def hold_s(request: session_service_pb2.PrepareSessionRequest) -> float:
    """Return the time for which a prepared avatar waits to be taken.

    Raises:
        InvalidField: it is invalid or out of its range.
    """
    if not request.HasField("hold"):
        return DEFAULT_HOLD_S
    return seconds_of(request.hold, "hold", least_s=MIN_HOLD_S, most_s=MAX_HOLD_S)


def permit_wait_s(time_remaining_s: float | None) -> float | None:
    """Return the longest wait of a call: up to its deadline, less the time that a refusal needs to arrive."""
    if time_remaining_s is None:
        return None
    return max(0.0, min(time_remaining_s - min(0.5, time_remaining_s * 0.2), _MAX_WAIT_S))


def day_of(text: str, field: str, *, default: date) -> date:
    """Return a day that a caller wrote as "YYYY-MM-DD"; the default if it is empty.

    Raises:
        InvalidField: it is no day.
    """
    if not text:
        return default
    try:
        # fromisoformat alone accepts other forms too, such as 20261130 and 2026-W49-1.
        if len(text) == len("YYYY-MM-DD") and "W" not in text:
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidField(f"{field} must be a day, as in 2026-11-30", field=field)


def checked_id(value: str, field: str, *, required: bool) -> str:
    """Return an id that the caller chose.

    Raises:
        InvalidField: empty although required, longer than 128 characters, or not printable.
    """
    if (required and not value) or len(value) > MAX_ID_CHARS or not is_printable(value):
        raise InvalidField(f"{field} must have 1 to {MAX_ID_CHARS} printable characters", field=field)
    return value


def page_size(wanted: int) -> int:
    """Return the number of entries of a page: 0 means the default, and the maximum caps larger numbers.

    Raises:
        InvalidField: it is negative.
    """
    if wanted < 0:
        raise InvalidField("page_size must not be negative", field="page_size", page_size=wanted)
    return min(wanted or _DEFAULT_PAGE, _MAX_PAGE)


def spec_of(
    message: session_pb2.SessionSpec,
    *,
    field: str,
    default_detach_grace_s: float,
    default_viewer_absence_s: float = 0.0,
    livekit_rooms: bool,
) -> SessionSpec:
    """Return the spec of a session.

    Args:
        message: The caller's message.
        field: Path of the message in its request, for errors.
        default_detach_grace_s: Grace for callers that set none.
        default_viewer_absence_s: Time without a viewer for callers in their own rooms that set none; 0 for no end.
        livekit_rooms: True if the gateway has a LiveKit server for the callers' own rooms.

    Raises:
        InvalidField: a field is missing or out of its range.
    """
    if not _UUID.fullmatch(message.avatar_id):
        got = f"{message.avatar_id[:MAX_ID_CHARS]!r} is no UUID" if message.avatar_id else "it is empty"
        raise InvalidField(
            f"{field}.avatar_id must be the UUID of an avatar, {got}; see your avatars at app.liveavatar.com",
            field=f"{field}.avatar_id",
            avatar_id=message.avatar_id[:MAX_ID_CHARS],
        )
    return SessionSpec(
        avatar=AvatarRequest(
            avatar_id=message.avatar_id.lower(),
            sandbox=message.sandbox,
            quality=_choice(_QUALITIES, message.video.quality, f"{field}.video.quality"),
            encoding=_choice(_ENCODINGS, message.video.encoding, f"{field}.video.encoding"),
            max_duration_s=_max_duration_s(message, field),
        ),
        detach_grace_s=_detach_grace_s(message, field, default_detach_grace_s),
        labels=_labels(message, field),
        auto_rotate=message.auto_rotate,
        livekit_room=_livekit_room(message, f"{field}.livekit_room", available=livekit_rooms),
        idle_timeout_s=_idle_s(message, f"{field}.idle_timeout"),
        viewer_absence_s=_viewer_absence_s(message, f"{field}.viewer_absence_timeout", default_viewer_absence_s),
    )


def avatar_message(avatar: Avatar) -> session_service_pb2.Avatar:
    """Return an avatar as a message."""
    return session_service_pb2.Avatar(
        id=avatar.id,
        name=avatar.name,
        preview_url=avatar.preview_url,
        is_1080p=avatar.is_1080p,
        sandbox=avatar.sandbox,
    )


def _choice(choices: Mapping[int, str], value: int, field: str) -> str:
    if value not in choices:
        raise InvalidField(f"{field} has the unknown value {value}", field=field, value=value)
    return choices[value]


def _max_duration_s(message: session_pb2.SessionSpec, field: str) -> int | None:
    if not message.HasField("max_duration"):
        return None
    span = message.max_duration
    seconds = seconds_of(span, f"{field}.max_duration", least_s=1, most_s=_MAX_SESSION_S)
    if span.nanos:
        raise InvalidField(
            f"{field}.max_duration must be whole seconds, got {seconds:g} s",
            field=f"{field}.max_duration",
            seconds=span.seconds,
            nanos=span.nanos,
        )
    return span.seconds


def _detach_grace_s(message: session_pb2.SessionSpec, field: str, default_s: float) -> float:
    if not message.HasField("detach_grace"):
        return default_s
    return seconds_of(message.detach_grace, f"{field}.detach_grace", least_s=0, most_s=_MAX_DETACH_GRACE_S)


def _idle_s(message: session_pb2.SessionSpec, field: str) -> float | None:
    if not message.HasField("idle_timeout"):
        return None
    return seconds_of(message.idle_timeout, field, least_s=_LEAST_IDLE_S, most_s=_MAX_SESSION_S)


def _viewer_absence_s(message: session_pb2.SessionSpec, field: str, default_s: float) -> float | None:
    if not message.HasField("viewer_absence_timeout"):
        return (default_s or None) if message.HasField("livekit_room") else None
    if not message.HasField("livekit_room"):
        raise InvalidField(
            f"{field} needs livekit_room: the gateway cannot look into LiveAvatar's rooms; leave it out",
            field=field,
        )
    span = message.viewer_absence_timeout
    if not span.seconds and not span.nanos:
        return None
    return seconds_of(span, field, least_s=LEAST_VIEWER_ABSENCE_S, most_s=_MAX_SESSION_S)


def idle_timeout_s(begin: audio_service_pb2.BeginUtterance) -> float | None:
    """Return the idle limit that a `begin` sets; None if it sets none.

    Raises:
        InvalidField: it is out of its range.
    """
    if not begin.HasField("idle_timeout"):
        return None
    least_s, most_s = _IDLE_TIMEOUTS_S
    return seconds_of(begin.idle_timeout, "begin.idle_timeout", least_s=least_s, most_s=most_s)


def pause_of(pause: session_service_pb2.Pause, field: str) -> tuple[str, PauseTimeout]:
    """Return the utterance of a pause, if it names one, and its timeout.

    Raises:
        InvalidField: the id is malformed, the timeout is out of its range, or its action is unknown.
    """
    utterance_id = checked_id(pause.utterance_id, f"{field}.utterance_id", required=False)
    action = _TIMEOUT_ACTIONS.get(pause.at_timeout)
    if action is None:
        raise InvalidField(
            f"{field}.at_timeout {pause.at_timeout} is not known to this gateway; send CONTINUE or INTERRUPT",
            field=f"{field}.at_timeout",
            at_timeout=pause.at_timeout,
        )
    seconds = None
    if pause.HasField("timeout"):
        least_s, most_s = _PAUSE_TIMEOUTS_S
        seconds = seconds_of(pause.timeout, f"{field}.timeout", least_s=least_s, most_s=most_s)
    return utterance_id, PauseTimeout(seconds=seconds, action=action)


def _labels(message: session_pb2.SessionSpec, field: str) -> dict[str, str]:
    LABELS.check(message.labels, f"{field}.labels")
    return dict(message.labels)


def _livekit_room(message: session_pb2.SessionSpec, field: str, *, available: bool) -> LiveKitRoom | None:
    if not message.HasField("livekit_room"):
        return None
    if not available:
        raise InvalidField(
            f"{field} needs a LiveKit server, and this gateway has none; set GATEWAY_LIVEKIT_URL, "
            "GATEWAY_LIVEKIT_KEY and GATEWAY_LIVEKIT_SECRET there, or leave the field out",
            field=field,
        )
    own = message.livekit_room
    name = checked_id(own.name, f"{field}.name", required=True)
    identity = checked_id(own.avatar_identity, f"{field}.avatar_identity", required=False)
    return LiveKitRoom(name=name, avatar_identity=identity) if identity else LiveKitRoom(name=name)


def format_of(message: audio_pb2.AudioFormat) -> AudioFormat:
    """Return the format of a header; unset fields and 0 mean the default.

    Raises:
        AudioFormatUnsupported: the gateway does not take it.
    """
    try:
        name = audio_pb2.AudioEncoding.Name(message.encoding)
    except ValueError:
        raise AudioFormatUnsupported(
            f"encoding {message.encoding} is not known to this gateway",
            field="header.format.encoding",
            encoding=message.encoding,
        ) from None
    encoding = None if message.encoding == audio_pb2.AUDIO_ENCODING_UNSPECIFIED else name
    return AudioFormat.checked(
        encoding.removeprefix("AUDIO_ENCODING_") if encoding else None,
        message.sample_rate_hz,
        message.channel_count,
    )


def session_message(view: SessionView) -> session_pb2.Session:
    """Return a session as a message."""
    avatar, usage = view.spec.avatar, view.usage
    message = session_pb2.Session(
        id=view.id,
        tenant=view.tenant,
        upstream_session_id=view.upstream_session_id,
        avatar_id=avatar.avatar_id,
        sandbox=avatar.sandbox,
        labels=view.spec.labels,
        state=_STATES[view.state],
        pose=_POSES[view.pose] if view.state is SessionState.READY else session_pb2.POSE_UNSPECIFIED,
        attached=view.attached,
        created_at=timestamp(view.created_at),
        ready_at=timestamp(view.ready_at),
        ended_at=timestamp(view.ended_at),
        end_reason=end_reason(view.end_reason),
        upstream_reason=view.upstream_reason,
        usage=session_pb2.Usage(
            billed_duration=duration(view.billed_s),
            played_duration=duration(usage.played_s),
            utterance_count=usage.utterance_count,
            received_bytes=usage.received_bytes,
            dropped_bytes=usage.dropped_bytes,
            upstream_bytes=usage.upstream_bytes,
            interruption_count=usage.interruption_count,
            reconnect_count=usage.reconnect_count,
            rotation_count=usage.rotation_count,
            repeated_duration=duration(usage.repeated_s),
        ),
        paused=view.paused,
    )
    if view.max_duration_s is not None:
        message.max_duration.CopyFrom(duration(view.max_duration_s))
    if view.expires_at is not None:
        message.expires_at.FromDatetime(view.expires_at)
    return message


def has_labels(spec: SessionSpec, labels: Mapping[str, str]) -> bool:
    """Return whether a session has all of these labels."""
    return all(spec.labels.get(key) == value for key, value in labels.items())


def end_reason(reason: EndReason | None) -> "session_pb2.EndReason.ValueType":
    """Return the reason of an end; unspecified for None."""
    if reason is None:
        return session_pb2.END_REASON_UNSPECIFIED
    return session_pb2.EndReason.Value(f"END_REASON_{reason.value}")


def state(value: SessionState) -> "session_pb2.SessionState.ValueType":
    """Return a state of the contract."""
    return _STATES[value]


def outcome(value: Outcome) -> "audio_pb2.UtteranceOutcome.ValueType":
    """Return an outcome of the contract."""
    return _OUTCOMES[value]


def ended_message(ended: ev.UtteranceEnded) -> session_service_pb2.UtteranceEnded:
    """Return the end of an utterance as a message."""
    return session_service_pb2.UtteranceEnded(
        utterance_id=ended.utterance_id,
        outcome=_OUTCOMES[ended.outcome],
        played=duration(ended.played_s),
        error=status_of(ended.error) if ended.error else None,
        inferred=ended.inferred,
        repeated=duration(ended.repeated_s),
        heard_text=ended.heard_text,
    )


def pause_message(answer: PauseAnswer) -> session_service_pb2.PauseResult:
    """Return the result of a pause as a message."""
    return session_service_pb2.PauseResult(
        utterance_id=answer.utterance_id,
        played=duration(answer.played_s),
        paused=answer.paused,
        heard_text=answer.heard_text,
    )


def continue_message(answer: ContinueAnswer) -> session_service_pb2.ContinueResult:
    """Return the result of a request to continue as a message."""
    return session_service_pb2.ContinueResult(
        utterance_id=answer.utterance_id, repeated=duration(answer.repeated_s), was_paused=answer.was_paused
    )


def interrupt_message(ended: Sequence[ev.UtteranceEnded]) -> session_service_pb2.InterruptResult:
    """Return the result of an interrupt as a message."""
    return session_service_pb2.InterruptResult(interrupted=[ended_message(utterance) for utterance in ended])


def event_message(  # noqa: C901, PLR0912 - an arm for each kind
    entry: ev.LogEntry, final_view: Callable[[], SessionView]
) -> session_service_pb2.SessionEvent:
    """Return a numbered event as a message: the same each time, however late it is sent.

    Args:
        entry: The event.
        final_view: Returns the session as it was at its end, for the last event.
    """
    p = session_service_pb2
    message = p.SessionEvent(sequence=entry.sequence, time=timestamp(entry.at))
    match entry.event:
        case ev.StateChanged(state, previous):
            message.state_changed.CopyFrom(p.StateChanged(state=_STATES[state], previous_state=_STATES[previous]))
        case ev.PoseChanged(pose, old):
            message.pose_changed.CopyFrom(p.PoseChanged(pose=_POSES[pose], previous_pose=_POSES[old]))
        case ev.UtteranceStarted(utterance_id, inferred):
            message.utterance_started.CopyFrom(p.UtteranceStarted(utterance_id=utterance_id, inferred=inferred))
        case ev.UtteranceUnderrun(utterance_id, played_s):
            message.utterance_underrun.CopyFrom(
                p.UtteranceUnderrun(utterance_id=utterance_id, played=duration(played_s))
            )
        case ev.UtteranceEnded() as ended:
            message.utterance_ended.CopyFrom(ended_message(ended))
        case ev.SpeechPaused(utterance_id, played_s, heard):
            message.speech_paused.CopyFrom(
                p.SpeechPaused(utterance_id=utterance_id, played=duration(played_s), heard_text=heard)
            )
        case ev.SpeechContinued(utterance_id, repeated_s, cause):
            message.speech_continued.CopyFrom(
                p.SpeechContinued(utterance_id=utterance_id, repeated=duration(repeated_s), cause=_CAUSES[cause])
            )
        case ev.Expiring(expires_at, reason):
            message.expiring.expires_at.FromDatetime(expires_at)
            message.expiring.reason = end_reason(reason)
        case ev.ExpiryCancelled(reason):
            message.expiry_cancelled.CopyFrom(p.SessionExpiryCancelled(reason=end_reason(reason)))
        case ev.Reconnected(attempts, gap_s, resent_bytes, replaced):
            message.reconnected.CopyFrom(
                p.UpstreamReconnected(
                    attempt_count=attempts, gap=duration(gap_s), resent_bytes=resent_bytes, replaced=replaced
                )
            )
        case ev.Rotated(upstream_session_id=upstream_id, expires_at=limit, room=room):
            access = room and session_pb2.RoomAccess(
                url=room.url, viewer_token=room.token, agent_token=room.agent_token
            )
            message.rotated.CopyFrom(
                p.SessionRotated(
                    upstream_session_id=upstream_id,
                    room=access or session_pb2.RoomAccess(),
                    expires_at=timestamp(limit),
                )
            )
        case ev.Adopted(gap_s):
            message.adopted.CopyFrom(p.SessionAdopted(gap=duration(gap_s)))
        case ev.UpstreamNotice(error, type_, text):
            message.notice.CopyFrom(p.UpstreamNotice(type=type_, message=text, error=error))
        case ev.Ended(error):
            status = status_of(error) if error else None
            message.ended.CopyFrom(p.SessionEnded(session=session_message(final_view()), error=status))
        case _:
            set_event(message, entry.event)
    return message
