"""Rooms on LiveKit servers of the callers': the avatar appears with the caller's token, and users are heard."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from livekit import api

from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit import processes
from testkit.caller import Caller, refused
from testkit.caller import caller as connect
from testkit.rooms import identities
from testkit.users import singing, user_token

AVATAR_VIDEO = False
ROOM = "brought"

pytestmark = pytest.mark.timeout(120)


def token(livekit, identity: str, *, publishes: bool = False) -> str:
    grants = api.VideoGrants(
        room_join=True, room=ROOM, can_subscribe=True, can_publish=publishes, can_publish_data=publishes
    )
    signed = api.AccessToken(livekit.api_key, livekit.api_secret).with_identity(identity).with_grants(grants)
    return signed.with_ttl(timedelta(hours=1)).to_jwt()


def brought(livekit, **tokens: str) -> session_pb2.LiveKitRoom:
    avatar = token(livekit, "ada", publishes=True)
    return session_pb2.LiveKitRoom(name=ROOM, url=livekit.url, avatar_token=avatar, **tokens)


@pytest.fixture
async def caller(rooms) -> AsyncIterator[Caller]:
    # Without a LiveKit server of its own.
    with processes.gateway(rooms.url) as gateway:
        async with connect(gateway.address) as found:
            yield found


async def until_inside(service, *expected: str) -> None:
    async with asyncio.timeout(30):
        while not set(expected) <= await identities(service, ROOM):
            await asyncio.sleep(0.05)


async def heard(caller: Caller, session_id: str) -> None:
    hearing = await caller.listen(session_id)
    async with asyncio.timeout(30):
        while len(hearing.heard("ann")) < 24_000:
            await hearing.until("audio")
    hearing.call.cancel()


async def test_the_avatar_appears_and_nobody_is_heard_without_a_token_for_it(caller, livekit, service):
    made = await caller.create(livekit_room=brought(livekit))
    await until_inside(service, "ada")
    assert (made.room.url, made.room.viewer_token, made.room.agent_token) == (livekit.url, "", "")
    assert (await refused(caller.listen(made.session.id))).reason == "ROOM_TOKEN_MISSING"
    for call in (
        caller.sessions.RemoveViewer(
            p.RemoveViewerRequest(session_id=made.session.id, identity="ann"), timeout=10
        ),
        caller.sessions.CreateViewerTokens(
            p.CreateViewerTokensRequest(session_id=made.session.id, viewers=[session_pb2.Viewer(identity="ann")]),
            timeout=10,
        ),
    ):
        assert (await refused(call)).reason == "ROOM_NOT_OWN"
    await caller.end(made.session.id)


async def test_another_process_hears_on_with_the_callers_token_after_a_crash(rooms, livekit, service, tmp_path):
    shared = {"registry_file": str(tmp_path / "registry.db"), "lease_s": 2, "detach_grace_s": 60}
    room = brought(livekit, listener_token=token(livekit, "ear"), viewer_token=token(livekit, "ben"))
    async with singing(livekit.url, user_token(livekit, ROOM, "ann"), 440):
        with processes.gateway(rooms.url, **shared) as first, processes.gateway(rooms.url, **shared) as second:
            async with connect(first.address) as caller:
                made = await caller.create(livekit_room=room)
                await heard(caller, made.session.id)
                await until_inside(service, "ada", "ear")
                first.process.kill()
            async with connect(second.address) as caller:
                async with asyncio.timeout(40):
                    while True:
                        with contextlib.suppress(grpc.aio.AioRpcError):
                            resumed = await caller.resume(made.handle, skip_compacted=True)
                            break
                        await asyncio.sleep(0.2)
                assert (resumed.opened.room.url, resumed.opened.room.viewer_token) == (
                    livekit.url,
                    room.viewer_token,
                )
                await heard(caller, made.session.id)
                await caller.end(made.session.id)
            logs = first.process.log + second.process.log
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    for secret in (room.avatar_token, room.listener_token, room.viewer_token):
        assert secret.encode() not in stored
        assert secret not in logs


async def test_a_repeated_request_may_have_fresh_tokens(caller, livekit, service):
    made = await caller.create("r-1", livekit_room=brought(livekit))
    await until_inside(service, "ada")
    again = await caller.create("r-1", livekit_room=brought(livekit, listener_token=token(livekit, "ear")))
    assert again.session.id == made.session.id
    other = session_pb2.LiveKitRoom()
    other.CopyFrom(brought(livekit))
    other.url = "wss://rooms.example.com"
    assert (await refused(caller.create("r-1", livekit_room=other))).reason == "REQUEST_ID_REUSED"
    await caller.end(made.session.id)
