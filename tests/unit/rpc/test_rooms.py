"""Rooms and viewers in requests: every wrong value is refused with its field, before anything is done."""

from datetime import UTC, datetime

import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import session_pb2
from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.rooms.access import RoomAccess, Viewer, ViewerAccess
from liveavatar_gateway.rpc import rooms
from liveavatar_gateway.sessions.spec import AgentSeat, LiveKitRoom

ROOM = LiveKitRoom(name="desk-7", avatar_identity="ada")
CHANNEL = {"app_id": "app", "token": "secret-token", "channel": "desk-7", "uid": "7"}


def spec(**fields) -> session_pb2.SessionSpec:
    return session_pb2.SessionSpec(**fields)


def refused(read, *args, **kwargs) -> InvalidField:
    with pytest.raises(InvalidField) as error:
        read(*args, **kwargs)
    return error.value


def viewers(*messages: session_pb2.Viewer) -> tuple[Viewer, ...]:
    return rooms.viewers(messages, ROOM, field="viewers")


# --- the agent's seat


def test_the_seat_is_the_gateways_unless_the_caller_asks_for_it():
    assert rooms.agent_seat(spec(), "spec") is AgentSeat.GATEWAY
    assert rooms.agent_seat(spec(agent_seat=session_pb2.AGENT_SEAT_GATEWAY), "spec") is AgentSeat.GATEWAY
    assert rooms.agent_seat(spec(agent_seat=session_pb2.AGENT_SEAT_CALLER), "spec") is AgentSeat.CALLER


def test_an_unknown_seat_and_one_in_an_agora_channel_are_refused():
    unknown = spec()
    unknown.MergeFromString(b"\x58\x09")
    assert refused(rooms.agent_seat, unknown, "spec").field == "spec.agent_seat"
    agora = spec(agent_seat=session_pb2.AGENT_SEAT_CALLER, agora_room=session_pb2.AgoraRoom(**CHANNEL))
    assert refused(rooms.agent_seat, agora, "spec").field == "spec.agent_seat"


# --- Agora


def test_an_agora_channel_is_read_and_hides_its_token():
    found = rooms.agora_room(spec(agora_room=session_pb2.AgoraRoom(**CHANNEL)), "spec")
    assert found is not None
    assert (found.app_id, found.token, found.channel, found.uid) == ("app", "secret-token", "desk-7", "7")
    assert "secret" not in repr(found)
    assert rooms.agora_room(spec(), "spec") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "") for name in CHANNEL),
        ("app_id", "x" * 129),
        ("app_id", "a\nb"),
        ("uid", "\u202e7"),
        ("channel", "x" * 65),
        ("channel", "a\x00"),
        ("token", "x" * 4097),
        ("token", "a b"),
        ("token", "a\r\nb"),
        ("token", "tökén"),
    ],
)
def test_a_wrong_value_of_an_agora_channel_is_named_and_a_token_not_repeated(name, value):
    error = refused(rooms.agora_room, spec(agora_room=session_pb2.AgoraRoom(**{**CHANNEL, name: value})), "spec")
    assert error.field == f"spec.agora_room.{name}"
    assert not value or value not in error.message


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"livekit_room": session_pb2.LiveKitRoom(name="desk-7")}, "spec.agora_room"),
        ({"auto_rotate": True}, "spec.auto_rotate"),
    ],
)
def test_an_agora_channel_excludes_what_cannot_work_in_it(other, field):
    assert (
        refused(rooms.agora_room, spec(agora_room=session_pb2.AgoraRoom(**CHANNEL), **other), "spec").field
        == field
    )


# --- viewers


def test_a_viewer_only_watches_for_an_hour_unless_asked():
    (found,) = viewers(session_pb2.Viewer(identity="ann"))
    assert found == Viewer(identity="ann", name="", can_publish=False, lifetime_s=3600.0)
    lifetime = duration_pb2.Duration(seconds=60)
    (asked,) = viewers(session_pb2.Viewer(identity="ben", name="Ben", can_publish=True, lifetime=lifetime))
    assert asked == Viewer(identity="ben", name="Ben", can_publish=True, lifetime_s=60.0)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"identity": ""}, "identity"),
        ({"identity": "x" * 129}, "identity"),
        ({"identity": "a\nb"}, "identity"),
        ({"identity": "ada"}, "identity"),
        ({"identity": "ada-2"}, "identity"),
        ({"identity": "ada-agent"}, "identity"),
        ({"identity": "ann"}, "identity"),
        ({"name": "x" * 129}, "name"),
        ({"name": "\x1b[31m"}, "name"),
        ({"lifetime": duration_pb2.Duration(seconds=59)}, "lifetime"),
        ({"lifetime": duration_pb2.Duration(seconds=86_401)}, "lifetime"),
        ({"lifetime": duration_pb2.Duration(seconds=60, nanos=-1)}, "lifetime"),
    ],
)
def test_a_wrong_value_of_a_viewer_is_named(fields, name):
    second = session_pb2.Viewer(**{"identity": "ben", **fields})
    error = refused(viewers, session_pb2.Viewer(identity="ann"), second)
    assert error.field == f"viewers[1].{name}"


@pytest.mark.parametrize("count", [0, 33])
def test_a_call_takes_some_viewers_and_not_too_many(count):
    messages = [session_pb2.Viewer(identity=f"viewer {number}") for number in range(count)]
    assert refused(viewers, *messages).field == "viewers"


def test_a_spec_names_viewers_only_in_a_room_of_its_own():
    message = spec(viewers=[session_pb2.Viewer(identity="ann")])
    assert refused(rooms.viewers_of_spec, message, None, field="spec").field == "spec.viewers"
    assert [one.identity for one in rooms.viewers_of_spec(message, ROOM, field="spec")] == ["ann"]
    assert rooms.viewers_of_spec(spec(), None, field="spec") == ()


# --- access


def test_access_has_the_tokens_of_all_who_join():
    until = datetime(2026, 11, 30, 12, tzinfo=UTC)
    ann = ViewerAccess(identity="ann", token="for-ann", expires_at=until)
    message = rooms.room_message(RoomAccess(url="wss://r", viewer_token="v", agent_token="a", viewers=(ann,)))
    assert (message.url, message.viewer_token, message.agent_token) == ("wss://r", "v", "a")
    (found,) = message.viewers
    assert (found.identity, found.token, found.expires_at.ToDatetime(UTC)) == ("ann", "for-ann", until)
    assert rooms.room_message(None) == session_pb2.RoomAccess()
