"""Values of rooms: secrets do not show, and an Agora token does not make another channel."""

from datetime import UTC, datetime

from liveavatar_gateway.rooms.access import AgoraRoom, RoomAccess, ViewerAccess


def test_no_token_shows():
    ann = ViewerAccess(identity="ann", token="hidden-1", expires_at=datetime(2026, 11, 30, tzinfo=UTC))
    access = RoomAccess(url="wss://r", viewer_token="hidden-2", agent_token="hidden-3", viewers=(ann,))
    agora = AgoraRoom(app_id="app", channel="desk", uid="7", token="hidden-4")
    assert "hidden" not in repr((access, agora))


def test_a_fresh_token_makes_no_other_channel():
    first = AgoraRoom(app_id="app", channel="desk", uid="7", token="one")
    assert first == AgoraRoom(app_id="app", channel="desk", uid="7", token="two")
    assert first != AgoraRoom(app_id="app", channel="desk", uid="8", token="one")
