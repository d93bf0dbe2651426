"""The gateway brings an avatar into a real room of the caller's own, and leaves the room and its people alone."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from livekit import api, rtc

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from testkit import processes
from testkit.caller import Caller
from testkit.caller import caller as connect
from testkit.pitch import STEP_HZ, STEP_S, Scale, heard_until_s, pitches
from testkit.rooms import identities, names
from testkit.watcher import RATE_HZ, watching

ROOM = "the-callers"
AVATAR_VIDEO = False
VIDEO = session_pb2.VideoSettings(quality=session_pb2.VIDEO_QUALITY_LOW, encoding=session_pb2.VIDEO_ENCODING_VP8)


def pcm_of(scale: Scale) -> bytes:
    times = np.arange(round(scale.seconds * RATE_HZ)) / RATE_HZ
    pitch_hz = scale.first_hz + np.floor(times / STEP_S) * STEP_HZ
    return (np.sin(2 * np.pi * pitch_hz * times) * 10_000).astype("<i2").tobytes()


@pytest.fixture
async def caller(rooms, livekit) -> AsyncIterator[Caller]:
    settings = {
        "livekit_url": livekit.url,
        "livekit_key": livekit.api_key,
        "livekit_secret": livekit.api_secret,
    }
    with processes.gateway(rooms.url, **settings) as gateway:
        async with connect(gateway.address) as found:
            yield found


@pytest.fixture
async def friend(livekit) -> AsyncIterator[rtc.Room]:
    """Somebody in the room who is there before the avatar, and has nothing to do with it."""
    grants = api.VideoGrants(room_join=True, room=ROOM)
    token = api.AccessToken(livekit.api_key, livekit.api_secret).with_identity("friend").with_grants(grants)
    room = rtc.Room()
    await room.connect(livekit.url, token.to_jwt(), rtc.RoomOptions(auto_subscribe=False))
    yield room
    await room.disconnect()


async def until_in(service, identity: str) -> None:
    async with asyncio.timeout(30):
        while identity not in await identities(service, ROOM):
            await asyncio.sleep(0.05)


@pytest.mark.timeout(120)
async def test_the_viewer_hears_the_avatar_in_the_callers_room_which_outlives_the_session(caller, service, friend):
    scale = Scale(400, 3.0)
    made = await caller.create(livekit_room=session_pb2.LiveKitRoom(name=ROOM, avatar_identity="ada"), video=VIDEO)
    await until_in(service, "ada")
    async with watching(made.room.url, made.room.viewer_token, video=False) as viewer:
        await viewer.until(lambda seen: len(seen.pieces) > 10)
        assert {publisher for publisher, _, _ in viewer.tracks.values()} == {"ada"}
        stream = await caller.speak(made.session.id)
        await stream.say(pcm_of(scale), "a scale")
        assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        async with asyncio.timeout(30):
            while heard_until_s(scale, pitches(viewer.heard, RATE_HZ)) < scale.seconds - STEP_S:
                await asyncio.sleep(0.1)
        await caller.end(made.session.id)
        await viewer.until(lambda seen: seen.left == ["ada"])
        assert ROOM in await names(service)
        assert await identities(service, ROOM) == {"friend", viewer.room.local_participant.identity}
        assert friend.isconnected()


@pytest.mark.timeout(120)
async def test_a_viewer_can_neither_speak_nor_send_data(caller, service, friend):
    heard: list[rtc.DataPacket] = []
    friend.on("data_received", heard.append)
    made = await caller.create(livekit_room=session_pb2.LiveKitRoom(name=ROOM), video=VIDEO)
    async with watching(made.room.url, made.room.viewer_token, video=False) as viewer:
        me = viewer.room.local_participant
        found = (await service.list_participants(api.ListParticipantsRequest(room=ROOM))).participants
        (mine,) = [one.permission for one in found if one.identity == me.identity]
        assert (mine.can_subscribe, mine.can_publish, mine.can_publish_data) == (True, False, False)
        track = rtc.LocalAudioTrack.create_audio_track("voice", rtc.AudioSource(RATE_HZ, 1))
        with pytest.raises((rtc.participant.PublishTrackError, TimeoutError)):
            await asyncio.wait_for(me.publish_track(track), 20)
        await me.publish_data(b"psst")
        # Had it been passed on, it would be here before what the friend is sent later.
        await service.send_data(
            api.SendDataRequest(room=ROOM, data=b"last", kind=0, destination_identities=["friend"])
        )
        async with asyncio.timeout(20):
            while not heard:
                await asyncio.sleep(0.05)
        assert [packet.data for packet in heard] == [b"last"]
    await caller.end(made.session.id)


@pytest.mark.timeout(120)
async def test_two_viewers_of_one_session_do_not_put_each_other_out(caller, service, friend):
    attachment = await caller.attach(livekit_room=session_pb2.LiveKitRoom(name=ROOM), video=VIDEO)
    resumed = await caller.resume(attachment.opened.handle)
    rooms = [attachment.opened.room, resumed.opened.room]
    async with (
        watching(rooms[0].url, rooms[0].viewer_token, video=False) as one,
        watching(rooms[1].url, rooms[1].viewer_token, video=False) as two,
    ):
        await until_in(service, "avatar")
        both = {viewer.room.local_participant.identity for viewer in (one, two)}
        assert await identities(service, ROOM) == {"friend", "avatar", *both}
    await caller.end(attachment.session_id)
