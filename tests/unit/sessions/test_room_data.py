"""Data for participants: in order, each command once, and refused in time."""

import asyncio

import pytest

from liveavatar_gateway.core.errors import (
    DataNotPermitted,
    ParticipantNotFound,
    RoomTokenMissing,
    RoomUnreachable,
    SessionEnded,
)
from liveavatar_gateway.core.room_events import RoomLossCause
from liveavatar_gateway.sessions.room_data import _MAX_REMEMBERED, DataMessage, RoomData
from liveavatar_gateway.telemetry.metrics import Metrics

HELLO = DataMessage(b"hello", "chat")


class View:
    """Room that notes what is sent."""

    def __init__(self) -> None:
        self.may_send = True
        self.sent: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def absent(self, identities) -> str:
        return next((identity for identity in identities if identity != "ann"), "")

    async def send(self, payload, topic, identities, *, timeout_s) -> None:
        assert timeout_s > 0
        await self.gate.wait()
        self.sent.append(payload)


class Room:
    """Connection that a test brings up."""

    def __init__(self, view: View | None) -> None:
        self.view = view
        self.guests: list[RoomData] = []

    def enter(self, guest) -> None:
        self.guests.append(guest)
        if self.view is not None:
            guest.entered(self.view)

    def depart(self, guest) -> None:
        self.guests.remove(guest)


class Bench:
    """A sender with its room."""

    def __init__(self, *, joined: bool = True, timeout_s: float = 10.0) -> None:
        self.view = View()
        self.room = Room(self.view if joined else None)
        self.metrics = Metrics()
        self.data = RoomData("s", self.room, self.metrics, timeout_s=timeout_s)

    def count(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value("gateway_room_data_messages_total", {"outcome": outcome})


async def test_a_message_is_sent_and_the_room_is_needed_only_for_it():
    bench = Bench()
    await bench.data.send("c-1", HELLO)
    assert bench.view.sent == [b"hello"]
    assert bench.room.guests == []
    assert bench.count("sent") == 1


async def test_messages_keep_their_order_and_share_the_room():
    bench = Bench(joined=False)
    sending = [
        asyncio.create_task(bench.data.send(f"c-{number}", DataMessage(bytes([number])))) for number in range(9)
    ]
    await asyncio.sleep(0.01)
    assert bench.room.guests == [bench.data]
    bench.data.entered(bench.view)
    await asyncio.wait_for(asyncio.gather(*sending), 5)
    assert bench.view.sent == [bytes([number]) for number in range(9)]


async def test_a_command_that_comes_again_is_carried_out_once():
    bench = Bench()
    bench.view.gate.clear()
    first = asyncio.create_task(bench.data.send("c-1", HELLO))
    await asyncio.sleep(0.01)
    # The stream of the first broke.
    first.cancel()
    again = asyncio.create_task(bench.data.send("c-1", HELLO))
    await asyncio.sleep(0.01)
    bench.view.gate.set()
    await asyncio.wait_for(again, 5)
    await bench.data.send("c-1", HELLO)
    assert bench.view.sent == [b"hello"]


async def test_the_oldest_commands_are_forgotten():
    bench = Bench()
    for number in range(_MAX_REMEMBERED + 1):
        await bench.data.send(f"c-{number}", HELLO)
    await bench.data.send("c-0", HELLO)
    await bench.data.send(f"c-{_MAX_REMEMBERED}", HELLO)
    assert len(bench.view.sent) == _MAX_REMEMBERED + 2


async def test_the_same_refusal_comes_again_for_the_same_command():
    bench = Bench()
    for _ in range(2):
        with pytest.raises(ParticipantNotFound) as caught:
            await bench.data.send("c-1", DataMessage(b"", identities=("ann", "bob")))
        assert caught.value.metadata == {"identity": "bob"}
    assert bench.count("refused") == 1


async def test_a_token_without_the_right_is_refused():
    bench = Bench()
    bench.view.may_send = False
    with pytest.raises(DataNotPermitted):
        await bench.data.send("c-1", HELLO)


async def test_a_room_that_cannot_be_joined_refuses_what_waits():
    bench = Bench(joined=False)
    sending = asyncio.create_task(bench.data.send("c-1", HELLO))
    await asyncio.sleep(0.01)
    bench.data.refused(RoomTokenMissing("s"))
    with pytest.raises(RoomTokenMissing):
        await asyncio.wait_for(sending, 5)


async def test_a_room_that_does_not_come_in_time_refuses_what_waits():
    bench = Bench(joined=False, timeout_s=0.01)
    with pytest.raises(RoomUnreachable):
        await bench.data.send("c-1", HELLO)
    assert bench.room.guests == []


async def test_a_lost_room_is_waited_for():
    bench = Bench()
    bench.view.gate.clear()
    first = asyncio.create_task(bench.data.send("c-1", HELLO))
    second = asyncio.create_task(bench.data.send("c-2", HELLO))
    await asyncio.sleep(0.01)
    bench.data.left(RoomLossCause.LOST)
    bench.view.gate.set()
    await asyncio.wait_for(first, 5)
    await asyncio.sleep(0.01)
    assert not second.done()
    bench.data.entered(bench.view)
    await asyncio.wait_for(second, 5)


async def test_the_end_of_the_session_refuses_what_waits():
    bench = Bench(joined=False)
    sending = asyncio.create_task(bench.data.send("c-1", HELLO))
    await asyncio.sleep(0.01)
    bench.data.close(SessionEnded("s", "CALLER_ENDED"))
    with pytest.raises(SessionEnded):
        await asyncio.wait_for(sending, 5)
