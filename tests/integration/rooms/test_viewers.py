"""Sessions in real rooms of their callers: an avatar that nobody sees is announced to end, and then ends."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from google.protobuf import duration_pb2
from livekit import api, rtc

from liveavatar.gateway.v1 import session_pb2
from liveavatar_demo.livekit_server import livekit_server
from testkit import processes
from testkit.caller import Attachment, Caller
from testkit.caller import caller as connect
from testkit.rooms import names
from testkit.watcher import watching

AVATAR_VIDEO = False
_LIMIT = duration_pb2.Duration(seconds=6)
_VIDEO = session_pb2.VideoSettings(quality=session_pb2.VIDEO_QUALITY_LOW, encoding=session_pb2.VIDEO_ENCODING_VP8)


def settings(livekit) -> dict[str, str]:
    return {"livekit_url": livekit.url, "livekit_key": livekit.api_key, "livekit_secret": livekit.api_secret}


@pytest.fixture
async def caller(rooms, livekit) -> AsyncIterator[Caller]:
    with processes.gateway(rooms.url, **settings(livekit)) as gateway:
        async with connect(gateway.address) as found:
            yield found


async def ready(caller: Caller, room: str, **spec) -> Attachment:
    spec = {"viewer_absence_timeout": _LIMIT, "video": _VIDEO, **spec}
    attachment = await caller.attach(livekit_room=session_pb2.LiveKitRoom(name=room), **spec)
    await attachment.until_ready()
    return attachment


def kinds(attachment: Attachment) -> list[str]:
    return [event.WhichOneof("event") or "" for event in attachment.events]


@contextlib.asynccontextmanager
async def joined(
    livekit, room: str, identity: str, *, kind: str = "standard", **grants
) -> AsyncIterator[rtc.Room]:
    token = api.AccessToken(livekit.api_key, livekit.api_secret).with_identity(identity).with_kind(kind)
    token = token.with_grants(api.VideoGrants(room_join=True, room=room, **grants)).with_ttl(timedelta(hours=1))
    found = rtc.Room()
    await found.connect(livekit.url, token.to_jwt(), rtc.RoomOptions(auto_subscribe=False))
    try:
        yield found
    finally:
        await found.disconnect()


@pytest.mark.timeout(120)
async def test_an_avatar_that_nobody_sees_is_announced_and_ended_and_a_viewer_cancels_it(caller, rooms):
    attachment = await ready(caller, "nobody")
    expiring = await attachment.event("expiring")
    assert expiring.reason == session_pb2.END_REASON_NO_VIEWERS
    async with watching(attachment.opened.room.url, attachment.opened.room.viewer_token, video=False):
        cancelled = await attachment.event("expiry_cancelled")
        assert cancelled.reason == session_pb2.END_REASON_NO_VIEWERS
    expiring = await attachment.event("expiring")
    last = await attachment.event("ended")
    assert last.session.end_reason == session_pb2.END_REASON_NO_VIEWERS
    assert last.session.ended_at.ToNanoseconds() >= expiring.expires_at.ToNanoseconds()
    assert not rooms.runs(attachment.upstream_id)


@pytest.mark.timeout(120)
async def test_agents_and_participants_that_may_not_subscribe_are_no_viewers(caller, livekit):
    async with (
        joined(livekit, "programs", "worker", kind="agent"),
        joined(livekit, "programs", "camera", can_subscribe=False),
    ):
        attachment = await ready(caller, "programs")
        last = await attachment.event("ended")
        assert last.session.end_reason == session_pb2.END_REASON_NO_VIEWERS


@pytest.mark.timeout(120)
async def test_a_session_with_a_viewer_or_without_the_limit_stays(caller, livekit, service):
    async with joined(livekit, "lobby", "user"):
        seen = await ready(caller, "lobby")
        unlimited = await ready(caller, "empty", viewer_absence_timeout=duration_pb2.Duration())
        doomed = await ready(caller, "doomed")
        await doomed.event("ended")
        for attachment in (seen, unlimited):
            assert (await caller.get(attachment.session_id)).state == session_pb2.SESSION_STATE_READY
            await caller.end(attachment.session_id)
            await attachment.event("ended")
            assert "expiring" not in kinds(attachment)
    assert "doomed" in await names(service), "the room is the caller's"


@pytest.mark.timeout(180)
async def test_an_outage_of_livekit_ends_no_session(emulator):
    """The emulator's avatars are not in the room: a room that does not exist has no viewer either."""
    with (
        livekit_server() as server,
        processes.gateway(emulator.url, viewer_absence_s=12, **settings(server)) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachment = await ready(caller, "gone", viewer_absence_timeout=None)
            await attachment.event("expiring")
            server.process.kill()
            cancelled = await attachment.event("expiry_cancelled")
            assert cancelled.reason == session_pb2.END_REASON_NO_VIEWERS
            session = await caller.get(attachment.session_id)
            assert session.state == session_pb2.SESSION_STATE_READY
            await caller.end(attachment.session_id)
