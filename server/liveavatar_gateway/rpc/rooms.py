"""Mapping of rooms, of those who join them, and of their access."""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from liveavatar.gateway.v1 import session_pb2
from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.rooms.access import AgoraRoom, RoomAccess, Viewer, ViewerAccess
from liveavatar_gateway.rooms.tokens import VIEWER_TTL
from liveavatar_gateway.rpc.field_bounds import (
    MAX_AGORA_TOKEN_CHARS,
    MAX_CHANNEL_CHARS,
    MAX_ID_CHARS,
    MAX_VIEWERS,
    is_printable,
)
from liveavatar_gateway.rpc.mapping import checked_id, seconds_of, timestamp
from liveavatar_gateway.sessions.spec import AgentSeat, LiveKitRoom
from liveavatar_gateway.sessions.viewers import MAX_LIFETIME_S

_LEAST_LIFETIME_S: Final = 60.0
_TOKEN: Final = re.compile(r"[!-~]+")
_SEATS: Final = {
    session_pb2.AGENT_SEAT_UNSPECIFIED: AgentSeat.GATEWAY,
    session_pb2.AGENT_SEAT_GATEWAY: AgentSeat.GATEWAY,
    session_pb2.AGENT_SEAT_CALLER: AgentSeat.CALLER,
}


def agent_seat(message: session_pb2.SessionSpec, field: str) -> AgentSeat:
    """Return the holder of the agent's seat.

    Args:
        message: Spec of the session.
        field: Path of the spec in its request, for errors.

    Raises:
        InvalidField: the value is unknown, or the room has no seat.
    """
    seat = _SEATS.get(message.agent_seat)
    field = f"{field}.agent_seat"
    if seat is None:
        raise InvalidField(
            f"{field} has the unknown value {message.agent_seat}", field=field, value=message.agent_seat
        )
    if seat is AgentSeat.CALLER and message.HasField("agora_room"):
        raise InvalidField(
            f"{field} must not be CALLER with agora_room: the gateway has no token with which your agent could "
            "join an Agora channel",
            field=field,
        )
    return seat


def agora_room(message: session_pb2.SessionSpec, field: str) -> AgoraRoom | None:
    """Return the Agora channel of the avatar; None if the spec has none.

    Args:
        message: Spec of the session.
        field: Path of the spec in its request, for errors.

    Raises:
        InvalidField: a value is missing or out of its bounds, or other fields exclude the channel.
    """
    if not message.HasField("agora_room"):
        return None
    if message.HasField("livekit_room"):
        raise InvalidField(
            f"{field}.agora_room excludes livekit_room: an avatar is in one room; leave out one of them",
            field=f"{field}.agora_room",
        )
    if message.auto_rotate:
        raise InvalidField(
            f"{field}.auto_rotate excludes agora_room: a fresh avatar would join the channel with the uid of the "
            "previous avatar, and put it out; leave it out, and open a new session before the limit",
            field=f"{field}.auto_rotate",
        )
    own, field = message.agora_room, f"{field}.agora_room"
    return AgoraRoom(
        app_id=checked_id(own.app_id, f"{field}.app_id", required=True),
        channel=_channel(own.channel, f"{field}.channel"),
        uid=checked_id(own.uid, f"{field}.uid", required=True),
        token=_agora_token(own.token, f"{field}.token"),
    )


def _channel(value: str, field: str) -> str:
    if not 1 <= len(value) <= MAX_CHANNEL_CHARS or not is_printable(value):
        raise InvalidField(
            f"{field} must have 1 to {MAX_CHANNEL_CHARS} printable characters",
            field=field,
            limit=MAX_CHANNEL_CHARS,
        )
    return value


def _agora_token(value: str, field: str) -> str:
    if len(value) > MAX_AGORA_TOKEN_CHARS or not _TOKEN.fullmatch(value):
        raise InvalidField(
            f"{field} must have 1 to {MAX_AGORA_TOKEN_CHARS} visible ASCII characters",
            field=field,
            limit=MAX_AGORA_TOKEN_CHARS,
        )
    return value


def viewers_of_spec(
    message: session_pb2.SessionSpec, room: LiveKitRoom | None, *, field: str
) -> tuple[Viewer, ...]:
    """Return the viewers that a spec names.

    Args:
        message: Spec of the session.
        room: LiveKit room of the caller's own; None without one.
        field: Path of the spec in its request, for errors.

    Raises:
        InvalidField: there is no room in which they could join, or see `viewers`.
    """
    if not message.viewers:
        return ()
    if room is None:
        raise InvalidField(
            f"{field}.viewers needs livekit_room: LiveAvatar gives one viewer token for a room of its own, and "
            "the gateway signs none for other rooms; leave it out",
            field=f"{field}.viewers",
        )
    return viewers(message.viewers, room, field=f"{field}.viewers")


def viewers(messages: Sequence[session_pb2.Viewer], room: LiveKitRoom, *, field: str) -> tuple[Viewer, ...]:
    """Return viewers that are to join a LiveKit room of the caller's own.

    Args:
        messages: The viewers.
        room: The room.
        field: Path of the viewers in their request, for errors.

    Raises:
        InvalidField: there are none or too many, or a value is missing, out of its bounds, or used twice.
    """
    if not 1 <= len(messages) <= MAX_VIEWERS:
        raise InvalidField(f"{field} takes 1 to {MAX_VIEWERS} viewers", field=field, limit=MAX_VIEWERS)
    found: dict[str, Viewer] = {}
    for number, message in enumerate(messages):
        viewer = _viewer(message, room, found, field=f"{field}[{number}]")
        found[viewer.identity] = viewer
    return tuple(found.values())


def _viewer(message: session_pb2.Viewer, room: LiveKitRoom, others: Collection[str], *, field: str) -> Viewer:
    identity = checked_id(message.identity, f"{field}.identity", required=True)
    problem = ""
    if room.is_reserved(identity):
        problem = "is that of an avatar or agent of the session, whom the viewer would put out"
    elif identity in others:
        problem = "is that of another viewer of the request, whom this one would put out"
    if problem:
        raise InvalidField(f"{field}.identity {problem}; choose another", field=f"{field}.identity")
    lifetime_s = VIEWER_TTL.total_seconds()
    if message.HasField("lifetime"):
        lifetime_s = seconds_of(
            message.lifetime, f"{field}.lifetime", least_s=_LEAST_LIFETIME_S, most_s=MAX_LIFETIME_S
        )
    if len(message.name) > MAX_ID_CHARS or not is_printable(message.name):
        raise InvalidField(
            f"{field}.name takes at most {MAX_ID_CHARS} printable characters", field=f"{field}.name"
        )
    return Viewer(identity=identity, name=message.name, can_publish=message.can_publish, lifetime_s=lifetime_s)


def room_message(access: RoomAccess | None) -> session_pb2.RoomAccess:
    """Return access to a room; empty for None."""
    if access is None:
        return session_pb2.RoomAccess()
    return session_pb2.RoomAccess(
        url=access.url,
        viewer_token=access.viewer_token,
        agent_token=access.agent_token,
        viewers=viewer_messages(access.viewers),
    )


def viewer_messages(viewers: Iterable[ViewerAccess]) -> list[session_pb2.ViewerAccess]:
    """Return the access of viewers as messages."""
    return [
        session_pb2.ViewerAccess(
            identity=viewer.identity, token=viewer.token, expires_at=timestamp(viewer.expires_at)
        )
        for viewer in viewers
    ]
