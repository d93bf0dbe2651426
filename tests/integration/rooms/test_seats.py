"""Seats in real rooms: of an agent of the caller's own, of named viewers, and of those that are put out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import jwt
import pytest
from google.protobuf import duration_pb2
from livekit import api, rtc

from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit import processes
from testkit.caller import Caller, refused
from testkit.caller import caller as connect
from testkit.rooms import identities
from testkit.watcher import RATE_HZ

AVATAR_VIDEO = False

pytestmark = pytest.mark.timeout(120)

CALLER = session_pb2.AGENT_SEAT_CALLER
VIDEO = session_pb2.VideoSettings(quality=session_pb2.VIDEO_QUALITY_LOW, encoding=session_pb2.VIDEO_ENCODING_VP8)


def settings(livekit) -> dict[str, str]:
    return {"livekit_url": livekit.url, "livekit_key": livekit.api_key, "livekit_secret": livekit.api_secret}


@pytest.fixture
async def caller(rooms, livekit) -> AsyncIterator[Caller]:
    with processes.gateway(rooms.url, **settings(livekit)) as gateway:
        async with connect(gateway.address) as found:
            yield found


@contextlib.asynccontextmanager
async def joined(url: str, token: str) -> AsyncIterator[rtc.Room]:
    room = rtc.Room()
    await room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
    try:
        yield room
    finally:
        await room.disconnect()


def own_room(name: str) -> session_pb2.LiveKitRoom:
    return session_pb2.LiveKitRoom(name=name, avatar_identity="ada")


def room_of(token: str) -> str:
    return str(jwt.decode(token, options={"verify_signature": False})["video"]["room"])


async def until_there(service, room: str, expected: set[str]) -> None:
    async with asyncio.timeout(30):
        while await identities(service, room) != expected:
            await asyncio.sleep(0.05)


async def published(room: rtc.Room) -> rtc.LocalTrackPublication:
    track = rtc.LocalAudioTrack.create_audio_track("voice", rtc.AudioSource(RATE_HZ, 1))
    return await asyncio.wait_for(room.local_participant.publish_track(track), 20)


async def tokens(caller: Caller, session_id: str, *viewers: session_pb2.Viewer) -> dict[str, str]:
    request = p.CreateViewerTokensRequest(session_id=session_id, viewers=viewers)
    answer = await caller.sessions.CreateViewerTokens(request, timeout=10)
    return {viewer.identity: viewer.token for viewer in answer.viewers}


async def remove(caller: Caller, session_id: str, identity: str) -> None:
    request = p.RemoveViewerRequest(session_id=session_id, identity=identity)
    await caller.sessions.RemoveViewer(request, timeout=10)


# --- the agent


async def test_the_callers_agent_joins_beside_the_avatar_in_liveavatars_room(caller, service):
    made = await caller.create(agent_seat=CALLER, video=VIDEO)
    room = room_of(made.room.viewer_token)
    async with joined(made.room.url, made.room.agent_token) as agent:
        await until_there(service, room, {"heygen", "agent"})
        await published(agent)
    await caller.end(made.session.id)


async def test_the_callers_agent_joins_beside_the_avatar_in_an_own_room_and_they_are_one_voice(caller, service):
    made = await caller.create(agent_seat=CALLER, livekit_room=own_room("seats"), video=VIDEO)
    async with joined(made.room.url, made.room.agent_token) as agent:
        await until_there(service, "seats", {"ada", "ada-agent"})
        await published(agent)
        found = (await service.list_participants(api.ListParticipantsRequest(room="seats"))).participants
        kinds = {one.identity: one.kind for one in found}
        assert kinds == {"ada": api.ParticipantInfo.AGENT, "ada-agent": api.ParticipantInfo.AGENT}
        (avatar,) = [one for one in found if one.identity == "ada"]
        assert dict(avatar.attributes) == {"lk.publish_on_behalf": "ada-agent"}
    await caller.end(made.session.id)


async def test_without_the_seat_nobody_gets_an_agents_token(caller):
    for spec in ({}, {"livekit_room": own_room("no-agent")}):
        made = await caller.create(video=VIDEO, **spec)
        assert made.room.viewer_token
        assert made.room.agent_token == ""
        await caller.end(made.session.id)


async def test_an_agents_token_comes_with_each_resume(caller):
    attachment = await caller.attach(agent_seat=CALLER, video=VIDEO)
    resumed = await caller.resume(attachment.opened.handle)
    assert resumed.opened.room.agent_token == attachment.opened.room.agent_token != ""
    await caller.end(attachment.session_id)


# --- viewers


async def test_a_named_viewer_publishes_only_when_asked(caller, service):
    viewers = [
        session_pb2.Viewer(identity="ann", name="Ann"),
        session_pb2.Viewer(identity="ben", can_publish=True, lifetime=duration_pb2.Duration(seconds=60)),
    ]
    made = await caller.create(livekit_room=own_room("named"), viewers=viewers, video=VIDEO)
    found = {viewer.identity: viewer.token for viewer in made.room.viewers}
    async with joined(made.room.url, found["ann"]) as ann, joined(made.room.url, found["ben"]) as ben:
        await until_there(service, "named", {"ada", "ann", "ben"})
        assert ann.local_participant.name == "Ann"
        with pytest.raises((rtc.participant.PublishTrackError, TimeoutError)):
            await published(ann)
        await published(ben)
    await caller.end(made.session.id)


async def test_more_viewers_get_tokens_later(caller, service):
    made = await caller.create(livekit_room=own_room("later"), video=VIDEO)
    assert not made.room.viewers
    found = await tokens(caller, made.session.id, session_pb2.Viewer(identity="cleo"))
    async with joined(made.room.url, found["cleo"]):
        await until_there(service, "later", {"ada", "cleo"})
    await caller.end(made.session.id)
    why = await refused(tokens(caller, made.session.id, session_pb2.Viewer(identity="dan")))
    assert why.reason == "SESSION_ENDED"


# --- removal


async def test_a_removed_viewer_is_put_out_again_until_it_has_a_new_token(caller, service):
    viewer = session_pb2.Viewer(identity="ann")
    attachment = await caller.attach(livekit_room=own_room("removal"), viewers=[viewer], video=VIDEO)
    session_id, url = attachment.session_id, attachment.opened.room.url
    (ann,) = attachment.opened.room.viewers
    async with joined(url, ann.token):
        await until_there(service, "removal", {"ada", "ann"})
        await remove(caller, session_id, "ann")
        await until_there(service, "removal", {"ada"})
    async with joined(url, ann.token):
        await until_there(service, "removal", {"ada"})
    resumed = await caller.resume(attachment.opened.handle)
    assert not resumed.opened.room.viewers
    found = await tokens(caller, session_id, viewer)
    async with joined(url, found["ann"]) as back:
        await until_there(service, "removal", {"ada", "ann"})
        # Longer than the interval of looks into the room.
        await asyncio.sleep(4)
        assert back.isconnected()
    await caller.end(session_id)


async def test_a_participant_with_a_token_of_the_callers_own_is_removed_too(caller, service, livekit):
    made = await caller.create(livekit_room=own_room("theirs"), video=VIDEO)
    grants = api.VideoGrants(room_join=True, room="theirs")
    token = (
        api.AccessToken(livekit.api_key, livekit.api_secret).with_identity("guest").with_grants(grants).to_jwt()
    )
    async with joined(livekit.url, token):
        await until_there(service, "theirs", {"ada", "guest"})
        await remove(caller, made.session.id, "guest")
        await until_there(service, "theirs", {"ada"})
    await caller.end(made.session.id)


async def test_neither_avatar_nor_agent_is_removed(caller, service):
    made = await caller.create(agent_seat=CALLER, livekit_room=own_room("agents"), video=VIDEO)
    async with joined(made.room.url, made.room.agent_token):
        await until_there(service, "agents", {"ada", "ada-agent"})
        for identity in ("ada", "ada-2", "ada-agent"):
            why = await refused(remove(caller, made.session.id, identity))
            assert (why.reason, why.field) == ("INVALID_FIELD", "identity")
        assert await identities(service, "agents") == {"ada", "ada-agent"}
    await caller.end(made.session.id)


async def test_a_removal_outlives_the_process_that_was_asked(rooms, livekit, service, tmp_path):
    shared = {"registry_file": str(tmp_path / "registry.db"), "detach_grace_s": 30, **settings(livekit)}
    with processes.gateway(rooms.url, **shared) as first, processes.gateway(rooms.url, **shared) as second:
        viewer = session_pb2.Viewer(identity="ann")
        async with connect(first.address) as caller:
            made = await caller.create(livekit_room=own_room("adopted"), viewers=[viewer], video=VIDEO)
            (ann,) = made.room.viewers
            await remove(caller, made.session.id, "ann")
        first.process.kill()
        async with connect(second.address) as caller:
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        attachment = await caller.resume(made.handle, skip_compacted=True)
                        break
                    await asyncio.sleep(0.2)
            async with joined(made.room.url, ann.token) as back:
                async with asyncio.timeout(30):
                    while back.isconnected():
                        await asyncio.sleep(0.1)
            assert not attachment.opened.room.viewers
            await caller.end(made.session.id)


async def test_in_a_room_of_liveavatars_no_viewer_is_named_or_removed(caller):
    made = await caller.create(video=VIDEO)
    for call in (
        tokens(caller, made.session.id, session_pb2.Viewer(identity="ann")),
        remove(caller, made.session.id, "ann"),
    ):
        why = await refused(call)
        assert why.reason == "ROOM_NOT_OWN"
    await caller.end(made.session.id)
