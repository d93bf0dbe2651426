"""Freed memory goes back to the system after growth, and only then."""

import asyncio
import ctypes

from liveavatar_gateway.telemetry.heap import resident_bytes, trimmer, watch_heap

MB = 1024 * 1024


async def _trims(sizes: list[int]) -> list[int]:
    """Return the numbers of the measurements at which the heap was trimmed."""
    measured = iter(sizes)
    count = 0
    trims: list[int] = []
    end = asyncio.Event()

    def resident() -> int:
        nonlocal count
        count += 1
        try:
            return next(measured)
        except StopIteration:
            end.set()
            return 0

    watching = asyncio.create_task(watch_heap(lambda: trims.append(count), resident=resident, check_s=0))
    async with asyncio.timeout(10):
        await end.wait()
    watching.cancel()
    await asyncio.wait([watching])
    return trims


async def test_growth_is_trimmed_once_and_what_is_left_counts_as_used():
    assert await _trims([100 * MB, 110 * MB, 140 * MB, 120 * MB, 140 * MB, 153 * MB, 120 * MB]) == [3, 6]


async def test_growth_counts_from_the_smallest_size():
    assert await _trims([200 * MB, 100 * MB, 140 * MB, 100 * MB]) == [3]


async def test_without_a_trimmer_nothing_runs():
    await watch_heap(None)


def test_a_trim_of_this_process_works_where_there_is_one():
    assert resident_bytes() >= 0
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        trim = trimmer()
        assert trim is not None
        trim()
