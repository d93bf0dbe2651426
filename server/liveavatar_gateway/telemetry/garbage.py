"""Full collections of garbage at a bounded rate: each stops the event loop, longer the more objects live.

Python starts one whenever a quarter more objects have survived. A burst of calls that stay open made that three
times a second, of 12 to 22 ms each; the younger generations, whose collections take 1 to 3 ms, are left to Python.
"""

import asyncio
import gc
from typing import Final

_GEN0_OBJECTS: Final = 1_000
_GEN0_PER_GEN1: Final = 5
_NEVER: Final = 2**31 - 1
"""Number of collections that is never reached."""
_GEN1_OBJECTS: Final = _GEN0_OBJECTS * (_GEN0_PER_GEN1 + 1)
_LEAST_GEN1: Final = 4
"""Collections of the middle generation since the last full one that make another worth its time: 24,000 objects
were made and not freed."""
_MANY_GEN1: Final = 50
"""The same number that makes another urgent: 300,000 objects take about 40 MB."""
_WORTH_SHARE: Final = 0.1
"""Share of these objects that a collection must have freed for the next to follow as soon as there are enough.
Ended sessions are garbage, in cycles of some hundred objects; calls that stay open are not."""
_LEAST_PAUSE_S: Final = 4.0
_MOST_PAUSE_S: Final = 30.0
"""Pauses after a first collection that freed less, and after many in a row: each pause is twice the one before."""
_CHECK_S: Final = 0.25


def defer_full_collections() -> None:
    """Exempt the objects that live now from all collections, and leave full ones to `watch_garbage`."""
    gc.freeze()
    gc.set_threshold(_GEN0_OBJECTS, _GEN0_PER_GEN1, _NEVER)


async def watch_garbage(
    *, check_s: float = _CHECK_S, least_pause_s: float = _LEAST_PAUSE_S, most_pause_s: float = _MOST_PAUSE_S
) -> None:
    """Run a full collection when enough objects were made since the last one, until cancelled.

    Args:
        check_s: Time between two checks.
        least_pause_s: Pause after a collection that freed little.
        most_pause_s: Longest pause, after many of these in a row.
    """
    loop = asyncio.get_running_loop()
    pause_s, next_s = 0.0, loop.time()
    while True:
        await asyncio.sleep(check_s)
        made = gc.get_count()[2]
        if made >= _MANY_GEN1 or (made >= _LEAST_GEN1 and loop.time() >= next_s):
            if gc.collect() >= _WORTH_SHARE * made * _GEN1_OBJECTS:
                pause_s = 0.0
            else:
                pause_s = min(max(least_pause_s, 2 * pause_s), most_pause_s)
            next_s = loop.time() + pause_s
