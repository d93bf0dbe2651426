"""Keep-alives from a single timer: no session is idle for too long, none is sent while it speaks."""

import gc
import random
import weakref
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.upstream.keepalive import KeepAliveConfig, KeepAliveSchedule

_INTERVAL_S = 60.0


@dataclass(eq=False)
class Session:
    """Notes when it was kept alive; `now_s` is set by the test."""

    last_command_at_s: float = 0.0
    now_s: float = 0.0
    kept: int = 0

    def keep_alive(self) -> None:
        self.kept += 1
        self.last_command_at_s = self.now_s

    def speak(self, now_s: float) -> None:
        self.last_command_at_s = now_s


@pytest.fixture
def schedule():
    return KeepAliveSchedule(KeepAliveConfig(interval_s=_INTERVAL_S, jitter=0.1), random.Random(7))


def run_until(schedule: KeepAliveSchedule, sessions: list[Session], until_s: float) -> None:
    """Run the timer each time it is due."""
    while (next_s := schedule.next_s()) is not None and next_s <= until_s:
        for session in sessions:
            session.now_s = next_s
        schedule.run(next_s)


def test_without_sessions_nothing_is_due(schedule):
    assert schedule.next_s() is None
    assert schedule.run(1_000.0) == 0


def test_a_silent_session_is_kept_alive_a_little_before_each_interval(schedule):
    session = Session()
    schedule.add(session, 0.0)
    assert 54.0 <= schedule.next_s() <= 60.0
    run_until(schedule, [session], 600.0)
    assert 10 <= session.kept <= 11


def test_nothing_is_sent_before_it_is_due(schedule):
    session = Session()
    schedule.add(session, 0.0)
    assert schedule.run(53.9) == 0
    assert session.kept == 0


def test_a_session_that_spoke_meanwhile_is_put_back(schedule):
    session = Session()
    schedule.add(session, 0.0)
    session.speak(50.0)
    assert schedule.run(60.0) == 0
    assert 104.0 <= schedule.next_s() <= 110.0


def test_a_session_that_was_let_go_is_not_kept_alive(schedule):
    session = Session()
    schedule.add(session, 0.0)
    schedule.remove(session)
    assert schedule.run(1_000.0) == 0
    assert schedule.next_s() is None


def test_a_session_that_was_let_go_is_free_to_go_at_once(schedule):
    session = Session()
    schedule.add(session, 0.0)
    schedule.remove(session)
    remains = weakref.ref(session)
    del session
    gc.collect()
    assert remains() is None


def test_letting_go_twice_is_harmless(schedule):
    session = Session()
    schedule.remove(session)
    schedule.remove(session)
    assert schedule.next_s() is None


def test_many_sessions_of_one_moment_are_spread_out(schedule):
    due = []
    for _ in range(200):
        schedule.add(Session(), 0.0)
    while (next_s := schedule.next_s()) is not None and next_s <= 60.0:
        due.append(next_s)
        schedule.run(next_s)
    assert len(set(due)) > 150
    assert max(due) - min(due) > 4.0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    jitter=st.floats(0, 0.5),
    spoken=st.lists(st.floats(0, 600), max_size=30).map(sorted),
)
def test_no_session_is_silent_for_longer_than_the_interval(seed, jitter, spoken):
    schedule = KeepAliveSchedule(KeepAliveConfig(interval_s=_INTERVAL_S, jitter=jitter), random.Random(seed))
    session = Session()
    schedule.add(session, 0.0)
    for at_s in [*spoken, 900.0]:
        while (next_s := schedule.next_s()) <= at_s:
            assert next_s - session.last_command_at_s <= _INTERVAL_S + 1e-6
            session.now_s = next_s
            schedule.run(next_s)
        session.speak(at_s)


def test_a_session_that_fails_to_be_kept_alive_leaves_the_others_awake(schedule):
    class Faulty(Session):
        def keep_alive(self) -> None:
            raise ZeroDivisionError

    sound = Session()
    for session in (Faulty(), sound, Faulty()):
        schedule.add(session, 0.0)
    schedule.run(_INTERVAL_S)
    assert sound.kept == 1
    assert schedule.next_s() is not None
