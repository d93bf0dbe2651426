"""Rooms of the caller's own and sessions that outlive an avatar, as the Python client asks for them."""

import asyncio

import jwt
import pytest

from liveavatar.gateway import AsyncClient, Client, InvalidField, LiveKitRoom, RequestIdReused, SessionRotatedEvent
from testkit import processes
from testkit.caller import AVATAR
from testkit.speech import sound

SECRET = "a-secret-of-at-least-thirty-two-bytes"
LIVEKIT = {"livekit_url": "wss://rooms.example.com", "livekit_key": "APIkey", "livekit_secret": SECRET}
LIMIT_S = 16
"""The fresh avatar is prepared after half of it."""


def room_of(token: str) -> str:
    return jwt.decode(token, SECRET, algorithms=["HS256"])["video"]["room"]


@pytest.fixture
def rooms(emulator):
    with processes.gateway(emulator.url, **LIVEKIT) as found:
        yield found


@pytest.mark.parametrize("livekit_room", ["desk-7", LiveKitRoom(name="desk-7", avatar_identity="ada")])
async def test_the_avatar_comes_into_the_callers_room(rooms, emulator, livekit_room):
    async with AsyncClient(rooms.address) as client:
        async with client.open_session(AVATAR, livekit_room=livekit_room) as session:
            assert (session.room.url, room_of(session.room.viewer_token)) == (LIVEKIT["livekit_url"], "desk-7")
            assert emulator.session(session.record.upstream_session_id)["livekit_room"] == "desk-7"
            assert (await session.say(sound(0.3))).kind == "played"
        created = await client.create_session(AVATAR, livekit_room=livekit_room)
        assert room_of(created.room.viewer_token) == "desk-7"
        await client.end_session(created.session.id)


def test_the_blocking_client_asks_for_the_same(rooms, emulator):
    with Client(rooms.address) as client:
        with client.open_session(AVATAR, livekit_room="desk-8") as session:
            assert room_of(session.room.viewer_token) == "desk-8"
        created = client.create_session(AVATAR, livekit_room="desk-8", auto_rotate=True, request_id="wanted once")
        assert room_of(created.room.viewer_token) == "desk-8"
        for other in (
            {},
            {"livekit_room": "desk-8"},
            {"livekit_room": LiveKitRoom(name="desk-8", avatar_identity="x")},
        ):
            with pytest.raises(RequestIdReused):
                client.create_session(AVATAR, request_id="wanted once", **other)
        client.end_session(created.session.id)


async def test_a_gateway_without_a_livekit_server_refuses_it(client):
    with pytest.raises(InvalidField) as raised:
        await client.create_session(AVATAR, livekit_room="desk-7")
    assert raised.value.field_violations[0].field == "spec.livekit_room"
    with pytest.raises(InvalidField, match="LIVEKIT"):
        await client.open_session(AVATAR, livekit_room=LiveKitRoom(name="desk-7")).open()


@pytest.mark.timeout(120)
async def test_a_session_outlives_its_avatar_and_says_where_the_next_one_is(client, emulator):
    """`say` notices nothing: whatever was said went to one avatar or the other, once and whole."""
    async with client.open_session(AVATAR, auto_rotate=True, max_duration=LIMIT_S) as session:
        first, at_first = session.record.upstream_session_id, session.room
        utterances = [session.say(sound(2, seed=seed)) for seed in range(7)]
        async with asyncio.timeout(60):
            async for event in session.events():
                if isinstance(event, SessionRotatedEvent):
                    break
        assert session.room == event.room
        assert event.room != at_first
        assert session.record.upstream_session_id == event.upstream_session_id != first
        assert [outcome.kind for outcome in await asyncio.gather(*utterances)] == ["played"] * 7
        record = await session.end()
    assert record.usage.rotation_count == 1
    heard = emulator.audio(first) + emulator.audio(event.upstream_session_id)
    assert heard == b"".join(sound(2, seed=seed) for seed in range(7))
