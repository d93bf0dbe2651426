"""Events of a real room, data from its participants, and data for them."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from livekit import api, rtc

from liveavatar.gateway import (
    AsyncClient,
    Client,
    DataReceivedEvent,
    LiveKitRoom,
    ParticipantJoinedEvent,
    ParticipantNotFound,
    RoomConnectedEvent,
    RoomEvents,
)
from liveavatar.gateway.v1 import room_pb2, session_pb2
from testkit import processes
from testkit.caller import AVATAR, Attachment, Caller, Refusal, refused
from testkit.caller import caller as connect
from testkit.rooms import identities
from testkit.users import singing, user_token

ROOM = "the-callers"
VIDEO = session_pb2.VideoSettings(quality=session_pb2.VIDEO_QUALITY_LOW, encoding=session_pb2.VIDEO_ENCODING_VP8)
WISH = room_pb2.RoomEvents(data_topics=["chat"])
LIVE, MUTED, NONE = (
    room_pb2.MICROPHONE_STATE_LIVE,
    room_pb2.MICROPHONE_STATE_MUTED,
    room_pb2.MICROPHONE_STATE_NONE,
)
_numbers = itertools.count(1)

pytestmark = pytest.mark.timeout(180)


def own_rooms(livekit) -> dict[str, str]:
    return {
        "livekit_url": livekit.url,
        "livekit_key": livekit.api_key,
        "livekit_secret": livekit.api_secret,
    }


@pytest.fixture
def room() -> str:
    """Return the name of a room that no other test uses."""
    return f"{ROOM}-events-{next(_numbers)}"


@pytest.fixture
def own(room) -> dict[str, Any]:
    """Return the spec of a session in that room, with events."""
    return {
        "livekit_room": session_pb2.LiveKitRoom(name=room, avatar_identity="ada"),
        "video": VIDEO,
        "room_events": WISH,
    }


@pytest.fixture
def gateway(rooms, livekit):
    with processes.gateway(rooms.url, detach_grace_s=300, **own_rooms(livekit)) as found:
        yield found


@pytest.fixture
async def caller(gateway) -> AsyncIterator[Caller]:
    async with connect(gateway.address) as found:
        yield found


class Person:
    """Participant who keeps the data that arrives."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.heard: list[rtc.DataPacket] = []
        self.room.on("data_received", self.heard.append)

    async def say(self, payload: bytes, topic: str = "chat", **options: Any) -> None:
        await self.room.local_participant.publish_data(payload, topic=topic, **options)

    async def until_heard(self, count: int) -> list[rtc.DataPacket]:
        await until(lambda: len(self.heard) >= count)
        return self.heard


@contextlib.asynccontextmanager
async def person(url: str, token: str) -> AsyncIterator[Person]:
    found = Person()
    await found.room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
    try:
        yield found
    finally:
        await found.room.disconnect()


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not so():
            await asyncio.sleep(0.02)


async def event_of(attachment: Attachment, kind: str, identity: str) -> Any:
    """Return the next event of a kind about a participant."""
    while True:
        event = await attachment.event(kind)
        who = event.participant.identity if hasattr(event, "participant") else event.identity
        if who == identity:
            return event


async def in_room(attachment: Attachment, identity: str) -> None:
    """Read until a participant is in the room, when the gateway joined or later."""
    connected = await attachment.event("room_connected")
    if identity not in [one.identity for one in connected.participants]:
        await event_of(attachment, "participant_joined", identity)


async def test_a_user_comes_is_heard_mutes_and_leaves(caller, livekit, room, own):
    attachment = await caller.attach(**own)
    await attachment.event("room_connected")
    async with singing(livekit.url, user_token(livekit, room, "ann"), 440) as ann:
        joined = await event_of(attachment, "participant_joined", "ann")
        assert joined.participant.kind == room_pb2.PARTICIPANT_KIND_USER
        if joined.participant.microphone == NONE:
            assert (await event_of(attachment, "microphone_changed", "ann")).microphone == LIVE
        (publication,) = ann.local_participant.track_publications.values()
        publication.track.mute()
        assert (await event_of(attachment, "microphone_changed", "ann")).microphone == MUTED
        publication.track.unmute()
        assert (await event_of(attachment, "microphone_changed", "ann")).microphone == LIVE
    left = await event_of(attachment, "participant_left", "ann")
    assert left.participant.kind == room_pb2.PARTICIPANT_KIND_USER
    await caller.end(attachment.session_id)


async def test_the_avatar_comes_with_its_tracks_and_agents_are_told_apart(caller, livekit, room, own):
    agent = user_token(livekit, room, "bot", kind="agent")
    async with person(livekit.url, agent):
        attachment = await caller.attach(**own)
        connected = await attachment.event("room_connected")
        kinds = {one.identity: one.kind for one in connected.participants}
        assert kinds["bot"] == room_pb2.PARTICIPANT_KIND_AGENT
        avatar = next((one for one in connected.participants if one.identity == "ada"), None)
        if avatar is None:
            avatar = (await event_of(attachment, "participant_joined", "ada")).participant
        assert avatar.kind == room_pb2.PARTICIPANT_KIND_AVATAR
        has_both = avatar.has_video and avatar.microphone != NONE
        while not has_both:
            tracks = await event_of(attachment, "avatar_tracks_changed", "ada")
            has_both = tracks.has_audio and tracks.has_video
        assert connected.participant_count == len(connected.participants)
    await caller.end(attachment.session_id)


async def test_viewers_of_an_own_room_come_and_go(caller, livekit, room, own):
    attachment = await caller.attach(**own)
    assert not (await attachment.event("viewers_changed")).present
    async with person(livekit.url, user_token(livekit, room, "ann")):
        assert (await attachment.event("viewers_changed")).present
    assert not (await attachment.event("viewers_changed")).present
    await caller.end(attachment.session_id)


async def test_a_room_of_liveavatar_has_events_and_takes_data_both_ways(caller):
    attachment = await caller.attach(video=VIDEO, room_events=WISH)
    access = attachment.opened.room
    async with person(access.url, access.viewer_token) as viewer:
        await in_room(attachment, "viewer")
        while not (await attachment.event("viewers_changed")).present:
            pass
        result = await attachment.command("d-1", send_data=room_pb2.SendData(payload=b"hello", topic="state"))
        assert not result.status.code
        # LiveKit shows participants that publish nothing to others with a delay.
        await until(lambda: "agent" in viewer.room.remote_participants)
        result = await attachment.command("d-2", send_data=room_pb2.SendData(payload=b"again", topic="state"))
        assert not result.status.code
        first, again = await viewer.until_heard(2)
        assert (first.data, first.topic) == (b"hello", "state")
        assert (again.data, again.participant.identity) == (b"again", "agent")
    await event_of(attachment, "participant_left", "viewer")
    await caller.end(attachment.session_id)


async def test_data_of_the_topics_asked_for_arrives_and_only_there(caller, livekit, room, own):
    attachment = await caller.attach(**own)
    watch = caller.watch()
    await watch.add(attachment.session_id)
    async with person(livekit.url, user_token(livekit, room, "ann")) as ann:
        await in_room(attachment, "ann")
        await ann.say(b"for nobody", "other")
        await ann.say(b"for nobody", "")
        await ann.say(b"lossy", reliable=False)
        await ann.say(b"\x00 secret", "chat")
        found = [await attachment.event("data_received") for _ in range(2)]
        assert sorted((one.identity, one.topic, one.payload) for one in found) == [
            ("ann", "chat", b"\x00 secret"),
            ("ann", "chat", b"lossy"),
        ]
    await caller.end(attachment.session_id)
    seen = []
    with contextlib.suppress(TimeoutError):
        while not any(event.HasField("ended") for event in seen):
            response = await watch.until("event")
            seen.append(response.event)
    watched = [event.data_received for event in seen if event.HasField("data_received")]
    assert [(one.identity, one.topic, one.payload) for one in watched] == [("ann", "chat", b"")] * 2


async def test_data_for_participants_reaches_those_it_is_for_in_order(caller, livekit, service, room, own):
    """Without events too: the gateway joins for it, and stays hidden."""
    del own["room_events"]
    async with (
        person(livekit.url, user_token(livekit, room, "ann")) as ann,
        person(livekit.url, user_token(livekit, room, "bob")) as bob,
    ):
        attachment = await caller.attach(**own)
        await attachment.until_ready()
        for number in range(20):
            data = room_pb2.SendData(payload=bytes([number]), topic="state", identities=["ann"])
            assert not (await attachment.command(f"d-{number}", send_data=data)).status.code
        everybody = room_pb2.SendData(payload=bytes(15 * 1024))
        assert not (await attachment.command("d-all", send_data=everybody)).status.code
        # A command that comes again, as after a broken stream, is carried out once.
        assert not (await attachment.command("d-all", send_data=everybody)).status.code
        last = room_pb2.SendData(payload=b"last", topic="state")
        assert not (await attachment.command("d-last", send_data=last)).status.code
        heard = await ann.until_heard(22)
        assert [packet.data for packet in heard] == [
            *(bytes([number]) for number in range(20)),
            bytes(15 * 1024),
            b"last",
        ]
        assert {packet.topic for packet in heard} == {"state", ""}
        assert [packet.data for packet in await bob.until_heard(2)] == [bytes(15 * 1024), b"last"]
        assert not [name for name in ann.room.remote_participants if name.startswith("liveavatar")]
        events = [event.WhichOneof("event") for event in attachment.events]
        assert not {"room_connected", "participant_joined"} & set(events)
    await caller.end(attachment.session_id)


async def test_data_for_somebody_who_is_not_there_is_refused(caller, own):
    attachment = await caller.attach(**own)
    data = room_pb2.SendData(payload=b"hello", identities=["nobody"])
    why = Refusal((await attachment.command("d-1", send_data=data)).status)
    assert (why.reason, why.metadata) == ("PARTICIPANT_NOT_FOUND", {"identity": "nobody"})
    large = room_pb2.SendData(payload=bytes(15 * 1024 + 1))
    why = Refusal((await attachment.command("d-2", send_data=large)).status)
    assert (why.reason, why.field) == ("INVALID_FIELD", "command.send_data.payload")
    await caller.end(attachment.session_id)


async def test_the_callers_own_agent_has_the_seat_to_itself(caller):
    why = await refused(caller.attach(video=VIDEO, room_events=WISH, agent_seat=session_pb2.AGENT_SEAT_CALLER))
    assert (why.reason, why.code) == ("AGENT_SEAT_TAKEN", grpc.StatusCode.FAILED_PRECONDITION)
    attachment = await caller.attach(video=VIDEO, agent_seat=session_pb2.AGENT_SEAT_CALLER)
    why = Refusal((await attachment.command("d-1", send_data=room_pb2.SendData(payload=b"hello"))).status)
    assert why.reason == "AGENT_SEAT_TAKEN"
    await caller.end(attachment.session_id)


async def test_a_flood_is_dropped_and_counted_and_hides_no_other_event(caller, gateway, livekit, room, own):
    attachment = await caller.attach(**own)
    async with (
        person(livekit.url, user_token(livekit, room, "flood")) as flood,
        person(livekit.url, user_token(livekit, room, "ann")) as ann,
    ):
        await in_room(attachment, "flood")
        for _ in range(10):
            await asyncio.gather(*(flood.say(b"again and again") for _ in range(100)))
        dropped = await attachment.event("data_dropped")
        assert list(dropped.identities) == ["flood"]
        await ann.say(b"through")
        while (data := await attachment.event("data_received")).identity != "ann":
            pass
        assert data.payload == b"through"
        while _dropped(attachment) + _received(attachment, "flood") < 950:
            await attachment.read()
        assert _received(attachment, "flood") < 500
    await event_of(attachment, "participant_left", "flood")
    # Whoever comes back has missed nothing.
    attachment.call.cancel()
    again = await caller.resume(attachment.opened.handle)
    assert again.opened.compacted_through == 0
    await caller.end(attachment.session_id)


def _received(attachment: Attachment, who: str) -> int:
    return sum(
        event.data_received.identity == who for event in attachment.events if event.HasField("data_received")
    )


def _dropped(attachment: Attachment) -> int:
    return sum(event.data_dropped.count for event in attachment.events)


async def test_who_is_put_out_says_so_and_comes_back(caller, livekit, service, room, own):
    attachment = await caller.attach(**own)
    async with person(livekit.url, user_token(livekit, room, "ann")):
        await in_room(attachment, "ann")
        (name,) = {one for one in await identities(service, room) if one.startswith("liveavatar-gateway")}
        await service.remove_participant(api.RoomParticipantIdentity(room=room, identity=name))
        lost = await attachment.event("room_disconnected")
        assert lost.cause == room_pb2.ROOM_DISCONNECT_CAUSE_REMOVED
        connected = await attachment.event("room_connected")
        assert "ann" in [one.identity for one in connected.participants]
    await event_of(attachment, "participant_left", "ann")
    await caller.end(attachment.session_id)


async def test_a_room_that_is_closed_says_so_unless_the_session_ends_first(caller, service, room, own):
    attachment = await caller.attach(**own)
    await attachment.event("room_connected")
    await service.delete_room(api.DeleteRoomRequest(room=room))
    try:
        lost = await attachment.event("room_disconnected")
    except EOFError:
        # The avatar has lost the room as well, and LiveAvatar was quicker to end the session.
        assert attachment.events[-1].HasField("ended")
    else:
        assert lost.cause == room_pb2.ROOM_DISCONNECT_CAUSE_CLOSED
        await caller.end(attachment.session_id)


async def test_a_room_that_cannot_be_joined_says_so():
    address = {"livekit_url": "ws://127.0.0.1:9", "livekit_key": "key", "livekit_secret": "secret" * 8}
    with processes.emulator() as emulator, processes.gateway(emulator.url, **address) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(
                livekit_room=session_pb2.LiveKitRoom(name="room"), video=VIDEO, room_events=WISH
            )
            lost = await attachment.event("room_disconnected")
            assert lost.cause == room_pb2.ROOM_DISCONNECT_CAUSE_REFUSED
            assert Refusal(lost.error).reason == "ROOM_UNREACHABLE"
            data = room_pb2.SendData(payload=b"hello")
            why = Refusal((await attachment.command("d-1", send_data=data)).status)
            assert why.reason == "ROOM_UNREACHABLE"
            await caller.end(attachment.session_id)


async def test_listeners_events_and_data_share_one_connection(caller, livekit, service, room, own):
    attachment = await caller.attach(**own)
    async with singing(livekit.url, user_token(livekit, room, "ann"), 440):
        await in_room(attachment, "ann")
        hearing = await caller.listen(attachment.session_id)
        await hearing.until("audio")
        assert not (await attachment.command("d-1", send_data=room_pb2.SendData(payload=b"hello"))).status.code
        names = [one for one in await identities(service, room) if one.startswith("liveavatar-gateway")]
        assert len(names) == 1
        hearing.call.cancel()
    await event_of(attachment, "participant_left", "ann")
    assert not any(event.HasField("room_disconnected") for event in attachment.events)
    await caller.end(attachment.session_id)
    await until_left(service, room)


async def until_left(service, room: str) -> None:
    async with asyncio.timeout(30):
        while [one for one in await identities(service, room) if one.startswith("liveavatar-gateway")]:
            await asyncio.sleep(0.05)


async def test_another_gateway_reports_on_after_a_crash(rooms, livekit, room, own, tmp_path):
    settings = {
        **own_rooms(livekit),
        "registry_file": str(tmp_path / "registry.db"),
        "lease_s": 2,
        "detach_grace_s": 60,
    }
    async with person(livekit.url, user_token(livekit, room, "ann")) as ann:
        with processes.gateway(rooms.url, **settings) as first, processes.gateway(rooms.url, **settings) as second:
            async with connect(first.address) as caller:
                attachment = await caller.attach(**own)
                await in_room(attachment, "ann")
                first.process.kill()
                await attachment.closed()
            async with connect(second.address) as caller:
                resumed = await adopted(caller, attachment.opened.handle)
                connected = await resumed.event("room_connected")
                assert "ann" in [one.identity for one in connected.participants]
                await ann.say(b"still here")
                assert (await resumed.event("data_received")).payload == b"still here"
                await caller.end(resumed.session_id)


async def adopted(caller: Caller, handle: str) -> Attachment:
    async with asyncio.timeout(40):
        while True:
            try:
                return await caller.resume(handle, skip_compacted=True)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)


async def test_the_python_clients_read_events_and_send_data(gateway, livekit, room):
    own = LiveKitRoom(name=room, avatar_identity="ada")
    wish = RoomEvents(data_topics=["chat"])
    options = {"livekit_room": own, "quality": "low", "room_events": wish}
    async with AsyncClient(gateway.address) as client, client.open_session(AVATAR, **options) as session:
        async for event in session.events():
            if isinstance(event, RoomConnectedEvent):
                break
        async with person(livekit.url, user_token(livekit, room, "ann")) as ann:
            async for event in session.events():
                if isinstance(event, ParticipantJoinedEvent) and event.participant.identity == "ann":
                    break
            await session.send_data(json.dumps({"turn": 1}), topic="state", identities=["ann"])
            (packet,) = await ann.until_heard(1)
            assert json.loads(packet.data) == {"turn": 1}
            await ann.say("grüße".encode())
            async for event in session.events():
                if isinstance(event, DataReceivedEvent):
                    assert (event.identity, event.topic, event.payload.decode()) == ("ann", "chat", "grüße")
                    break
            with pytest.raises(ParticipantNotFound):
                await session.send_data("hello", identities="nobody")


def test_the_blocking_client_sends_data(gateway, livekit, room):
    own = LiveKitRoom(name=room, avatar_identity="ada")
    options = {"livekit_room": own, "quality": "low", "room_events": RoomEvents()}
    with Client(gateway.address) as client, client.open_session(AVATAR, **options) as session:
        session.send_data("hello", topic="state")
        assert any(isinstance(event, RoomConnectedEvent) for event in _first(session.events(timeout=30)))


def _first(events):
    for event in events:
        yield event
        if isinstance(event, RoomConnectedEvent):
            return
