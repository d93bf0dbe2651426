"""Options of a new session."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from datetime import timedelta
from typing import TypedDict

from liveavatar.gateway.connectors import Connector
from liveavatar.gateway.model import (
    AgentSeat,
    AgoraRoom,
    LiveKitRoom,
    VideoEncoding,
    VideoQuality,
    Viewer,
    duration_to_proto,
    video_to_proto,
)
from liveavatar.gateway.room import RoomEvents
from liveavatar.gateway.v1 import session_pb2


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Options of a new session, for `open_session` and `create_session`; only the avatar is required.

    Both calls also take the avatar's id and these options as keywords: `open_session(avatar_id, sandbox=True)`.
    """

    avatar_id: str
    """LiveAvatar's id of the avatar, a UUID."""
    _: KW_ONLY
    sandbox: bool = False
    """Use LiveAvatar's sandbox: free of charge, at most 60 s, and only with the sandbox avatar."""
    quality: VideoQuality | str | None = None
    """Size of the video. Default: 720p."""
    video_encoding: VideoEncoding | str | None = None
    """Codec of the video. Default: H.264."""
    max_duration: timedelta | float | None = None
    """Time after which LiveAvatar ends the session; a number counts seconds. Default: the limit of the plan."""
    detach_grace: timedelta | float | None = None
    """Time for which the session outlives a broken connection, at most 5 min; a number counts seconds.
    Default: the gateway's own, 30 s unless configured otherwise."""
    labels: Mapping[str, str] | None = None
    """Labels of the caller's choice, to select by in `list_sessions` and `watch`."""
    livekit_room: LiveKitRoom | str | None = None
    """Existing LiveKit room in which the avatar appears, by name or as a `LiveKitRoom`. Default: a room that
    LiveAvatar creates and that ends with the session."""
    auto_rotate: bool = False
    """Replace the avatar by a fresh avatar before the duration limit, and announce each replacement with a
    `SessionRotatedEvent`. Both avatars are billed while they overlap. Default: the session ends at the limit."""
    idle_timeout: timedelta | float | None = None
    """Time without speech, commands and new streams after which the session ends, 1 s to 24 h; a number counts
    seconds. `SessionExpiringEvent` announces the end. Default: no such end."""
    viewer_absence_timeout: timedelta | float | None = None
    """Time after which the session ends if nobody in `livekit_room` can see the avatar, at least 5 s, or 0 for no
    such end; a number counts seconds. `SessionExpiringEvent` announces the end. Default: the gateway's own, no
    such end unless configured otherwise."""
    agent_seat: AgentSeat | str | None = None
    """Holder of the agent's seat in the room: CALLER for an agent of your own, which joins with
    `session.room.agent_token`. Default: the gateway's."""
    viewers: Sequence[Viewer] = ()
    """Viewers that get a token of their own in `session.room.viewers`, at most 32; in `livekit_room` only."""
    agora_room: AgoraRoom | None = None
    """Agora channel in which the avatar appears, instead of a LiveKit room."""
    room_events: RoomEvents | None = None
    """Events of the room: participants, the avatar's tracks, viewers and data messages. The gateway joins the room
    for them. Default: none."""
    connector: Connector | None = None
    """Hosted agent that hears the user and speaks through the avatar, in a room that LiveAvatar creates. Calls to
    speak or to listen are refused with `AgentHosted`. Default: you speak."""

    def to_proto(self) -> session_pb2.SessionSpec:
        """Return the gateway's message, without the fields that are None: the gateway's defaults apply to them.

        Raises:
            ValueError: no such video quality, encoding or seat.
        """
        spec = session_pb2.SessionSpec(
            avatar_id=self.avatar_id, sandbox=self.sandbox, labels=self.labels, auto_rotate=self.auto_rotate
        )
        if self.quality is not None or self.video_encoding is not None:
            video = video_to_proto(
                None if self.quality is None else VideoQuality(self.quality),
                None if self.video_encoding is None else VideoEncoding(self.video_encoding),
            )
            spec.video.CopyFrom(video)
        durations = (
            (spec.max_duration, self.max_duration),
            (spec.detach_grace, self.detach_grace),
            (spec.idle_timeout, self.idle_timeout),
            (spec.viewer_absence_timeout, self.viewer_absence_timeout),
        )
        for field, value in durations:
            if value is not None:
                field.CopyFrom(duration_to_proto(value))
        if self.livekit_room is not None:
            room = self.livekit_room
            spec.livekit_room.CopyFrom((LiveKitRoom(name=room) if isinstance(room, str) else room).to_proto())
        if self.agent_seat is not None:
            spec.agent_seat = session_pb2.AgentSeat.Value(f"AGENT_SEAT_{AgentSeat(self.agent_seat).name}")
        spec.viewers.extend(viewer.to_proto() for viewer in self.viewers)
        if self.agora_room is not None:
            spec.agora_room.CopyFrom(self.agora_room.to_proto())
        if self.room_events is not None:
            spec.room_events.CopyFrom(self.room_events.to_proto())
        if self.connector is not None:
            self.connector.add_to(spec)
        return spec


class SessionKeywords(TypedDict, total=False):
    """The fields of `SessionOptions` as keyword arguments: type checkers unpack a TypedDict only (PEP 692)."""

    sandbox: bool
    quality: VideoQuality | str | None
    video_encoding: VideoEncoding | str | None
    max_duration: timedelta | float | None
    detach_grace: timedelta | float | None
    labels: Mapping[str, str] | None
    livekit_room: LiveKitRoom | str | None
    auto_rotate: bool
    idle_timeout: timedelta | float | None
    viewer_absence_timeout: timedelta | float | None
    agent_seat: AgentSeat | str | None
    viewers: Sequence[Viewer]
    agora_room: AgoraRoom | None
    room_events: RoomEvents | None
    connector: Connector | None


def session_options(avatar: str | SessionOptions, keywords: SessionKeywords) -> SessionOptions:
    """Return the options of a call: `avatar` as an id or as options, in which the keywords replace fields.

    Raises:
        TypeError: a keyword names no option.
    """
    return (
        replace(avatar, **keywords) if isinstance(avatar, SessionOptions) else SessionOptions(avatar, **keywords)
    )
