"""Watch over viewers: each room once, bounded, and an outage of LiveKit ends no session."""

import asyncio
from types import SimpleNamespace

import pytest

from liveavatar_gateway.rooms.audience import AudienceUnknown, Occupant
from liveavatar_gateway.sessions.spec import LiveKitRoom
from liveavatar_gateway.sessions.viewer_watch import ROUND_S, ViewerWatch
from liveavatar_gateway.telemetry.metrics import Metrics


class Session:
    """Session that notes what it is told."""

    def __init__(self, room: str | None, *, limit_s: float | None = 60.0, tenant: str = "") -> None:
        own = None if room is None else LiveKitRoom(name=room, tenant=tenant)
        self.id = f"session in {room}"
        self.spec = SimpleNamespace(livekit_room=own, viewer_absence_s=limit_s)
        self.watches_viewers = limit_s is not None
        self.is_absence_announced = False
        self.avatar_identities = ["avatar"]
        self.kept_out: set[str] = set()
        self.told: list[bool | None] = []

    def note_viewers(self, present: bool | None) -> None:  # noqa: FBT001 - three values
        self.told.append(present)


class Rooms:
    """Rooms with viewers, and tenants whose servers are down."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.agents: set[str] = set()
        self.stuck = False
        self.removed: list[tuple[str, str]] = []

    async def occupants(self, room, *, tenant) -> list[Occupant]:
        self.asked.append(room)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if tenant in self.down:
            raise AudienceUnknown
        present = ["avatar", *(["ann"] if room in self.seen else [])]
        return [
            Occupant(identity=identity, can_see=identity not in self.agents, is_agent=identity in self.agents)
            for identity in present
        ]

    async def remove(self, room, identity, *, tenant) -> None:
        if self.stuck:
            raise AudienceUnknown
        self.removed.append((room, identity))


class Bench:
    """A watch with a clock that a test moves."""

    def __init__(self, *sessions: Session) -> None:
        self.sessions = list(sessions)
        self.rooms = Rooms()
        self.metrics = Metrics()
        self.now_s = 1_000.0
        self.watch = ViewerWatch(lambda: self.sessions, self.rooms, self.metrics, clock=lambda: self.now_s)

    async def look_after(self, seconds: float) -> None:
        self.now_s += seconds
        await self.watch.look()

    def count(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("gateway_room_looks_total", {"outcome": outcome}) or 0.0


async def test_each_room_is_looked_into_once_for_all_of_its_sessions():
    first, second, other = Session("desk-7"), Session("desk-7"), Session("desk-8")
    bench = Bench(first, second, other)
    bench.rooms.seen = {"desk-8"}
    await bench.look_after(0)
    assert sorted(bench.rooms.asked) == ["desk-7", "desk-8"]
    assert (first.told, second.told, other.told) == ([False], [False], [True])
    assert (bench.count("nobody"), bench.count("viewers")) == (1, 1)


async def test_rooms_of_the_same_name_of_two_tenants_are_two():
    mine, theirs = Session("desk-7", tenant="acme"), Session("desk-7", tenant="beta")
    bench = Bench(mine, theirs)
    await bench.look_after(0)
    assert bench.rooms.asked == ["desk-7", "desk-7"]


async def test_sessions_without_the_limit_or_without_a_room_of_their_own_are_left_alone():
    bench = Bench(Session("desk-7", limit_s=None), Session(None))
    await bench.look_after(0)
    assert bench.rooms.asked == []


async def test_a_room_is_looked_into_more_often_once_the_end_is_announced():
    session = Session("desk-7")
    bench = Bench(session)
    await bench.look_after(0)
    await bench.look_after(9)
    assert len(session.told) == 1
    session.is_absence_announced = True
    await bench.look_after(1.5)
    await bench.look_after(2)
    assert len(session.told) == 3


async def test_a_short_outage_is_bridged_and_a_long_one_is_told():
    session = Session("desk-7", limit_s=6.0)
    bench = Bench(session)
    await bench.look_after(0)
    bench.rooms.down = {""}
    for _ in range(7):
        await bench.look_after(2)
    assert session.told == [False]
    await bench.look_after(2)
    assert session.told == [False, None]
    bench.rooms.down = set()
    await bench.look_after(2)
    assert session.told == [False, None, False]
    assert bench.count("failed") == 8


async def test_a_server_that_is_down_keeps_nobody_waiting():
    """After three failures of a round, the other rooms of that tenant are not tried; those of others are."""
    bench = Bench(*(Session(f"desk-{number}", tenant="acme") for number in range(40)), Session("lobby"))
    bench.rooms.down = {"acme"}
    await bench.look_after(0)
    assert len(bench.rooms.asked) < 20
    assert "lobby" in bench.rooms.asked
    assert bench.sessions[-1].told == [False]


async def test_few_rooms_are_looked_into_at_once():
    bench = Bench(*(Session(f"desk-{number}") for number in range(40)))
    await bench.look_after(0)
    assert bench.rooms.most_at_once <= 8


async def test_a_fault_of_one_session_hides_nothing_from_the_others():
    faulty, sound = Session("desk-7"), Session("desk-7")
    faulty.note_viewers = None
    bench = Bench(faulty, sound)
    await bench.look_after(0)
    assert sound.told == [False]


async def test_what_is_over_is_forgotten():
    bench = Bench(Session("desk-7"))
    await bench.look_after(0)
    bench.sessions.clear()
    await bench.look_after(0)
    assert not bench.watch._due_s
    assert not bench.watch._answered_s


async def test_a_viewer_that_was_removed_and_came_back_is_put_out_and_counts_as_nobody():
    session, other = Session("desk-7"), Session("desk-7")
    session.kept_out = {"ann", "ben"}
    bench = Bench(session, other)
    bench.rooms.seen = {"desk-7"}
    await bench.look_after(0)
    assert bench.rooms.removed == [("desk-7", "ann")]
    assert (session.told, other.told) == ([False], [False])


async def test_a_room_is_looked_into_for_removed_viewers_alone():
    session = Session("desk-7", limit_s=None)
    session.kept_out = {"ann"}
    bench = Bench(session)
    bench.rooms.seen = {"desk-7"}
    bench.rooms.stuck = True
    await bench.look_after(0)
    bench.rooms.stuck = False
    await bench.look_after(2)
    assert bench.rooms.removed == [("desk-7", "ann")]
    assert session.told == []


async def test_a_viewer_that_is_removed_now_does_not_wait_for_a_look_that_was_planned_before():
    session = Session("desk-7")
    bench = Bench(session)
    bench.rooms.seen = {"desk-7"}
    await bench.look_after(0)
    session.kept_out = {"ann"}
    await bench.look_after(1)
    assert bench.rooms.removed == [("desk-7", "ann")]


async def test_an_agent_is_never_put_out():
    session = Session("desk-7")
    session.kept_out = {"ann"}
    bench = Bench(session)
    bench.rooms.seen, bench.rooms.agents = {"desk-7"}, {"ann"}
    await bench.look_after(0)
    assert bench.rooms.removed == []


async def test_the_watch_runs_until_it_is_cancelled(monkeypatch):
    monkeypatch.setattr("liveavatar_gateway.sessions.viewer_watch.ROUND_S", ROUND_S / 100)
    bench = Bench(Session("desk-7"))
    faults = [RuntimeError("a fault")]

    def living():
        if faults:
            raise faults.pop()
        return bench.sessions

    bench.watch._living = living
    task = asyncio.create_task(bench.watch.run())
    async with asyncio.timeout(10):
        while not bench.sessions[0].told:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_session_that_only_wants_events_is_looked_at_without_a_limit():
    session = Session("desk-7", limit_s=None)
    session.watches_viewers = True
    bench = Bench(session)
    await bench.look_after(0)
    await bench.look_after(4)
    assert session.told == [False]
    await bench.look_after(1)
    assert session.told == [False, False]
