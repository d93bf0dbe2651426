"""Full collections of garbage run at their own rate, and only where something was made."""

import asyncio
import gc
import itertools
from collections.abc import Iterator

import pytest

from liveavatar_gateway.telemetry.garbage import defer_full_collections, watch_garbage


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.fixture
def full_collections() -> Iterator[list[int]]:
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2:
            found.append(info["collected"])

    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)


def _keep(count: int) -> list[list[object]]:
    return [[None] for _ in range(count)]


def test_python_starts_no_full_collection(full_collections):
    defer_full_collections()
    kept = [_keep(50_000) for _ in range(10)]
    assert kept
    assert full_collections == []


async def test_a_full_collection_frees_what_outlived_the_younger_generations(full_collections):
    defer_full_collections()
    cycle: list[object] = []
    cycle.append(cycle)
    kept = _keep(100_000)
    del cycle
    watching = asyncio.create_task(watch_garbage(check_s=0, least_pause_s=0))
    async with asyncio.timeout(10):
        while not full_collections:
            await asyncio.sleep(0)
    watching.cancel()
    assert full_collections[0] > 0
    assert kept


async def test_nothing_is_collected_where_little_was_made(full_collections):
    defer_full_collections()
    gc.collect()
    full_collections.clear()
    watching = asyncio.create_task(watch_garbage(check_s=0, least_pause_s=0))
    for _ in range(20):
        await asyncio.sleep(0)
    watching.cancel()
    assert full_collections == []


async def test_after_a_collection_that_freed_little_only_an_urgent_one_comes_before_the_pause_is_over(
    full_collections,
):
    defer_full_collections()
    gc.collect()
    full_collections.clear()
    kept = [_keep(100_000)]
    watching = asyncio.create_task(watch_garbage(check_s=0, least_pause_s=1e9, most_pause_s=1e9))
    async with asyncio.timeout(10):
        while not full_collections:
            await asyncio.sleep(0)
        kept.append(_keep(100_000))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(full_collections) == 1
        kept += [_keep(100_000) for _ in range(5)]
        while len(full_collections) < 2:
            await asyncio.sleep(0)
    watching.cancel()
    assert kept


async def test_while_collections_free_much_none_is_put_off(full_collections):
    defer_full_collections()
    gc.collect()
    full_collections.clear()
    watching = asyncio.create_task(watch_garbage(check_s=0, least_pause_s=1e9, most_pause_s=1e9))
    async with asyncio.timeout(10):
        while len(full_collections) < 3:
            # Young when it becomes garbage, old when it is found.
            made = _keep(50_000)
            made.append([made])
            del made
            await asyncio.sleep(0)
    watching.cancel()


async def test_the_pause_is_doubled_while_collections_free_little(full_collections, monkeypatch):
    class Clock:
        now_s = 0.0

        def time(self) -> float:
            return self.now_s

    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    defer_full_collections()
    gc.collect()
    full_collections.clear()
    kept, times_s = [], []
    watching = asyncio.create_task(watch_garbage(check_s=0, least_pause_s=4.0, most_pause_s=10.0))
    while clock.now_s < 40.0:
        kept.append(_keep(30_000))
        before = len(full_collections)
        await asyncio.sleep(0)
        if len(full_collections) > before:
            times_s.append(clock.now_s)
            kept.clear()
            kept.append(_keep(30_000))
        clock.now_s += 1.0
    watching.cancel()
    pauses_s = [after - before for before, after in itertools.pairwise(times_s)]
    assert pauses_s[:4] == [4.0, 8.0, 10.0, 10.0]
