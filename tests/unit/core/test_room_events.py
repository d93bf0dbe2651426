"""Values of a room's events."""

from liveavatar_gateway.core.room_events import DataReceived, Microphone, ParticipantKind, RoomParticipant


def test_a_muted_voice_is_a_published_track():
    states = (Microphone.NONE, Microphone.MUTED, Microphone.LIVE)
    found = [RoomParticipant("ann", "", ParticipantKind.USER, state).has_audio for state in states]
    assert found == [False, True, True]


def test_what_users_send_is_not_shown_in_logs():
    assert "private" not in repr(DataReceived("ann", "chat", b"private"))
