"""Values of the room in the client."""

import pytest

from liveavatar.gateway import MicrophoneState, ParticipantKind, RoomDisconnectCause, RoomEvents, RoomParticipant
from liveavatar.gateway.room import disconnect_cause_from_proto, microphone_from_proto
from liveavatar.gateway.v1 import room_pb2


def test_every_kind_state_and_cause_of_the_contract_has_a_value():
    for enum, values, convert in (
        (room_pb2.MicrophoneState, MicrophoneState, microphone_from_proto),
        (room_pb2.RoomDisconnectCause, RoomDisconnectCause, disconnect_cause_from_proto),
    ):
        found = [convert(number) for number in enum.values() if number]
        assert found == [value for value in values if value != "unknown"]
        assert convert(99) == "unknown"
    kinds = [
        RoomParticipant.from_proto(room_pb2.RoomParticipant(kind=number)).kind
        for number in (*room_pb2.ParticipantKind.values(), 99)
    ]
    assert kinds == [*ParticipantKind, ParticipantKind.UNKNOWN]


def test_a_request_holds_its_topics():
    assert list(RoomEvents(data_topics=["chat", ""]).to_proto().data_topics) == ["chat", ""]
    with pytest.raises(TypeError, match="sequence"):
        RoomEvents(data_topics="chat").to_proto()
