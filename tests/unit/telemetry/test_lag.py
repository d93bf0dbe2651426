"""The measurement of the event loop's lag."""

import asyncio
import time

from liveavatar_gateway.telemetry.lag import watch_lag


class Metrics:
    def __init__(self) -> None:
        self.lags_s: list[float] = []

    def loop_lagged(self, seconds: float) -> None:
        self.lags_s.append(seconds)


async def test_a_blocked_loop_shows_as_lag():
    metrics = Metrics()
    watching = asyncio.create_task(watch_lag(metrics))
    await asyncio.sleep(0.05)
    time.sleep(0.2)  # noqa: ASYNC251 - the block is the claim
    await asyncio.sleep(0.05)
    watching.cancel()
    assert metrics.lags_s[0] >= 0.1
