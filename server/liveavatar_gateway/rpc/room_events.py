"""Mapping of events of a session's room, and of data for its participants."""

from collections.abc import Mapping
from typing import Final

from liveavatar.gateway.v1 import room_pb2, session_pb2, session_service_pb2
from liveavatar_gateway.core import room_events as ev
from liveavatar_gateway.core.errors import AgentSeatTaken, InvalidField
from liveavatar_gateway.rpc.errors import status_of
from liveavatar_gateway.rpc.field_bounds import MAX_DATA_IDENTITIES, MAX_ID_CHARS, is_printable
from liveavatar_gateway.sessions.room_data import DataMessage
from liveavatar_gateway.sessions.spec import AgentSeat, RoomEventsWish

_KINDS: Final[Mapping[ev.ParticipantKind, "room_pb2.ParticipantKind.ValueType"]] = {
    ev.ParticipantKind.USER: room_pb2.PARTICIPANT_KIND_USER,
    ev.ParticipantKind.AVATAR: room_pb2.PARTICIPANT_KIND_AVATAR,
    ev.ParticipantKind.AGENT: room_pb2.PARTICIPANT_KIND_AGENT,
    ev.ParticipantKind.OTHER: room_pb2.PARTICIPANT_KIND_OTHER,
}
_MICROPHONES: Final[Mapping[ev.Microphone, "room_pb2.MicrophoneState.ValueType"]] = {
    ev.Microphone.NONE: room_pb2.MICROPHONE_STATE_NONE,
    ev.Microphone.MUTED: room_pb2.MICROPHONE_STATE_MUTED,
    ev.Microphone.LIVE: room_pb2.MICROPHONE_STATE_LIVE,
}
_CAUSES: Final[Mapping[ev.RoomLossCause, "room_pb2.RoomDisconnectCause.ValueType"]] = {
    ev.RoomLossCause.LOST: room_pb2.ROOM_DISCONNECT_CAUSE_LOST,
    ev.RoomLossCause.CLOSED: room_pb2.ROOM_DISCONNECT_CAUSE_CLOSED,
    ev.RoomLossCause.REMOVED: room_pb2.ROOM_DISCONNECT_CAUSE_REMOVED,
    ev.RoomLossCause.REFUSED: room_pb2.ROOM_DISCONNECT_CAUSE_REFUSED,
}


def wish_of(message: session_pb2.SessionSpec, seat: AgentSeat, field: str) -> RoomEventsWish | None:
    """Return the events of the room that a spec asks for; None without any.

    Args:
        message: Spec of the session.
        seat: Holder of the agent's seat.
        field: Path of the spec in its request, for errors.

    Raises:
        InvalidField: the gateway cannot join the room, or a topic is repeated.
        AgentSeatTaken: the only seat of LiveAvatar's room is the caller's.
    """
    if not message.HasField("room_events"):
        return None
    field = f"{field}.room_events"
    if message.HasField("agora_room"):
        raise InvalidField(
            f"{field} excludes agora_room: the gateway cannot join an Agora channel; leave it out", field=field
        )
    if message.WhichOneof("connector"):
        raise InvalidField(
            f"{field} excludes a connector: the agent's seat of its room is the hosted agent's; leave it out",
            field=field,
        )
    if seat is AgentSeat.CALLER and not message.HasField("livekit_room"):
        raise AgentSeatTaken(field=field)
    topics = tuple(message.room_events.data_topics)
    if len(set(topics)) < len(topics):
        raise InvalidField(f"{field}.data_topics must not repeat a topic", field=f"{field}.data_topics")
    return RoomEventsWish(data_topics=topics)


def data_of(command: room_pb2.SendData, field: str) -> DataMessage:
    """Return the data that a command sends.

    Args:
        command: The command.
        field: Path of the command in its request, for errors.

    Raises:
        InvalidField: a value is out of its bounds.
    """
    if len(command.payload) > ev.MAX_DATA_BYTES:
        raise InvalidField(
            f"{field}.payload takes at most {ev.MAX_DATA_BYTES} bytes, got {len(command.payload)}",
            field=f"{field}.payload",
            limit=ev.MAX_DATA_BYTES,
            got=len(command.payload),
        )
    if len(command.topic) > MAX_ID_CHARS or not is_printable(command.topic):
        raise InvalidField(
            f"{field}.topic takes at most {MAX_ID_CHARS} printable characters", field=f"{field}.topic"
        )
    identities = command.identities
    if len(identities) > MAX_DATA_IDENTITIES:
        raise InvalidField(
            f"{field}.identities takes at most {MAX_DATA_IDENTITIES} values; leave it empty to reach everybody",
            field=f"{field}.identities",
            limit=MAX_DATA_IDENTITIES,
        )
    for identity in identities:
        if not 1 <= len(identity) <= MAX_ID_CHARS or not is_printable(identity):
            raise InvalidField(
                f"{field}.identities must have 1 to {MAX_ID_CHARS} printable characters each",
                field=f"{field}.identities",
            )
    return DataMessage(payload=command.payload, topic=command.topic, identities=tuple(identities))


def set_event(message: session_service_pb2.SessionEvent, event: ev.RoomEvent) -> None:
    """Set the event of a message."""
    match event:
        case ev.RoomConnected(participants, count):
            listed = [_participant(one) for one in participants]
            message.room_connected.CopyFrom(room_pb2.RoomConnected(participants=listed, participant_count=count))
        case ev.RoomDisconnected(cause, error):
            status = None if error is None else status_of(error)
            message.room_disconnected.CopyFrom(room_pb2.RoomDisconnected(cause=_CAUSES[cause], error=status))
        case ev.ParticipantJoined(participant):
            message.participant_joined.participant.CopyFrom(_participant(participant))
        case ev.ParticipantLeft(participant):
            message.participant_left.participant.CopyFrom(_participant(participant))
        case ev.MicrophoneChanged(identity, microphone):
            message.microphone_changed.CopyFrom(
                room_pb2.MicrophoneChanged(identity=identity, microphone=_MICROPHONES[microphone])
            )
        case ev.AvatarTracksChanged(identity, has_audio, has_video):
            message.avatar_tracks_changed.CopyFrom(
                room_pb2.AvatarTracksChanged(identity=identity, has_audio=has_audio, has_video=has_video)
            )
        case ev.ViewersChanged(present):
            message.viewers_changed.CopyFrom(room_pb2.ViewersChanged(present=present))
        case ev.DataReceived(identity, topic, payload):
            message.data_received.CopyFrom(room_pb2.DataReceived(identity=identity, topic=topic, payload=payload))
        case ev.DataDropped(count, identities):
            message.data_dropped.CopyFrom(room_pb2.DataDropped(count=count, identities=identities))


def _participant(participant: ev.RoomParticipant) -> room_pb2.RoomParticipant:
    return room_pb2.RoomParticipant(
        identity=participant.identity,
        name=participant.name,
        kind=_KINDS[participant.kind],
        microphone=_MICROPHONES[participant.microphone],
        has_video=participant.has_video,
    )
