"""The gateway hears the users of a room: each of them, in each format, and nobody else."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import grpc
import pytest
from livekit import api, rtc

from liveavatar.gateway import AsyncClient, AudioEncoding, AudioFormat, LiveKitRoom
from liveavatar.gateway.v1 import audio_pb2, session_pb2
from testkit import processes
from testkit.caller import AVATAR, Caller, Hearing, refused
from testkit.caller import caller as connect
from testkit.rooms import identities
from testkit.users import pitch_of, singing, user_token

ROOM = "the-callers"
AVATAR_VIDEO = False
VIDEO = session_pb2.VideoSettings(quality=session_pb2.VIDEO_QUALITY_LOW, encoding=session_pb2.VIDEO_ENCODING_VP8)
OWN = {"livekit_room": session_pb2.LiveKitRoom(name=ROOM, avatar_identity="ada"), "video": VIDEO}

pytestmark = pytest.mark.timeout(180)


def own_rooms(livekit) -> dict[str, str]:
    return {
        "livekit_url": livekit.url,
        "livekit_key": livekit.api_key,
        "livekit_secret": livekit.api_secret,
    }


@pytest.fixture
def gateway(rooms, livekit):
    # A listener does not keep a session, and a slow machine takes its time.
    with processes.gateway(rooms.url, detach_grace_s=300, **own_rooms(livekit)) as found:
        yield found


@pytest.fixture
async def caller(gateway) -> AsyncIterator[Caller]:
    async with connect(gateway.address) as found:
        yield found


async def until(hearing: Hearing, so: Callable[[], bool]) -> None:
    """Read, and return credit, until something is so."""
    async with asyncio.timeout(90):
        while not so():
            response = await hearing.read()
            if response.HasField("audio"):
                await hearing.credit(len(response.audio.audio))


async def until_sung(hearing: Hearing, who: str, pitch_hz: float, rate_hz: int) -> None:
    """Read until the last half second of a user is the note that the user sings."""
    await until(hearing, lambda: sings(hearing, who, pitch_hz, rate_hz))


def sings(hearing: Hearing, who: str, pitch_hz: float, rate_hz: int) -> bool:
    heard = hearing.heard(who)[-rate_hz:]
    return len(heard) >= rate_hz and abs(pitch_of(heard, rate_hz) - pitch_hz) < 10


async def test_two_users_are_heard_by_several_listeners_each_in_its_format(caller, livekit, service):
    made = await caller.create(**OWN)
    async with (
        singing(livekit.url, user_token(livekit, ROOM, "ann"), 440),
        singing(livekit.url, user_token(livekit, ROOM, "bob"), 660),
    ):
        plain = await caller.listen(made.session.id)
        mulaw = {"encoding": audio_pb2.AUDIO_ENCODING_MULAW, "sample_rate_hz": 8_000}
        phone = await caller.listen(made.session.id, format=mulaw, chunk_s=0.1, participants=["bob"])
        wide = await caller.listen(made.session.id, format={"sample_rate_hz": 48_000}, chunk_s=0.01)
        assert (plain.ready.chunk_bytes, phone.ready.chunk_bytes, wide.ready.chunk_bytes) == (960, 800, 960)
        await until_sung(plain, "ann", 440, 24_000)
        await until_sung(plain, "bob", 660, 24_000)
        await until_sung(wide, "ann", 440, 48_000)
        await until(phone, lambda: len(phone.heard("bob")) >= 8_000)
        assert {chunk.participant for chunk in phone.chunks} == {"bob"}
        assert {len(chunk.audio) for chunk in phone.chunks} == {800}
        assert {chunk.participant for chunk in plain.chunks} == {"ann", "bob"}
        for who in ("ann", "bob"):
            sequence = 0
            for chunk in (chunk for chunk in plain.chunks if chunk.participant == who):
                sequence += 1 + round(chunk.dropped.ToTimedelta() / timedelta(milliseconds=20))
                assert chunk.sequence == sequence
        newest = plain.chunks[-1].captured_at.ToNanoseconds() / 1e9
        assert abs(newest - time.time()) < 30
        found = (await service.list_participants(api.ListParticipantsRequest(room=ROOM))).participants
        assert not [one for one in found if one.identity.startswith("liveavatar-gateway") and one.tracks]
    for hearing in (plain, phone, wide):
        hearing.call.cancel()
    await caller.end(made.session.id)


async def test_neither_avatars_nor_agents_nor_screens_are_heard(caller, livekit, service):
    made = await caller.create(**OWN)
    agent = user_token(livekit, ROOM, "agent", kind="agent")
    screen = rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO
    async with (
        singing(livekit.url, agent, 550),
        singing(livekit.url, user_token(livekit, ROOM, "slides"), 770, source=screen),
        singing(livekit.url, user_token(livekit, ROOM, "ann"), 440),
        singing(livekit.url, user_token(livekit, ROOM, "bot"), 330, source=rtc.TrackSource.SOURCE_UNKNOWN),
    ):
        async with asyncio.timeout(30):
            while "ada" not in await identities(service, ROOM):
                await asyncio.sleep(0.05)
        hearing = await caller.listen(made.session.id)
        await until_sung(hearing, "ann", 440, 24_000)
        await until_sung(hearing, "bot", 330, 24_000)
        assert {chunk.participant for chunk in hearing.chunks} == {"ann", "bot"}
    hearing.call.cancel()
    await caller.end(made.session.id)


async def test_the_user_of_a_room_of_liveavatar_is_heard(caller, rooms):
    made = await caller.create(video=VIDEO)
    async with singing(made.room.url, made.room.viewer_token, 440):
        hearing = await caller.listen(made.session.id)
        await until_sung(hearing, "viewer", 440, 24_000)
        assert {chunk.participant for chunk in hearing.chunks} == {"viewer"}
        await caller.end(made.session.id)
        assert await hearing.status() is grpc.StatusCode.OK
    with pytest.raises(grpc.aio.AioRpcError):
        await caller.listen(made.session.id)


async def test_beyond_two_seconds_without_credit_the_oldest_is_dropped_and_counted(caller, livekit):
    made = await caller.create(**OWN)
    async with singing(livekit.url, user_token(livekit, ROOM, "ann"), 440):
        slow = await caller.listen(made.session.id, credit_bytes=960)
        quick = await caller.listen(made.session.id)
        await until(quick, lambda: len(quick.heard("ann")) >= 5 * 48_000)
        assert len(slow.chunks) <= 1
        await slow.credit(2 * 48_000)
        await slow.until("audio")
        while not (behind := [chunk for chunk in slow.chunks if chunk.HasField("dropped")]):
            await slow.until("audio")
        first = behind[0]
        dropped_s = first.dropped.ToTimedelta().total_seconds()
        assert dropped_s > 1
        earlier = [chunk.sequence for chunk in slow.chunks if chunk.sequence < first.sequence]
        assert first.sequence - max(earlier, default=0) - 1 == round(dropped_s / 0.02)
        # A machine that stands still for seconds may cost the other listener some audio too.
        assert sum(chunk.dropped.ToTimedelta().total_seconds() for chunk in quick.chunks) < dropped_s
    await caller.end(made.session.id)


async def test_the_room_is_joined_with_the_first_listener_and_left_with_the_session(caller, livekit, service):
    made = await caller.create(**OWN)
    async with singing(livekit.url, user_token(livekit, ROOM, "ann"), 440):
        assert not await listeners(service)
        hearing = await caller.listen(made.session.id)
        again = await caller.listen(made.session.id)
        assert len(await listeners(service)) == 1
        hearing.call.cancel()
        again.call.cancel()
        await caller.end(made.session.id)
        async with asyncio.timeout(30):
            while await listeners(service):
                await asyncio.sleep(0.05)


async def listeners(service) -> set[str]:
    return {name for name in await identities(service, ROOM) if name.startswith("liveavatar-gateway")}


async def test_who_is_put_out_of_the_room_joins_again(caller, livekit, service):
    made = await caller.create(**OWN)
    async with singing(livekit.url, user_token(livekit, ROOM, "ann"), 440):
        hearing = await caller.listen(made.session.id)
        await until_sung(hearing, "ann", 440, 24_000)
        (name,) = await listeners(service)
        await service.remove_participant(api.RoomParticipantIdentity(room=ROOM, identity=name))
        hearing.chunks.clear()
        async with asyncio.timeout(30):
            while not await listeners(service):
                await asyncio.sleep(0.05)
        hearing.chunks.clear()
        await until_sung(hearing, "ann", 440, 24_000)
    await caller.end(made.session.id)


async def test_a_room_without_a_server_is_unreachable():
    address = {"livekit_url": "ws://127.0.0.1:9", "livekit_key": "key", "livekit_secret": "secret" * 8}
    with processes.emulator() as emulator, processes.gateway(emulator.url, **address) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(**OWN)
            why = await refused(caller.listen(attachment.session_id))
            assert (why.reason, why.code) == ("ROOM_UNREACHABLE", grpc.StatusCode.UNAVAILABLE)
            assert why.has("RetryInfo")


async def test_the_python_client_hears_users_from_a_process_of_its_own(gateway, livekit):
    mulaw = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate_hz=16_000)
    async with (
        singing(livekit.url, user_token(livekit, ROOM, "ann"), 440),
        AsyncClient(gateway.address) as speaking,
        AsyncClient(gateway.address) as listening,
    ):
        room = LiveKitRoom(name=ROOM, avatar_identity="ada")
        async with speaking.open_session(AVATAR, livekit_room=room, quality="low") as session:
            heard = bytearray()
            async with session.listen() as listener:
                async for chunk in listener:
                    heard += chunk.audio
                    # More than the credit of the header, and then a second without a gap.
                    is_enough = len(heard) >= 6 * 48_000 and len(heard) % 4_800 == 0
                    if is_enough and abs(pitch_of(bytes(heard[-48_000:]), 24_000) - 440) < 10:
                        break
            other = listening.listen(session.id, audio_format=mulaw, participants=["ann"])
            assert (await other.next()).participant == "ann"
            await session.end()
            async for chunk in other:
                assert len(chunk.audio) == 320
    assert not other.connected


async def test_another_gateway_hears_on_after_a_crash(rooms, livekit, tmp_path):
    settings = {
        **own_rooms(livekit),
        "registry_file": str(tmp_path / "registry.db"),
        "lease_s": 2,
        "detach_grace_s": 60,
    }
    async with singing(livekit.url, user_token(livekit, ROOM, "ann"), 440):
        with processes.gateway(rooms.url, **settings) as first, processes.gateway(rooms.url, **settings) as second:
            async with connect(first.address) as caller:
                made = await caller.create(**OWN)
                hearing = await caller.listen(made.session.id)
                await until_sung(hearing, "ann", 440, 24_000)
                first.process.kill()
                with contextlib.suppress(grpc.aio.AioRpcError, EOFError):
                    await until(hearing, lambda: False)
            async with connect(second.address) as caller:
                resumed = await adopted(caller, made.handle)
                hearing = await caller.listen(made.session.id)
                await until_sung(hearing, "ann", 440, 24_000)
                await caller.end(resumed.session_id)


async def adopted(caller: Caller, handle: str):
    async with asyncio.timeout(40):
        while True:
            try:
                return await caller.resume(handle, skip_compacted=True)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)
