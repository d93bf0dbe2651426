"""Freed memory goes back to the system after growth, and only then."""

import asyncio
import ctypes

from liveavatar_gateway.telemetry.heap import resident_bytes, trimmer, watch_heap

MB = 1024 * 1024


async def _trims(sizes: list[int]) -> list[int]:
    """Return the numbers of the measurements (MB) at which the heap was trimmed; each trim measures once more."""
    measured = iter(sizes)
    count = 0
    trims: list[int] = []
    end = asyncio.Event()

    def resident() -> int:
        nonlocal count
        count += 1
        try:
            return next(measured) * MB
        except StopIteration:
            end.set()
            return 0

    watching = asyncio.create_task(watch_heap(lambda: trims.append(count), resident=resident, check_s=0))
    async with asyncio.timeout(10):
        await end.wait()
    watching.cancel()
    await asyncio.wait([watching])
    return trims


async def test_growth_above_the_smallest_size_is_trimmed():
    assert await _trims([200, 100, 131, 132, 100, 110, 131]) == [4]


async def test_memory_that_was_in_use_at_a_trim_is_trimmed_again_when_it_may_be_free():
    # The first trim (240 -> 240) returns nothing, the second one, two checks later, all.
    assert await _trims([100, 240, 240, 240, 240, 100, 110]) == [2, 5]


async def test_pauses_between_trims_without_a_gain_double():
    sizes = [100]
    trimmed_at = [1, 3, 7, 15]
    for check in range(1, 16):
        sizes.extend([240, 240] if check in trimmed_at else [240])
    # Each trim is preceded by one measurement a check and followed by one of its own.
    assert await _trims(sizes) == [2, 5, 10, 19]


async def test_new_growth_ends_a_pause():
    assert await _trims([100, 240, 240, 240, 240, 240, 280, 280]) == [2, 5, 7]


async def test_without_a_trimmer_nothing_runs():
    await watch_heap(None)


def test_a_trim_of_this_process_works_where_there_is_one():
    assert resident_bytes() >= 0
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        trim = trimmer()
        assert trim is not None
        trim()
