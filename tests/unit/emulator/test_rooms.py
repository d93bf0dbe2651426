"""Room tokens: those handed out, and the caller's own."""

import time

import pytest

from liveavatar_emulator.config import LiveKitServer
from liveavatar_emulator.rooms import (
    TOKEN_SLACK_S,
    LiveKitRoom,
    avatar_access,
    credentials,
    grants_complete,
    observer_token,
)
from liveavatar_emulator.tokens import BadToken, claims_of, sign, verify

LIVEKIT = LiveKitServer(url="ws://127.0.0.1:7880", api_key="devkey", api_secret="a secret of thirty-two letters..")
LIMIT_S = 600
GRANTS = {"roomJoin": True, "room": "desk-7", "canPublish": True, "canSubscribe": True, "canPublishData": True}


def own(**changes: object) -> LiveKitRoom:
    video = {**GRANTS, **changes}
    claims = {"video": {name: value for name, value in video.items() if value is not None}}
    return LiveKitRoom("wss://rooms.example.com", "desk-7", sign(claims, b"somebody's secret"))


def test_five_explicit_claims_are_enough():
    assert grants_complete(own())


@pytest.mark.parametrize("claim", list(GRANTS))
def test_each_claim_is_needed_in_so_many_words(claim):
    assert not grants_complete(own(**{claim: None}))


@pytest.mark.parametrize("claim", ["roomJoin", "canPublish", "canSubscribe", "canPublishData"])
def test_a_claim_that_says_false_is_not_enough(claim):
    assert not grants_complete(own(**{claim: False}))


def test_a_token_for_another_room_is_not_enough():
    assert not grants_complete(own(room="desk-8"))


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "a.e30.c"])
def test_a_token_that_is_none_is_not_enough(token):
    assert not grants_complete(LiveKitRoom("wss://x", "desk-7", token))


def test_every_room_field_is_filled_with_or_without_an_livekit_room():
    for room in (None, own()):
        fields = credentials("s1", room, 0.0, LIMIT_S)
        assert all(isinstance(value, str) and value for value in fields.values())
        assert claims_of(fields["livekit_agent_token"])["video"]["room"] == (room.room if room else "session-s1")


def test_a_token_does_not_show_in_the_rooms_repr():
    assert own().avatar_token not in repr(own())


def test_a_signature_of_another_secret_is_refused():
    token = sign({"sub": "s1"}, b"one")
    assert verify(token, b"one") == {"sub": "s1"}
    with pytest.raises(BadToken):
        verify(token, b"two")
    with pytest.raises(BadToken):
        verify("ä.ö.ü", b"one")


def grants(token: str) -> dict[str, object]:
    return verify(token, LIVEKIT.api_secret.encode())["video"]


def test_with_a_livekit_server_all_three_tokens_are_signed_for_the_sessions_livekit_room():
    fields = credentials("s1", None, 0.0, LIMIT_S, LIVEKIT)
    access = avatar_access("s1", None, LIVEKIT, LIMIT_S)
    assert fields["livekit_url"] == access.url == LIVEKIT.url
    identities = set()
    for token in (fields["livekit_client_token"], fields["livekit_agent_token"], access.token):
        assert {**GRANTS, "room": "session-s1"}.items() <= grants(token).items()
        identities.add(verify(token, LIVEKIT.api_secret.encode())["sub"])
    assert identities == {"viewer", "agent", "heygen"}
    assert access.owned


def test_a_watcher_may_only_watch():
    may = grants(observer_token(LIVEKIT, "s1", None, "watcher-1", LIMIT_S))
    assert (may["room"], may["roomJoin"], may["canSubscribe"]) == ("session-s1", True, True)
    assert not may["canPublish"]
    assert not may["canPublishData"]


def test_the_avatar_takes_the_callers_token_to_the_callers_room():
    brought = own()
    access = avatar_access("s1", brought, LIVEKIT, LIMIT_S)
    assert (access.url, access.room, access.token, access.owned) == (
        brought.url,
        "desk-7",
        brought.avatar_token,
        False,
    )
    assert brought.avatar_token not in repr(access)


def test_tokens_for_a_callers_room_are_real_only_where_the_key_is():
    elsewhere = credentials("s1", own(), 0.0, LIMIT_S, LIVEKIT)
    with pytest.raises(BadToken):
        grants(elsewhere["livekit_client_token"])
    here = credentials("s1", LiveKitRoom(LIVEKIT.url, "desk-7", own().avatar_token), 0.0, LIMIT_S, LIVEKIT)
    assert grants(here["livekit_client_token"])["room"] == "desk-7"


def test_tokens_that_leave_the_emulator_end_with_the_sessions_limit():
    handed_out = [
        *(
            credentials("s1", None, 1000.0, LIMIT_S)[name]
            for name in ("livekit_client_token", "livekit_agent_token")
        ),
        *(
            credentials("s1", None, time.time(), LIMIT_S, LIVEKIT)[name]
            for name in ("livekit_client_token", "livekit_agent_token")
        ),
        observer_token(LIVEKIT, "s1", None, "watcher-1", LIMIT_S),
    ]
    for token in handed_out:
        claims = claims_of(token)
        assert LIMIT_S <= claims["exp"] - claims["nbf"] <= LIMIT_S + TOKEN_SLACK_S + 1
