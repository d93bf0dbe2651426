"""Clocks: real ones may run faster, a manual one moves only when it is told to."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_emulator.clock import ManualClock, RealClock
from liveavatar_emulator.config import InvalidSetting, ServerConfig


def test_a_real_clock_is_the_monotonic_clock_of_the_machine():
    before_s = time.monotonic()
    assert before_s <= RealClock().now_s() <= time.monotonic()


def test_a_fast_clock_starts_at_the_same_moment_and_runs_ahead_of_it():
    clock = RealClock(20)
    read_s = clock.now_s()
    real_s = time.monotonic()
    assert read_s - clock.origin_s <= 20 * (real_s - clock.origin_s)
    time.sleep(0.01)
    assert clock.now_s() - read_s >= 0.2
    assert clock.real_s(20) == 1


def test_utc_moves_as_fast_as_the_clock():
    clock = RealClock(100)
    start_utc_s, start_s = clock.utc_s(), clock.now_s()
    time.sleep(0.01)
    assert clock.utc_s() - start_utc_s == pytest.approx(clock.now_s() - start_s, abs=0.5)
    assert clock.utc_s() - start_utc_s >= 1


@pytest.mark.parametrize("rate", [1, 50])
async def test_a_real_timer_is_never_early(rate):
    clock = RealClock(rate)
    called = asyncio.get_running_loop().create_future()
    due_s = clock.now_s() + 0.005 * rate
    clock.call_at(due_s, lambda: called.set_result(clock.now_s()))
    assert await called >= due_s


async def test_a_manual_clock_stands_still():
    clock = ManualClock()
    fired: list[float] = []
    clock.call_at(0.001, lambda: fired.append(clock.now_s()))
    await asyncio.sleep(0.005)
    assert (clock.now_s(), fired) == (0.0, [])


async def test_timers_fire_in_the_order_of_their_times_each_at_its_own():
    clock = ManualClock()
    fired: list[float] = []
    for due_s in (3.0, 1.0, 2.0, 9.0):
        clock.call_at(due_s, lambda: fired.append(clock.now_s()))
    assert await clock.advance(5) == 3
    assert fired == [1.0, 2.0, 3.0]
    assert clock.now_s() == 5.0


async def test_a_timer_set_by_a_timer_fires_in_the_same_advance_when_it_is_due():
    clock = ManualClock()
    fired: list[float] = []

    def again() -> None:
        fired.append(clock.now_s())
        clock.call_at(clock.now_s() + 2, again)

    clock.call_at(1, again)
    await clock.advance(6)
    assert fired == [1, 3, 5]


async def test_what_a_timer_wakes_has_run_before_time_moves_on():
    clock = ManualClock()
    seen: list[float] = []

    async def walk() -> None:
        for _ in range(4):
            await clock.sleep(1)
            for _ in range(10):
                await asyncio.sleep(0)
            seen.append(clock.now_s())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(walk())
        await asyncio.sleep(0)
        await clock.advance(10)
    assert seen == [1, 2, 3, 4]


async def test_a_cancelled_timer_does_not_fire_even_at_the_same_moment():
    clock = ManualClock()
    fired: list[str] = []
    clock.call_at(1, lambda: later.cancel())  # noqa: PLW0108 - `later` comes later
    later = clock.call_at(1, lambda: fired.append("later"))
    await clock.advance(2)
    assert fired == []


async def test_an_advance_waits_for_an_outage_that_began_on_its_way():
    clock = ManualClock()
    ended: list[float] = []

    async def outage() -> None:
        await clock.outage(0.02)
        ended.append(clock.now_s())

    async with asyncio.TaskGroup() as tasks:
        clock.call_at(1, lambda: tasks.create_task(outage()))
        await clock.advance(5)
        assert ended == [1]


@given(steps=st.lists(st.floats(0, 10), max_size=20), dues=st.lists(st.floats(0, 100), max_size=20))
def test_however_an_advance_is_cut_the_same_timers_fire_at_the_same_times(steps, dues):
    def fired_by(cuts: list[float]) -> list[float]:
        clock = ManualClock()
        fired: list[float] = []
        for due_s in dues:
            clock.call_at(due_s, lambda: fired.append(clock.now_s()))

        async def run() -> None:
            for cut in cuts:
                await clock.advance(cut)
            await clock.advance(200 - clock.now_s())

        asyncio.run(run())
        return fired

    assert fired_by(steps) == fired_by([]) == sorted(dues)


@pytest.mark.parametrize("options", [{"clock_speed": 0}, {"clock_speed": 1001}])
def test_a_speed_out_of_range_is_refused(options):
    with pytest.raises(InvalidSetting, match=r"from 0\.01 to 1000"):
        ServerConfig(**options)


def test_a_manual_clock_has_no_speed():
    with pytest.raises(InvalidSetting, match="leave one of the two out"):
        ServerConfig(clock="manual", clock_speed=2)
