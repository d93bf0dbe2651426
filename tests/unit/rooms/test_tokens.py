"""Tokens for own rooms: every claim that LiveAvatar and LiveKit look at, and for how long they hold."""

import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from liveavatar_gateway.rooms.access import LiveKitAccess, Participant, Viewer
from liveavatar_gateway.rooms.tokens import VIEWER_TTL, LiveKitConfig, LiveKitRooms

SECRET = "a secret of at least thirty-two bytes"
SEAT = Participant(room="desk-7", identity="ada")
DAY_S = 86_400


@pytest.fixture(scope="module")
def rooms() -> LiveKitRooms:
    return LiveKitRooms(LiveKitConfig(url="wss://rooms.example.com", api_key="APIkey", api_secret=SECRET))


def claims(access: LiveKitAccess) -> dict:
    return jwt.decode(access.token, SECRET, algorithms=["HS256"])


def lasts_s(access: LiveKitAccess) -> float:
    return claims(access)["exp"] - time.time()


def test_the_avatars_token_says_yes_to_each_grant_in_so_many_words(rooms):
    access = rooms.avatar(SEAT, max_duration_s=60)
    assert (access.url, access.room) == ("wss://rooms.example.com", "desk-7")
    found = claims(access)
    assert found["video"] == {
        "roomJoin": True,
        "room": "desk-7",
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": True,
    }
    assert (found["iss"], found["sub"], found["kind"]) == ("APIkey", "ada", "agent")


def test_the_avatars_token_outlives_its_session(rooms):
    assert 600 < lasts_s(rooms.avatar(SEAT, max_duration_s=600)) < DAY_S
    assert lasts_s(rooms.avatar(SEAT, max_duration_s=2 * DAY_S)) > 2 * DAY_S


def test_the_avatars_token_lasts_a_day_when_the_plan_sets_the_limit(rooms):
    assert lasts_s(rooms.avatar(SEAT, max_duration_s=None)) > 0.9 * DAY_S


def test_a_viewer_may_see_and_hear_and_is_told_so_explicitly(rooms):
    found = claims(rooms.viewer("desk-7"))
    assert found["video"] == {
        "roomJoin": True,
        "room": "desk-7",
        "canPublish": False,
        "canSubscribe": True,
        "canPublishData": False,
    }
    assert found["kind"] == "standard"


def test_a_viewers_token_runs_out_long_before_the_avatars(rooms):
    access = rooms.viewer("desk-7")
    assert 0 < lasts_s(access) <= VIEWER_TTL.total_seconds()


def test_the_gateway_itself_is_hidden_publishes_no_tracks_and_may_send_data(rooms):
    access = rooms.listener(SEAT)
    found = claims(access)
    assert found["video"] == {
        "roomJoin": True,
        "room": "desk-7",
        "canPublish": False,
        "canSubscribe": True,
        "canPublishData": True,
        "hidden": True,
    }
    assert (found["sub"], found["kind"]) == ("ada", "agent")
    assert lasts_s(access) <= VIEWER_TTL.total_seconds()


def test_no_two_viewers_put_each_other_out(rooms):
    identities = {claims(rooms.viewer("desk-7"))["sub"] for _ in range(50)}
    assert len(identities) == 50
    assert "avatar" not in identities


def test_neither_key_nor_secret_nor_token_shows():
    config = LiveKitConfig(url="wss://rooms.example.com", api_key="APIkey", api_secret=SECRET)
    shown = repr(config) + repr(LiveKitRooms(config).viewer("desk-7"))
    assert "APIkey" not in shown
    assert SECRET not in shown
    assert "eyJ" not in shown


NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize("can_publish", [False, True])
def test_a_named_viewer_publishes_only_when_asked(rooms, can_publish):
    viewer = Viewer(identity="ann", name="Ann", can_publish=can_publish, lifetime_s=120.0)
    access = rooms.named_viewer("desk-7", viewer, now=NOW)
    found = claims(access)
    assert found["video"] == {
        "roomJoin": True,
        "room": "desk-7",
        "canPublish": can_publish,
        "canSubscribe": True,
        "canPublishData": can_publish,
    }
    assert (found["sub"], found["name"], found["kind"]) == ("ann", "Ann", "standard")
    assert 60 < lasts_s(access) <= 120
    assert access.expires_at == NOW + timedelta(seconds=120)


def test_an_agent_joins_beside_the_avatar_and_may_do_what_the_avatar_may(rooms):
    token = rooms.agent("desk-7", "ada-agent", max_duration_s=600)
    found = jwt.decode(token, SECRET, algorithms=["HS256"])
    avatar = claims(rooms.avatar(SEAT, max_duration_s=600))
    assert (found["sub"], found["kind"], found["video"]) == ("ada-agent", "agent", avatar["video"])
    assert abs(found["exp"] - avatar["exp"]) <= 5


def test_an_avatar_with_an_agent_says_on_whose_behalf_it_publishes(rooms):
    seat = Participant(room="desk-7", identity="ada", agent="ada-agent")
    found = claims(rooms.avatar(seat, max_duration_s=60))
    assert found["attributes"] == {"lk.publish_on_behalf": "ada-agent"}
    assert not claims(rooms.avatar(SEAT, max_duration_s=60)).get("attributes")
