"""Life of rooms: creation, participants, removal, and the failures of each step."""

import asyncio
import contextlib
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from livekit import api, rtc

from liveavatar_demo.livekit_server import livekit_server
from testkit import processes
from testkit.rooms import Call, identities, names, start
from testkit.watcher import watching

OWN_ROOM = "desk-7"


def avatar_token(server, room: str = OWN_ROOM, secret: str | None = None) -> str:
    grants = api.VideoGrants(room_join=True, room=room)
    token = api.AccessToken(server.api_key, secret or server.api_secret).with_identity("liveavatar-avatar-agent")
    return token.with_kind("agent").with_grants(grants).with_ttl(timedelta(hours=1)).to_jwt()


def livekit_room(server, room: str = OWN_ROOM, **changes: str) -> dict[str, dict[str, str]]:
    brought = {"livekit_url": server.url, "livekit_room": room, "livekit_client_token": avatar_token(server, room)}
    return {"livekit_config": {**brought, **changes}}


async def gone(service, room: str) -> None:
    async with asyncio.timeout(15):
        while room in await names(service):
            await asyncio.sleep(0.05)


async def joined(rooms: processes.Emulator, **order) -> Call:
    call = start(rooms, **order)
    await call.media_until(joined=True)
    return call


async def test_an_owned_room_is_there_with_the_avatar_and_gone_after_stop(rooms, service):
    call = await joined(rooms)
    room = call.media["room"]
    assert await identities(service, room) == {"heygen"}
    call.stop()
    await gone(service, room)
    assert (await call.media_until(status="left"))["joined"] is False


async def test_a_viewer_may_subscribe_publish_and_send_data_as_measured(rooms, service):
    call = await joined(rooms)
    async with watching(call.url, call.viewer_token, video=False):
        (viewer,) = [
            participant
            for participant in (
                await service.list_participants(api.ListParticipantsRequest(room=call.media["room"]))
            ).participants
            if participant.identity == "viewer"
        ]
    may = viewer.permission
    assert (may.can_subscribe, may.can_publish, may.can_publish_data) == (True, True, True)
    call.stop()


async def test_the_agents_token_is_a_seat_beside_the_viewers(rooms, service):
    call = await joined(rooms)
    agent, viewer = rtc.Room(), rtc.Room()
    await agent.connect(call.url, call.answer["livekit_agent_token"])
    await viewer.connect(call.url, call.viewer_token)
    assert await identities(service, call.media["room"]) == {"heygen", "agent", "viewer"}
    call.stop()
    await gone(service, call.media["room"])
    await agent.disconnect()
    await viewer.disconnect()


async def test_an_livekit_room_is_joined_as_the_caller_says_and_left_alone(rooms, service, livekit):
    await service.create_room(api.CreateRoomRequest(name=OWN_ROOM, metadata="the caller's"))
    call = await joined(rooms, **livekit_room(livekit))
    assert call.media["identity"] == "liveavatar-avatar-agent"
    assert await identities(service, OWN_ROOM) == {"liveavatar-avatar-agent"}
    # Start's tokens are for that room too, since it is on a server the emulator has the key of.
    async with watching(call.url, call.viewer_token, video=False) as watcher:
        await watcher.until(lambda seen: len(seen.pieces) > 10)
        call.stop()
        await watcher.until(lambda seen: seen.left == ["liveavatar-avatar-agent"])
    (room,) = (await service.list_rooms(api.ListRoomsRequest(names=[OWN_ROOM]))).rooms
    assert room.metadata == "the caller's"
    await service.delete_room(api.DeleteRoomRequest(room=OWN_ROOM))


async def test_a_token_that_the_server_refuses_ends_the_session_and_does_not_reach_the_log(rooms, livekit):
    token = avatar_token(livekit, secret="somebody else's secret, of which nobody here knows")
    call = start(rooms, **livekit_room(livekit, livekit_client_token=token))
    assert await call.ended() == "SERVER_ERROR"
    assert call.media["status"] == "lost"
    log = rooms.process.log
    assert log.count(f"avatar.refused session={call.id}") == 1
    for part in token.split("."):
        assert part not in log


async def test_no_token_key_or_secret_reaches_the_log(livekit):
    with processes.emulator(livekit=livekit) as emulator:
        call = await joined(emulator, **livekit_room(livekit, "desk-8"))
        other = await joined(emulator)
        call.stop()
        other.stop()
        await other.media_until(status="left")
        log = emulator.process.log
    secrets = [livekit.api_secret, avatar_token(livekit, "desk-8").split(".")[1]]
    secrets += [found.answer[f"livekit_{who}_token"] for found in (call, other) for who in ("client", "agent")]
    assert not [secret for secret in secrets if secret in log]


async def test_a_room_that_is_removed_under_it_ends_the_session(rooms, service):
    call = await joined(rooms)
    await service.delete_room(api.DeleteRoomRequest(room=call.media["room"]))
    assert await call.ended() == "SERVER_ERROR"
    assert rooms.process.log.count(f"avatar.lost session={call.id}") == 1


async def test_a_livekit_server_that_is_not_there_ends_the_session():
    with livekit_server() as server:
        pass
    with processes.emulator(livekit=server) as emulator:
        call = start(emulator)
        assert await call.ended() == "SERVER_ERROR"
        assert emulator.process.log.count(f"avatar.refused session={call.id}") == 1


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_livekit_server_that_goes_away_is_told_once_and_ends_the_session():
    with livekit_server() as server, processes.emulator(livekit=server) as emulator:
        call = await joined(emulator)
        server.process.kill()
        async with asyncio.timeout(100):
            while call.recording()["end_reason"] is None:
                await asyncio.sleep(0.5)
        assert call.recording()["end_reason"] == "SERVER_ERROR"
        await call.media_until(status="lost")
        assert emulator.process.log.count(f"avatar.lost session={call.id}") == 1


async def test_a_reset_returns_when_every_avatar_has_left_and_every_owned_room_is_gone(livekit, service):
    with processes.emulator(livekit=livekit) as emulator:
        calls = [await joined(emulator), await joined(emulator, **livekit_room(livekit, "desk-9"))]
        owned = calls[0].media["room"]
        emulator.http.post("/_emulator/reset", timeout=20).raise_for_status()
        assert owned not in await names(service)
        assert await identities(service, "desk-9") == set()


@pytest.mark.parametrize("when", ["joined", "joining"])
async def test_a_shutdown_takes_avatars_and_owned_rooms_along(livekit, service, when):
    with processes.emulator(livekit=livekit) as emulator:
        call = start(emulator)
        if when == "joined":
            await call.media_until(joined=True)
        emulator.process.send(signal.SIGTERM)
        assert await asyncio.to_thread(emulator.process.wait, 20) == 0
        assert f"session-{call.id}" not in await names(service)


async def test_a_session_that_ends_while_the_avatar_is_on_its_way_leaves_nothing(rooms, service):
    call = start(rooms)
    call.stop()
    await call.media_until(status="left")
    await gone(service, f"session-{call.id}")
    assert f"avatar.lost session={call.id}" not in rooms.process.log


async def test_a_muted_avatar_stays_until_its_socket_is_closed(rooms, service):
    rooms.change_settings(max_duration_mode="mute")
    call = await joined(rooms, max_session_duration=3)
    room = call.media["room"]
    async with call.socket():
        assert await call.ended() == "MAX_DURATION_REACHED"
        assert await identities(service, room) == {"heygen"}
    await gone(service, room)
    rooms.change_settings(max_duration_mode="close")


def test_rooms_keep_their_pace(rooms):
    for changes in ({"speed": 2}, {"speed": 0.5}):
        refused = rooms.http.patch("/_emulator/settings", json=changes)
        assert refused.status_code == 422
        assert "real time" in refused.text


def held(emulator: processes.Emulator) -> tuple[int, int]:
    """Open files and threads of the emulator."""
    process = Path("/proc") / str(emulator.process.pid)
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


@pytest.mark.timeout(120)
async def test_many_sessions_leave_nothing_behind(livekit, record_property):
    with processes.emulator(livekit=livekit) as emulator:

        async def once() -> tuple[int, int]:
            call = await joined(emulator)
            call.stop()
            await call.media_until(status="left")
            return held(emulator)

        counts = [await once() for _ in range(12)]
    record_property("open_files_and_threads", counts)
    # Pools fill up in the first few; a leak goes on.
    assert max(files for files, _ in counts[8:]) <= max(files for files, _ in counts[2:5]) + 2, counts
    assert max(threads for _, threads in counts[8:]) <= max(threads for _, threads in counts[2:5]) + 2, counts


@pytest.mark.parametrize("token", ["livekit_client_token", "livekit_agent_token"])
async def test_a_room_stays_ended_though_somebody_joins_with_a_token_of_it(rooms, service, token):
    call = await joined(rooms)
    name = call.media["room"]
    call.stop()
    await gone(service, name)
    late = rtc.Room()
    put_out = asyncio.Event()
    late.on("disconnected", lambda _: put_out.set())
    # The server makes the room again for whoever joins; the join itself may fail when it is removed meanwhile.
    with contextlib.suppress(rtc.ConnectError):
        await late.connect(call.url, call.answer[token])
        async with asyncio.timeout(15):
            await put_out.wait()
    await gone(service, name)
    await late.disconnect()
