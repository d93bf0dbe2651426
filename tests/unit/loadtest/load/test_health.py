"""A pause of the event loop counts in full."""

import asyncio
import time

from load.health import Health


async def test_a_pause_of_the_loop_counts_as_long_as_it_was_for_all_who_were_due_meanwhile():
    health = Health()
    watching = asyncio.create_task(health.watch())
    await asyncio.sleep(0.1)
    time.sleep(0.4)  # noqa: ASYNC251 - the pause itself
    await asyncio.sleep(0.1)
    watching.cancel()
    report = health.report()
    assert report["lag_max_ms"] > 330
    late = health.lag.get_count_at_value
    assert health.lag.get_total_count() > 20
    assert health.lag.get_value_at_percentile(60) > 1000, "half of the time was the pause"
    assert late(0) == 0
