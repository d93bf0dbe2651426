"""Rooms on LiveKit servers of the callers': whole ones are read, and wrong values are refused with their field."""

from functools import partial

import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import session_pb2
from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.rpc import brought_rooms
from testkit.room_tokens import AVATAR_GRANTS as GRANTS
from testkit.room_tokens import unsigned

NOW_S = 1_800_000_000.0
token = partial(unsigned, NOW_S)
URL = "wss://rooms.example.com"
HEARS = {"room": "desk-7", "roomJoin": True, "canSubscribe": True}
LISTENER = token(sub="listener", video=HEARS)
VIEWER = token(sub="ann", video=HEARS)


def spec(*, room: dict[str, str] | None = None, **fields: object) -> session_pb2.SessionSpec:
    own = {"name": "desk-7", "url": URL, "avatar_token": token(), **(room or {})}
    return session_pb2.SessionSpec(livekit_room=session_pb2.LiveKitRoom(**own), **fields)


def read(message: session_pb2.SessionSpec, *, may_use: bool = True):
    return brought_rooms.brought_room(message, "spec", may_use=lambda _: may_use, now_s=NOW_S)


def refused_field(message: session_pb2.SessionSpec, *, may_use: bool = True) -> str:
    with pytest.raises(InvalidField) as error:
        read(message, may_use=may_use)
    return str(error.value.field).removeprefix("spec.")


def test_a_room_is_read_and_hides_its_tokens():
    found = read(spec(room={"listener_token": LISTENER, "viewer_token": VIEWER, "avatar_identity": "ada"}))
    assert (found.url, found.name, found.identity) == (URL, "desk-7", "ada")
    assert found.avatar_access.token == found.avatar_token == token()
    assert (found.listener_token, found.viewer_token) == (LISTENER, VIEWER)
    assert not [one for one in (token(), LISTENER, VIEWER) if one in repr(found)]


def test_the_identity_is_that_of_the_token():
    assert read(spec(room={"avatar_token": token(sub="guide")})).identity == "guide"


def test_the_clock_is_read_without_a_time():
    late = token(exp=4_000_000_000, nbf=0)
    found = brought_rooms.brought_room(spec(room={"avatar_token": late}), "spec", may_use=lambda _: True)
    assert found.identity == "ada"


@pytest.mark.parametrize(
    ("room", "field"),
    [
        ({"name": ""}, "livekit_room.name"),
        ({"avatar_identity": "\n"}, "livekit_room.avatar_identity"),
        ({"url": "https://rooms.example.com"}, "livekit_room.url"),
        ({"url": f"wss://{'x' * 2048}"}, "livekit_room.url"),
        ({"avatar_token": ""}, "livekit_room.avatar_token"),
        ({"avatar_token": "x"}, "livekit_room.avatar_token"),
        ({"avatar_identity": "bob"}, "livekit_room.avatar_token"),
        ({"avatar_token": token(video=HEARS)}, "livekit_room.avatar_token"),
        ({"listener_token": token()}, "livekit_room.listener_token"),
        ({"listener_token": token(sub="l", video={**GRANTS, "room": "desk-8"})}, "livekit_room.listener_token"),
        ({"listener_token": token(sub="l", exp=NOW_S)}, "livekit_room.listener_token"),
        ({"viewer_token": token()}, "livekit_room.viewer_token"),
        ({"viewer_token": LISTENER, "listener_token": LISTENER}, "livekit_room.viewer_token"),
        ({"viewer_token": "x.y.z"}, "livekit_room.viewer_token"),
    ],
)
def test_each_wrong_value_is_refused_with_its_field(room, field):
    assert refused_field(spec(room=room)) == field


def test_a_url_that_is_not_allowed_is_refused():
    assert refused_field(spec(), may_use=False) == "livekit_room.url"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"viewers": [session_pb2.Viewer(identity="ann")]}, "viewers"),
        ({"viewer_absence_timeout": duration_pb2.Duration(seconds=60)}, "viewer_absence_timeout"),
        ({"agent_seat": session_pb2.AGENT_SEAT_CALLER}, "agent_seat"),
        ({"auto_rotate": True}, "auto_rotate"),
    ],
)
def test_what_needs_the_key_of_the_server_is_refused(fields, field):
    assert refused_field(spec(**fields)) == field


@pytest.mark.parametrize("name", ["avatar_token", "listener_token", "viewer_token"])
def test_a_token_without_a_url_is_refused(name):
    message = session_pb2.SessionSpec(livekit_room=session_pb2.LiveKitRoom(name="desk-7", **{name: VIEWER}))
    assert not brought_rooms.is_brought(message)
    with pytest.raises(InvalidField) as error:
        brought_rooms.require_no_tokens(message, "spec")
    assert error.value.field == f"spec.livekit_room.{name}"
    brought_rooms.require_no_tokens(
        session_pb2.SessionSpec(livekit_room=session_pb2.LiveKitRoom(name="desk-7")), "spec"
    )
