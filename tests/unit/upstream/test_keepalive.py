"""Keep-alives from a single timer: no session is idle for too long, none is sent while it speaks."""

import asyncio
import gc
import math
import random
import time
import weakref
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.upstream.keepalive import KeepAliveConfig, KeepAlives, KeepAliveSchedule

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


def test_a_keep_alive_that_was_not_sent_is_tried_again_soon(schedule):
    """A session whose socket is down, or whose command was lost with the socket, is not left for an interval."""

    class Deaf(Session):
        def keep_alive(self) -> None:
            self.kept += 1

    session = Deaf()
    schedule.add(session, 0.0)
    run_until(schedule, [session], 75.0)
    assert session.kept >= 3
    session.last_command_at_s = 75.0
    tries = session.kept
    run_until(schedule, [session], 120.0)
    assert session.kept == tries
    run_until(schedule, [session], 136.0)
    assert session.kept > tries


def test_a_session_whose_last_command_is_unknown_is_kept_alive_within_a_moment(schedule):
    """It was another process's: its last command may have been a minute ago."""
    session = Session(last_command_at_s=-math.inf)
    schedule.add(session, 1_000.0)
    run_until(schedule, [session], 1_006.0)
    assert session.kept == 1


def test_an_avatar_that_takes_over_is_kept_alive_by_its_own_last_command(schedule):
    session = Session(last_command_at_s=100.0)
    schedule.add(session, 100.0)
    session.last_command_at_s = 50.0
    schedule.add(session, 101.0)
    assert 104.0 <= schedule.next_s() <= 110.0
    run_until(schedule, [session], 115.0)
    assert session.kept == 1


def test_a_short_interval_has_short_retries():
    assert KeepAliveConfig(interval_s=1.2).retry_s == pytest.approx(0.1)
    assert KeepAliveConfig().retry_s == 5.0


async def test_one_timer_serves_all_sessions_and_stops():
    """The loop has one timer of keep-alives, for any number of sessions."""
    keep_alives = KeepAlives(KeepAliveConfig(interval_s=0.2, jitter=0.5), random.Random(1))
    loop = asyncio.get_running_loop()
    before = len(loop._scheduled) if hasattr(loop, "_scheduled") else None
    sessions = [Stopwatch() for _ in range(50)]
    for session in sessions:
        keep_alives.add(session)
    if before is not None:
        assert sum(not timer.cancelled() for timer in loop._scheduled) == before + 1
    async with asyncio.timeout(10):
        while any(session.kept < 2 for session in sessions):
            await asyncio.sleep(0.01)
    for session in sessions[1:]:
        keep_alives.remove(session)
    keep_alives.close()
    kept = sessions[0].kept
    await asyncio.sleep(0.3)
    assert sessions[0].kept == kept


class Stopwatch(Session):
    def keep_alive(self) -> None:
        self.kept += 1
        self.last_command_at_s = time.monotonic()


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
