"""Messages of a room's events, and of data for its participants."""

from datetime import UTC, datetime

import pytest
from google.protobuf import json_format

from liveavatar.gateway.v1 import connector_pb2, room_pb2, session_pb2
from liveavatar_gateway.core import room_events as ev
from liveavatar_gateway.core.errors import AgentSeatTaken, InvalidField, RoomTokenMissing
from liveavatar_gateway.core.events import LogEntry
from liveavatar_gateway.rpc import mapping, room_events
from liveavatar_gateway.rpc.errors import status_of
from liveavatar_gateway.sessions.room_data import DataMessage
from liveavatar_gateway.sessions.spec import AgentSeat, RoomEventsWish

ANN = ev.RoomParticipant("ann", "Ann", ev.ParticipantKind.USER, ev.Microphone.MUTED)
ADA = ev.RoomParticipant("ada", "", ev.ParticipantKind.AVATAR, ev.Microphone.LIVE, has_video=True)
ANN_MESSAGE = {
    "identity": "ann",
    "name": "Ann",
    "kind": "PARTICIPANT_KIND_USER",
    "microphone": "MICROPHONE_STATE_MUTED",
}
ADA_MESSAGE = {
    "identity": "ada",
    "kind": "PARTICIPANT_KIND_AVATAR",
    "microphone": "MICROPHONE_STATE_LIVE",
    "has_video": True,
}


@pytest.mark.parametrize(
    ("event", "kind", "fields"),
    [
        (
            ev.RoomConnected((ADA, ANN), 2),
            "room_connected",
            {"participants": [ADA_MESSAGE, ANN_MESSAGE], "participant_count": 2},
        ),
        (
            ev.RoomDisconnected(ev.RoomLossCause.CLOSED),
            "room_disconnected",
            {"cause": "ROOM_DISCONNECT_CAUSE_CLOSED"},
        ),
        (ev.ParticipantJoined(ANN), "participant_joined", {"participant": ANN_MESSAGE}),
        (ev.ParticipantLeft(ANN), "participant_left", {"participant": ANN_MESSAGE}),
        (
            ev.MicrophoneChanged("ann", ev.Microphone.NONE),
            "microphone_changed",
            {"identity": "ann", "microphone": "MICROPHONE_STATE_NONE"},
        ),
        (
            ev.AvatarTracksChanged("ada", has_audio=True, has_video=False),
            "avatar_tracks_changed",
            {"identity": "ada", "has_audio": True},
        ),
        (ev.ViewersChanged(present=True), "viewers_changed", {"present": True}),
        (
            ev.DataReceived("ann", "chat", b"hi"),
            "data_received",
            {"identity": "ann", "topic": "chat", "payload": "aGk="},
        ),
        (ev.DataDropped(3, ("ann", "bob")), "data_dropped", {"count": "3", "identities": ["ann", "bob"]}),
    ],
)
def test_each_event_has_its_message(event, kind, fields):
    entry = LogEntry(7, datetime(2026, 1, 1, tzinfo=UTC), event)
    message = mapping.event_message(entry, final_view=None)
    assert message.WhichOneof("event") == kind
    assert json_format.MessageToDict(getattr(message, kind), preserving_proto_field_name=True) == fields


def test_a_refusal_of_the_room_has_its_error():
    error = RoomTokenMissing("s")
    event = ev.RoomDisconnected(ev.RoomLossCause.REFUSED, error)
    message = mapping.event_message(LogEntry(1, datetime.now(UTC), event), final_view=None)
    assert message.room_disconnected.error == status_of(error)


def spec(**fields) -> session_pb2.SessionSpec:
    return session_pb2.SessionSpec(**fields)


def test_events_of_the_room_are_asked_for():
    assert room_events.wish_of(spec(), AgentSeat.CALLER, "spec") is None
    wished = spec(room_events=room_pb2.RoomEvents(data_topics=["chat", ""]))
    assert room_events.wish_of(wished, AgentSeat.GATEWAY, "spec") == RoomEventsWish(data_topics=("chat", ""))


@pytest.mark.parametrize(
    "excluded",
    [{"agora_room": session_pb2.AgoraRoom()}, {"cartesia_agent": connector_pb2.CartesiaAgent()}],
    ids=["Agora", "connector"],
)
def test_a_room_that_the_gateway_cannot_join_has_no_events(excluded):
    wished = spec(room_events=room_pb2.RoomEvents(), **excluded)
    with pytest.raises(InvalidField) as caught:
        room_events.wish_of(wished, AgentSeat.GATEWAY, "spec")
    assert caught.value.field == "spec.room_events"


def test_the_callers_seat_excludes_events_only_in_rooms_of_liveavatar():
    wished = spec(room_events=room_pb2.RoomEvents())
    with pytest.raises(AgentSeatTaken) as caught:
        room_events.wish_of(wished, AgentSeat.CALLER, "spec")
    assert caught.value.field == "spec.room_events"
    wished.livekit_room.name = "room"
    assert room_events.wish_of(wished, AgentSeat.CALLER, "spec") == RoomEventsWish()


def test_a_topic_is_named_once():
    wished = spec(room_events=room_pb2.RoomEvents(data_topics=["chat", "chat"]))
    with pytest.raises(InvalidField, match="repeat"):
        room_events.wish_of(wished, AgentSeat.GATEWAY, "spec")


def test_data_within_its_bounds_is_taken():
    command = room_pb2.SendData(payload=bytes(ev.MAX_DATA_BYTES), topic="t" * 128, identities=["i" * 128] * 64)
    found = room_events.data_of(command, "command.send_data")
    assert found == DataMessage(command.payload, command.topic, tuple(command.identities))


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"payload": bytes(ev.MAX_DATA_BYTES + 1)}, "payload"),
        ({"topic": "t" * 129}, "topic"),
        ({"topic": "a\nb"}, "topic"),
        ({"identities": ["ann"] * 65}, "identities"),
        ({"identities": ["ann", ""]}, "identities"),
        ({"identities": ["i" * 129]}, "identities"),
        ({"identities": ["a\x00"]}, "identities"),
    ],
)
def test_data_out_of_its_bounds_is_refused(fields, at_fault):
    with pytest.raises(InvalidField) as caught:
        room_events.data_of(room_pb2.SendData(**fields), "command.send_data")
    assert caught.value.field == f"command.send_data.{at_fault}"
