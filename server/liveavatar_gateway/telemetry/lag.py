"""Measurement of the event loop's lag."""

import asyncio

from liveavatar_gateway.telemetry.metrics import Metrics

_PERIOD_S = 0.1


async def watch_lag(metrics: Metrics) -> None:
    """Record by how much short sleeps overrun, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + _PERIOD_S
        await asyncio.sleep(_PERIOD_S)
        metrics.loop_lagged(max(0.0, loop.time() - due_s))
