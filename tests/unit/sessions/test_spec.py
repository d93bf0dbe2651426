"""Spec of a session: the identities of its avatars."""

from liveavatar_gateway.sessions.spec import LiveKitRoom, SessionSpec
from liveavatar_gateway.upstream.model import AvatarRequest
from testkit.actors import AVATAR_ID


def spec(**fields) -> SessionSpec:
    return SessionSpec(avatar=AvatarRequest(avatar_id=AVATAR_ID), detach_grace_s=1.0, **fields)


def test_in_a_room_of_liveavatar_every_avatar_is_requested_the_same_way():
    assert spec().avatar_request(1) == spec().avatar_request(2) == spec().avatar


def test_two_avatars_that_meet_in_a_callers_room_have_an_identity_each():
    wishes = spec(livekit_room=LiveKitRoom(name="desk-7", avatar_identity="guide"))
    requests = [wishes.avatar_request(ordinal) for ordinal in (1, 2, 3)]
    assert len({repr(request) for request in requests}) == 3
    assert "'guide-3'" in repr(requests[2])
    assert "'guide'" in repr(requests[0])
