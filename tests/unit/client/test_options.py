from datetime import timedelta
from typing import get_type_hints

import pytest

from liveavatar.gateway import (
    AgoraRoom,
    LiveKitRoom,
    RoomEvents,
    SessionKeywords,
    SessionOptions,
    VideoQuality,
    Viewer,
)
from liveavatar.gateway.options import session_options
from liveavatar.gateway.v1 import session_pb2


def test_the_keywords_are_the_options():
    options = get_type_hints(SessionOptions)
    assert get_type_hints(SessionKeywords) == {
        name: kind for name, kind in options.items() if name not in ("avatar_id", "_")
    }


def test_only_what_was_given_is_sent():
    assert SessionOptions("avatar").to_proto() == session_pb2.SessionSpec(avatar_id="avatar")


def test_all_that_was_given_is_sent():
    options = SessionOptions(
        "avatar",
        sandbox=True,
        quality="low",
        video_encoding="vp8",
        max_duration=90,
        detach_grace=timedelta(seconds=1.5),
        labels={"team": "a"},
        livekit_room="room",
        auto_rotate=True,
        idle_timeout=600,
        viewer_absence_timeout=timedelta(seconds=60),
    )
    spec = options.to_proto()
    assert (spec.avatar_id, spec.sandbox, dict(spec.labels), spec.auto_rotate) == (
        "avatar",
        True,
        {"team": "a"},
        True,
    )
    assert spec.video.quality == session_pb2.VIDEO_QUALITY_LOW
    assert spec.video.encoding == session_pb2.VIDEO_ENCODING_VP8
    assert spec.max_duration.ToTimedelta() == timedelta(seconds=90)
    assert spec.detach_grace.ToTimedelta() == timedelta(seconds=1.5)
    assert spec.livekit_room.name == "room"
    assert spec.idle_timeout.ToTimedelta() == timedelta(minutes=10)
    assert spec.viewer_absence_timeout.ToTimedelta() == timedelta(minutes=1)


def test_a_room_may_be_given_with_the_avatars_identity():
    room = LiveKitRoom(name="room", avatar_identity="ada")
    assert SessionOptions("avatar", livekit_room=room).to_proto().livekit_room == room.to_proto()


def test_agent_viewers_and_an_agora_channel_are_sent():
    ann = Viewer(identity="ann", name="Ann", can_publish=True, lifetime=90)
    spec = SessionOptions("avatar", livekit_room="room", agent_seat="caller", viewers=[ann]).to_proto()
    assert spec.agent_seat == session_pb2.AGENT_SEAT_CALLER
    (viewer,) = spec.viewers
    assert (viewer.identity, viewer.name, viewer.can_publish, viewer.lifetime.seconds) == ("ann", "Ann", True, 90)
    agora = AgoraRoom(app_id="app", token="secret-token", channel="desk", uid="7")
    found = SessionOptions("avatar", agora_room=agora).to_proto().agora_room
    assert (found.app_id, found.token, found.channel, found.uid) == ("app", "secret-token", "desk", "7")
    assert "secret" not in repr(SessionOptions("avatar", agora_room=agora))


def test_an_unknown_seat_is_refused():
    with pytest.raises(ValueError, match="balcony"):
        SessionOptions("avatar", agent_seat="balcony").to_proto()


def test_one_setting_of_the_video_leaves_the_other_to_the_gateway():
    spec = SessionOptions("avatar", quality=VideoQuality.VERY_HIGH).to_proto()
    assert spec.video.encoding == session_pb2.VIDEO_ENCODING_UNSPECIFIED


@pytest.mark.parametrize("field", ["quality", "video_encoding"])
def test_an_unknown_video_setting_is_refused(field):
    with pytest.raises(ValueError, match="huge"):
        SessionOptions("avatar", **{field: "huge"}).to_proto()


def test_an_id_with_keywords_makes_options():
    assert session_options("avatar", {"sandbox": True}) == SessionOptions("avatar", sandbox=True)


def test_keywords_replace_what_the_options_say():
    given = SessionOptions("avatar", sandbox=True, labels={"a": "b"})
    assert session_options(given, {"sandbox": False}) == SessionOptions("avatar", labels={"a": "b"})


def test_a_keyword_that_is_no_option_is_refused():
    with pytest.raises(TypeError, match="sanbox"):
        session_options("avatar", {"sanbox": True})


def test_a_room_on_a_server_of_ones_own_is_sent_whole_and_hides_its_tokens():
    tokens = {"avatar_token": "a-secret", "listener_token": "b-secret", "viewer_token": "c-secret"}
    room = LiveKitRoom(name="room", url="wss://rooms.example.com", **tokens)
    sent = SessionOptions("avatar", livekit_room=room).to_proto().livekit_room
    assert sent.url == "wss://rooms.example.com"
    assert {name: getattr(sent, name) for name in tokens} == tokens
    assert "-secret" not in repr(room)


def test_events_of_the_room_are_asked_for():
    spec = SessionOptions("avatar", room_events=RoomEvents(data_topics=["chat"])).to_proto()
    assert list(spec.room_events.data_topics) == ["chat"]
    assert SessionOptions("avatar", room_events=RoomEvents()).to_proto().HasField("room_events")
