"""CPU of gateways whose callers only wait."""

import asyncio
import contextlib
import time
from typing import Final

from acceptance.cpu import cpu_s
from acceptance.line import Line, Outcome, Setting
from acceptance.pool.stage import Stage, info, stage
from testkit.tenants import caller_with

_ACCOUNTS: Final = {"one": 1}
_WEIGHTS: Final = {"light": 1.0, "heavy": 3.0}
_CALLERS: Final = 150
"""Callers of each gateway."""
_SECONDS: Final = {True: 20.0, False: 5.0}
_MOST: Final = 0.25
"""Most of a core that waiting callers may cost a gateway."""


async def _measure(at: Stage, seconds: float) -> list[float]:
    """Return the part of a core that each gateway uses."""
    began_s, before_s = time.monotonic(), [cpu_s(gateway.process.pid) for gateway in at.gateways]
    await asyncio.sleep(seconds)
    took_s = time.monotonic() - began_s
    return [
        (cpu_s(gateway.process.pid) - one_s) / took_s for gateway, one_s in zip(at.gateways, before_s, strict=True)
    ]


async def _run(setting: Setting) -> Outcome:
    seconds = _SECONDS[setting.long]
    with stage(_ACCOUNTS, _WEIGHTS) as at:
        async with contextlib.AsyncExitStack() as stack:
            callers = {
                (number, tenant): await stack.enter_async_context(caller_with(gateway.address, key))
                for number, gateway in enumerate(at.gateways)
                for tenant, key in at.keys.items()
            }
            first = callers[0, "light"]
            held = await first.create()
            await asyncio.sleep(1)
            idle = await _measure(at, seconds)
            waiting = [
                asyncio.create_task(callers[own, tenant].attach())
                for own, tenant in callers
                for _ in range(_CALLERS // len(_WEIGHTS))
            ]
            while (await info(first)).waiting_count < len(waiting):
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            busy = await _measure(at, seconds)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            gone_s = time.monotonic()
            while (await info(first)).waiting_count and time.monotonic() < gone_s + 30:
                await asyncio.sleep(0.02)
            left_s = time.monotonic() - gone_s
            await first.end(held.session.id)
    return Outcome(
        figure=f"{_CALLERS} callers on each gateway: {_percent(busy)} of a core, {_percent(idle)} without; the "
        f"queue was empty {left_s:.1f} s after they had left",
        passed=max(busy) <= _MOST and left_s < 30,
    )


def _percent(parts: list[float]) -> str:
    return " and ".join(f"{part:.1%}" for part in parts)


WAITING: Final = Line(
    name="waiting",
    goal=f"150 callers that wait cost a gateway at most {_MOST:.0%} of a core",
    run=_run,
    in_short=False,
    measures_time=True,
)
