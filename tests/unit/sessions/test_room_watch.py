"""Events of a session from what happens in its room."""

import time
from types import SimpleNamespace

import pytest

from liveavatar_gateway.core.errors import RoomTokenMissing
from liveavatar_gateway.core.room_events import (
    DataDropped,
    DataReceived,
    Microphone,
    MicrophoneChanged,
    ParticipantJoined,
    ParticipantKind,
    RoomConnected,
    RoomDisconnected,
    RoomLossCause,
    RoomParticipant,
    ViewersChanged,
)
from liveavatar_gateway.core.room_reports import RoomReports
from liveavatar_gateway.sessions.room_watch import RoomWatch
from liveavatar_gateway.sessions.spec import LiveKitRoom, RoomEventsWish
from liveavatar_gateway.telemetry.metrics import Metrics

ANN = RoomParticipant("ann", "Ann", ParticipantKind.USER)
TOPICS = RoomEventsWish(data_topics=("chat",))


class Core:
    """State machine as far as the room goes."""

    def __init__(self) -> None:
        self.room = RoomReports(is_wanted=True)
        self.events: list[object] = []

    def report_room(self, now_s: float) -> None:
        self.events += self.room.take(now_s)


class View:
    """Room that a test fills."""

    may_send = True

    def __init__(self, *participants: RoomParticipant) -> None:
        self.present = list(participants)
        self.follower = None

    def follow(self, follower) -> None:
        self.follower = follower

    def participants(self) -> list[RoomParticipant]:
        return self.present

    def has_viewer(self) -> bool:
        return bool(self.present)


class Bench:
    """A watch with everything around it."""

    def __init__(self, *, wish: RoomEventsWish | None = TOPICS, own: LiveKitRoom | None = None) -> None:
        self.core = Core()
        self.guests: list[object] = []
        self.wakes = 0
        self.reports = 0
        self.metrics = Metrics()
        self.is_followed = True
        self.watch = RoomWatch(
            self.core,
            SimpleNamespace(room_events=wish, livekit_room=own),
            room=SimpleNamespace(enter=self.guests.append),
            avatars=SimpleNamespace(identities=["ada"]),
            metrics=self.metrics,
            wake=SimpleNamespace(set=self._wake),
            is_followed=lambda: self.is_followed,
            report=self._report,
        )

    def _wake(self) -> None:
        self.wakes += 1

    def _report(self) -> None:
        self.reports += 1

    def news(self) -> list[object]:
        events, self.core.events = self.core.events, []
        return events

    def count(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value("gateway_room_data_messages_total", {"outcome": outcome})


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def inside(bench):
    bench.view = View(ANN)
    bench.watch.entered(bench.view)
    bench.news()
    return bench


def test_the_room_is_joined_only_for_those_who_asked(bench):
    bench.watch.start()
    assert bench.guests == [bench.watch]
    other = Bench(wish=None)
    other.watch.start()
    assert other.guests == []


def test_the_join_reports_participants_and_viewers_of_a_room_of_liveavatar(bench):
    bench.watch.entered(View(ANN))
    assert bench.news() == [RoomConnected((ANN,), 1), ViewersChanged(present=True)]
    assert bench.reports


def test_viewers_of_an_own_room_are_left_to_the_looks_into_it():
    bench = Bench(own=LiveKitRoom(name="room"))
    bench.watch.entered(View(ANN))
    assert bench.news() == [RoomConnected((ANN,), 1)]


def test_changes_are_reported(inside):
    bob = RoomParticipant("bob", "", ParticipantKind.USER)
    inside.view.present = [RoomParticipant("ann", "Ann", ParticipantKind.USER, Microphone.LIVE), bob]
    inside.watch.room_changed()
    assert inside.news() == [MicrophoneChanged("ann", Microphone.LIVE), ParticipantJoined(bob)]
    assert inside.watch.is_avatar("ada")
    assert not inside.watch.is_avatar("bob")


def test_a_connection_that_the_sdk_brings_back_is_reported_as_lost_and_back(inside):
    inside.watch.room_interrupted()
    inside.watch.room_restored()
    assert inside.news() == [RoomDisconnected(RoomLossCause.LOST), RoomConnected((ANN,), 1)]


def test_a_loss_a_refusal_and_a_new_room_are_reported(inside):
    inside.watch.left(RoomLossCause.REMOVED)
    error = RoomTokenMissing("s")
    inside.watch.refused(error)
    inside.watch.entered(View())
    assert inside.news() == [
        RoomDisconnected(RoomLossCause.REMOVED),
        RoomDisconnected(RoomLossCause.REFUSED, error),
        RoomConnected((), 0),
        ViewersChanged(present=False),
    ]


def test_a_room_that_was_left_says_nothing_more(inside):
    inside.watch.left(None)
    inside.watch.room_changed()
    inside.watch.room_interrupted()
    inside.watch.room_restored()
    assert inside.news() == []


def test_data_of_wanted_topics_is_reported_and_counted(inside):
    assert inside.watch.wants("chat")
    assert not inside.watch.wants("")
    inside.watch.data_received("ann", "chat", b"hello")
    assert inside.news() == [DataReceived("ann", "chat", b"hello")]
    assert inside.count("received") == 1
    assert not inside.wakes


def test_a_flood_of_data_wakes_nobody_for_each_message(inside):
    for _ in range(1_000):
        inside.watch.data_received("ann", "chat", b"hello")
    events = inside.news()
    received = [event for event in events if isinstance(event, DataReceived)]
    assert 32 <= len(received) < 60
    assert [event for event in events if isinstance(event, DataDropped)] == [DataDropped(1, ("ann",))]
    assert inside.reports < 100
    # The driver knows when the rest of the drops is due.
    assert inside.wakes
    inside.watch.data_dropped(10_000)
    inside.core.report_room(time.monotonic() + 10)
    (rest,) = inside.news()
    assert rest.count + len(received) + 1 == 11_000
    assert inside.count("received") + inside.count("dropped") == 11_000


def test_data_for_nobody_is_bounded_by_a_burst(inside):
    inside.is_followed = False
    for number in range(1_000):
        inside.watch.data_received(f"user-{number % 7}", "chat", b"hello")
    assert sum(isinstance(event, DataReceived) for event in inside.news()) == 64
