"""Faults on sessions: selection, time, repetitions and duration; all under a manual clock."""

import json
import random
from typing import Any

import pytest
from pydantic import TypeAdapter

from liveavatar_emulator.clock import Clock, ManualClock
from liveavatar_emulator.config import Settings
from liveavatar_emulator.driver import SessionDriver
from liveavatar_emulator.eventlog import EventLog
from liveavatar_emulator.fault_injector import FaultInjector, NoMatchingSession
from liveavatar_emulator.faults import Fault
from liveavatar_emulator.outbox import CloseFrame, Outbox
from liveavatar_emulator.protocol import Interrupt, Speak, SpeakEnd
from liveavatar_emulator.recording import AudioBudget, Recording
from liveavatar_emulator.seeds import Seed
from liveavatar_emulator.session import Session
from liveavatar_emulator.timer_lag import TimerLag

fault_of = TypeAdapter(Fault).validate_python


class FakeConnection:
    """Remembers what was done to a connection."""

    def __init__(self) -> None:
        self.resets = 0
        self.limits: list[float | None] = []

    def reset(self) -> None:
        self.resets += 1

    def limit_reading(self, bytes_per_s: float | None, clock: Clock) -> None:
        self.limits.append(bytes_per_s)


class Client:
    """A session with its attached client."""

    def __init__(self, service: "Service", ordinal: int) -> None:
        self.service = service
        session = Session(
            settings=Settings(ready_delay_ms=0),
            recording=Recording(started_mono_s=0.0, keep_bytes=0, budget=AudioBudget(0)),
            fresh_id=lambda: "s",
            now_s=service.clock.now_s(),
            limit_s=3600,
            billed=False,
        )
        self.driver = SessionDriver(
            session,
            ordinal=ordinal,
            clock=service.clock,
            rng=random.Random(1),
            log=service.log,
            timer_lag=TimerLag(),
            charge_minute=lambda: True,
            on_ended=lambda ended: service.fault_injector.session_ended(ordinal),
        )
        self.attach()

    def attach(self) -> None:
        self.connection = FakeConnection()
        self.outbox: Outbox = self.driver.outbox_for(self.connection)
        self.seen = self.driver.attach(self.outbox, self.connection)

    def detach(self) -> None:
        self.driver.detach(self.outbox, self.seen, 1006, "")

    def speak(self, size_bytes: int = 960) -> None:
        self.driver.command(Speak("u", bytes(size_bytes)), self.service.clock.now_s())

    def heard(self) -> list[str]:
        """Return the events released to the client since the last call."""
        words = []
        while self.outbox._ready:
            item = self.outbox._ready.popleft()
            words.append(f"close {item.code}" if isinstance(item, CloseFrame) else json.loads(item)["type"])
        return words

    def acks(self) -> list[str]:
        return [word.rpartition("_")[2] for word in self.heard() if "audio_buffer" in word]


class Service:
    """A fault injector with some sessions."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = ManualClock()
        self.log = EventLog(self.clock)
        self.fault_injector = FaultInjector(self.clock, Seed(seed), self.log)
        self.clients: list[Client] = []

    def session(self) -> Client:
        client = Client(self, len(self.clients) + 1)
        self.clients.append(client)
        self.fault_injector.session_started(f"session-{len(self.clients)}", client.driver)
        client.heard()
        return client

    def arm(self, kind: str, session: Any, **fields: Any) -> int:
        return self.fault_injector.arm(fault_of({"kind": kind, "session": session, **fields}))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.mark.parametrize(
    ("condition", "harmless"),
    [({"after_packets": 3}, 2), ({"after_bytes": 2_000}, 2), ({"after_bytes": 1_920}, 1)],
)
def test_a_drop_comes_with_the_packet_that_reaches_the_condition(service, condition, harmless):
    client = service.session()
    service.arm("drop", 1, code=1011, **condition)
    for _ in range(harmless):
        client.speak()
    assert "close 1011" not in client.heard()
    client.speak()
    assert client.heard()[-1] == "close 1011"
    assert service.fault_injector.armed() == []
    assert service.fault_injector.fired == {"drop": 1}


async def test_a_drop_comes_after_its_seconds(service):
    client = service.session()
    service.arm("drop", 1, after_s=5)
    await service.clock.advance(4.99)
    assert client.connection.resets == 0
    await service.clock.advance(0.01)
    assert client.connection.resets == 1


def test_a_drop_without_a_condition_comes_at_once_and_then_with_each_new_socket(service):
    client = service.session()
    service.arm("drop", 1, times=3)
    assert client.connection.resets == 1
    for _ in range(2):
        client.detach()
        client.attach()
        assert client.connection.resets == 1
    client.detach()
    client.attach()
    assert client.connection.resets == 0


def test_a_drop_waits_for_a_socket(service):
    client = service.session()
    client.detach()
    service.arm("drop", 1)
    assert [row["state"] for row in service.fault_injector.armed()] == ["waiting"]
    client.attach()
    assert client.connection.resets == 1


def test_a_condition_is_counted_anew_after_each_time(service):
    client = service.session()
    service.arm("drop", 1, after_packets=2, times=2, code=1011)
    for round_ in range(3):
        client.speak()
        client.speak()
        assert client.heard().count("close 1011") == (round_ < 2)
        client.detach()
        client.attach()


def test_next_is_the_next_session_and_only_that(service):
    first = service.session()
    service.arm("drop", "next")
    second, third = service.session(), service.session()
    assert [client.connection.resets for client in (first, second, third)] == [0, 1, 0]


def test_a_number_may_be_that_of_a_session_to_come(service):
    service.arm("drop", 2)
    assert [service.session().connection.resets for _ in range(3)] == [0, 1, 0]


def test_all_means_those_that_run_and_those_that_come_each_once(service):
    first = service.session()
    number = service.arm("drop", "all")
    second = service.session()
    assert (first.connection.resets, second.connection.resets) == (1, 1)
    assert service.fault_injector.armed()[0]["fired"] == 2
    assert service.fault_injector.disarm(number)
    assert service.session().connection.resets == 0


def test_random_draws_among_those_with_a_socket_and_repeats_with_the_seed():
    def drawn(seed: int) -> list[int]:
        service = Service(seed)
        clients = [service.session() for _ in range(8)]
        clients[0].detach()
        for _ in range(5):
            service.arm("drop", "random")
        return [client.connection.resets for client in clients]

    assert drawn(1) == drawn(1)
    assert drawn(1)[0] == 0
    assert any(drawn(seed) != drawn(1) for seed in range(2, 9))


def test_a_session_that_is_not_there_cannot_be_hit(service):
    service.session().driver.stop("USER_CLOSED")
    for session, problem in ((1, "session 1 is over"), ("session-1", "is running"), ("random", "has a socket")):
        with pytest.raises(NoMatchingSession, match=problem):
            service.arm("drop", session)
    with pytest.raises(NoMatchingSession, match="session is missing"):
        service.fault_injector.arm(fault_of({"kind": "drop"}))
    assert service.fault_injector.armed() == []


async def test_reading_stops_for_a_while_and_the_stricter_limit_counts(service):
    client = service.session()
    service.arm("slow_reading", 1, bytes_per_s=1000)
    service.arm("stop_reading", 1, for_s=2)
    await service.clock.advance(2)
    assert client.connection.limits == [1000, 0, 1000]
    service.fault_injector.clear()
    assert client.connection.limits[-1] is None


def test_a_new_socket_is_read_as_slowly_as_the_old_one(service):
    client = service.session()
    service.arm("slow_reading", 1, bytes_per_s=1000)
    client.detach()
    client.attach()
    assert client.connection.limits == [1000]


def test_acks_are_swallowed_by_count_and_kind(service):
    client = service.session()
    service.arm("swallow_acks", 1, count=2, acks=["appended"])
    for _ in range(3):
        client.speak()
    client.driver.command(SpeakEnd("u", None), service.clock.now_s())
    assert client.acks() == ["appended", "committed"]
    assert service.fault_injector.armed() == []
    swallowed = [line for line in service.log.lines().splitlines() if b"event.swallowed" in line]
    assert len(swallowed) == 2


async def test_acks_are_late_and_in_order_and_everything_else_is_on_time(service):
    client = service.session()
    number = service.arm("delay_acks", 1, delay_ms=500, jitter_ms=500)
    client.speak()
    client.driver.command(SpeakEnd("u", None), service.clock.now_s())
    await service.clock.advance(0.2)
    assert "agent.audio_buffer_appended" not in (early := client.heard())
    assert "agent.speak_started" in early
    await service.clock.advance(1)
    assert client.acks() == ["appended", "committed"]
    service.fault_injector.disarm(number)
    client.speak()
    assert client.acks() == ["appended"]


async def test_a_lasting_fault_ends_by_itself(service):
    client = service.session()
    service.arm("swallow_acks", 1, for_s=1)
    client.speak()
    await service.clock.advance(1)
    client.speak()
    assert client.acks() == ["appended"]
    assert service.fault_injector.armed() == []


async def test_events_are_shuffled_while_it_lasts(service):
    client = service.session()
    service.arm("shuffle_events", 1, for_s=60)
    orders = set()
    for _ in range(12):
        client.speak(48_000)
        await service.clock.advance(0.5)
        client.driver.command(Interrupt("i"), service.clock.now_s())
        client.heard()
        await service.clock.advance(0.5)
        orders.add(tuple(client.heard()))
    assert len(orders) > 1
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(next(iter(orders))))}


def test_sockets_are_refused_and_then_let_in(service):
    client = service.session()
    number = service.arm("refuse_sockets", 1, how="reset")
    assert client.driver.active_faults.refusals == ["reset"]
    service.fault_injector.disarm(number)
    assert client.driver.active_faults.refusals == []


def test_a_knob_that_a_fault_holds_survives_a_change_of_the_others(service):
    client = service.session()
    number = service.arm("never_connected", 1)
    client.driver.configure(Settings(idle_s=9))
    assert client.driver.session.settings.never_connected
    assert client.driver.session.settings.idle_s == 9
    service.fault_injector.disarm(number)
    assert not client.driver.session.settings.never_connected


async def test_nothing_holds_on_to_a_session_that_is_over(service):
    client = service.session()
    service.arm("drop", 1, after_s=5)
    service.arm("stop_reading", 1, for_s=5)
    service.arm("drop", 1, after_packets=5)
    client.driver.stop("USER_CLOSED")
    assert service.fault_injector.armed() == []
    assert client.driver._observers == []
    await service.clock.advance(10)
    assert client.connection.resets == 0


def test_rest_faults_are_listed_beside_the_others_and_counted(service):
    service.fault_injector.arm(fault_of({"endpoint": "start", "status": 503, "times": 2}))
    service.arm("drop", "next")
    assert service.fault_injector.take_rest_fault("start") is not None
    rows = service.fault_injector.armed()
    assert [(row["id"], row["kind"], row["times"], row["fired"]) for row in rows] == [
        (1, "rest", 1, 1),
        (2, "drop", 1, 0),
    ]
    assert service.fault_injector.disarm(1)
    assert not service.fault_injector.disarm(1)
    assert service.fault_injector.take_rest_fault("start") is None
