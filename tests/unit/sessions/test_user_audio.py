"""Listeners of a session share one connection to its room, which lives no longer than they need it."""

import asyncio
from collections.abc import Callable

import pytest

from liveavatar_gateway.core.errors import CapacityExhausted, InternalError, RoomTokenMissing, RoomUnreachable
from liveavatar_gateway.core.user_audio import ListenerBuffer
from liveavatar_gateway.rooms.access import LiveKitAccess
from liveavatar_gateway.sessions.attachments import Attachments
from liveavatar_gateway.sessions.user_audio import MAX_LISTENERS, Listener, UserAudio, open_room
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import Metrics


class Place:
    """A room that a test moves."""

    def __init__(self, name: str = "room") -> None:
        self.listener_room = name
        self.identities = ["avatar"]
        self.refusal: Exception | None = None

    async def listener_access(self) -> LiveKitAccess:
        if self.refusal is not None:
            raise self.refusal
        return LiveKitAccess(url="wss://rooms", room=self.listener_room, token="t")


class Connection:
    """A connection that a test loses."""

    def __init__(self, house: "House") -> None:
        self._house = house
        self.is_lost = False
        self.access: LiveKitAccess | None = None
        self.choices = 0
        self.has_left = False

    async def join(self, access: LiveKitAccess) -> None:
        if self._house.failures:
            raise self._house.failures.pop(0)
        self.access = access

    def choose(self) -> None:
        self.choices += 1

    async def leave(self) -> None:
        self.has_left = True

    def lose(self) -> None:
        self.is_lost = True
        self._house.audio.room_lost()


class House:
    """User audio of a session with everything around it."""

    def __init__(self, *failures: Exception, place: Place | None = None, linger_s: float = 0.0) -> None:
        self.place = place or Place()
        self.failures = list(failures)
        self.connections: list[Connection] = []
        self.metrics = Metrics()
        self.attachments = Attachments("s", grace_s=60, abandon=lambda: None, changed=lambda: None)
        self.audio = UserAudio(
            "s",
            self.place,
            self.attachments,
            self.metrics,
            connect=self._connect,
            linger_s=linger_s,
            first_wait_s=0.001,
        )

    async def _connect(self, sink: object, avatars: object) -> Connection:
        assert sink is self.audio
        assert avatars == self.place.identities
        self.connections.append(Connection(self))
        return self.connections[-1]

    def listen(self, *participants: str, rate_hz: int = 24_000) -> Listener:
        """Add a listener, and let it join."""
        buffer = ListenerBuffer(byte_rate=100, chunk_bytes=2, credit_bytes=100, max_waiting_bytes=100)
        listener = Listener(buffer, rate_hz=rate_hz, encode=bytes, participants=participants, wakeup=Wakeup())
        self.audio.add(listener)
        return listener

    @property
    def rooms(self) -> float | None:
        return self.metrics.registry.get_sample_value("gateway_rooms_joined")


async def soon(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not so():
            await asyncio.sleep(0.001)


@pytest.fixture
async def house():
    found = House()
    yield found
    found.audio.close()


async def test_two_listeners_share_a_connection_that_is_left_after_them(house):
    first, second = house.listen(), house.listen("ann", rate_hz=8_000)
    await soon(lambda: first.has_joined and second.has_joined)
    (connection,) = house.connections
    assert connection.access.room == "room"
    assert house.audio.rates_hz() == {24_000, 8_000}
    assert house.rooms == 1
    house.audio.remove(first)
    assert connection.choices == 2
    house.audio.remove(second)
    await soon(lambda: connection.has_left)
    assert house.rooms == 0


async def test_audio_reaches_the_listeners_of_its_user_and_rate(house):
    everybody, ann, wide = house.listen(), house.listen("ann"), house.listen(rate_hz=48_000)
    house.audio.take("ann", 24_000, b"aaa", 1.0)
    house.audio.take("bob", 24_000, b"bb", 1.0)
    house.audio.fell_silent("ann", 24_000)
    heard = [
        [(chunk.participant, chunk.audio) for chunk in iter(one.buffer.take, None)]
        for one in (everybody, ann, wide)
    ]
    assert heard == [[("ann", b"aa"), ("bob", b"bb"), ("ann", b"a")], [("ann", b"aa"), ("ann", b"a")], []]
    assert house.audio.hears("anybody")


async def test_only_users_whom_somebody_wants_are_heard(house):
    house.listen("ann")
    assert house.audio.hears("ann")
    assert not house.audio.hears("bob")


async def test_a_session_has_a_limit_of_listeners(house):
    for _ in range(MAX_LISTENERS):
        house.listen()
    with pytest.raises(CapacityExhausted):
        house.listen()


async def test_one_that_comes_later_is_in_the_room_at_once(house):
    first = house.listen()
    await soon(lambda: first.has_joined)
    second = house.listen()
    assert second.has_joined


async def test_the_room_is_kept_for_one_that_comes_back():
    house = House(linger_s=60)
    first = house.listen()
    await soon(lambda: first.has_joined)
    house.audio.remove(first)
    assert house.listen().has_joined
    assert len(house.connections) == 1
    house.audio.close()
    await soon(lambda: house.connections[0].has_left)


async def test_a_lost_room_is_joined_again(house):
    listener = house.listen()
    await soon(lambda: listener.has_joined)
    house.connections[0].lose()
    await soon(lambda: len(house.connections) == 2 and house.connections[1].choices > 0)
    assert house.connections[0].has_left
    assert listener.error is None


async def test_another_room_after_a_rotation_is_joined(house):
    listener = house.listen()
    await soon(lambda: listener.has_joined)
    house.place.listener_room = "next"
    house.attachments.wake()
    await soon(lambda: len(house.connections) == 2 and house.connections[1].access is not None)
    assert house.connections[1].access.room == "next"
    assert house.connections[0].has_left


async def test_a_listener_waits_for_the_first_room_of_its_session():
    house = House(place=Place(""))
    listener = house.listen()
    await asyncio.sleep(0.01)
    assert house.connections == []
    house.place.listener_room = "room"
    house.attachments.wake()
    await soon(lambda: listener.has_joined)
    house.audio.close()


async def test_a_room_that_cannot_be_joined_is_tried_again_and_then_refused_to_those_who_wait():
    house = House(*(RoomUnreachable("no answer") for _ in range(3)))
    listener = house.listen()
    await soon(lambda: listener.error is not None)
    assert isinstance(listener.error, RoomUnreachable)
    assert all(connection.has_left for connection in house.connections[:3])
    house.audio.close()


async def test_who_was_in_the_room_waits_for_it_to_come_back():
    house = House()
    listener = house.listen()
    await soon(lambda: listener.has_joined)
    house.failures = [RoomUnreachable("no answer") for _ in range(4)]
    house.connections[0].lose()
    await soon(lambda: len(house.connections) == 6)
    assert listener.error is None
    house.audio.close()


async def test_a_room_without_a_token_is_refused_at_once(house):
    house.place.refusal = RoomTokenMissing("s")
    listener = house.listen()
    await soon(lambda: listener.error is not None)
    assert isinstance(listener.error, RoomTokenMissing)
    assert house.connections == []


async def test_a_fault_ends_the_listeners_and_not_those_that_come_later(house):
    house.place.refusal = ValueError("a fault")
    listener = house.listen()
    await soon(lambda: listener.error is not None)
    assert isinstance(listener.error, InternalError)
    house.audio.remove(listener)
    house.place.refusal = None
    later = house.listen()
    await soon(lambda: later.has_joined)


async def test_after_the_end_of_the_session_nothing_is_joined(house):
    house.audio.close()
    listener = house.listen()
    await asyncio.sleep(0.01)
    assert not listener.has_joined
    assert house.connections == []


async def test_the_sdk_is_imported_with_the_first_room(house):
    connection = await open_room(house.audio, ["avatar"])
    assert not connection.is_lost
    await connection.leave()
