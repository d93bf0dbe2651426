"""Time in which a freed permit reaches the head of the queue, who waits on the other gateway."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from typing import Final

from acceptance.line import Line, Outcome, Setting
from acceptance.pool.stage import info, stage
from liveavatar_gateway.pool.simulation_result import percentile
from testkit.caller import Caller
from testkit.tenants import caller_with

_ACCOUNTS: Final = {"one": 1}
_TENANT: Final = "all"
_CALLERS: Final = {True: 200, False: 60}
_WITHIN_S: Final = 0.25
_APART_S: Final = 0.02
"""Time between two arrivals, so that the queue alternates between the gateways."""


async def _follow(caller: Caller, number: int, opened: dict[str, int]) -> None:
    """Wait for a session, and end it at once."""
    attachment = await caller.attach()
    opened[attachment.upstream_id] = number
    await caller.end(attachment.session_id)
    attachment.call.cancel()


async def _gaps(callers: Sequence[Caller], count: int) -> dict[str, int]:
    """Let callers wait on all gateways by turns behind one that holds the permit; return who had which session."""
    opened: dict[str, int] = {}
    held = await callers[0].create()
    opened[held.session.upstream_session_id] = 0
    async with asyncio.TaskGroup() as tasks:
        for number in range(1, count):
            own = number % len(callers)
            tasks.create_task(_follow(callers[own], own, opened))
            await asyncio.sleep(_APART_S)
        give_up_s = time.monotonic() + 30
        while (await info(callers[0])).waiting_count < count - 1 and time.monotonic() < give_up_s:
            await asyncio.sleep(0.1)
        await callers[0].end(held.session.id)
    return opened


async def _run(setting: Setting) -> Outcome:
    with stage(_ACCOUNTS, {_TENANT: 1.0}, settle_s=0) as at:
        async with contextlib.AsyncExitStack() as stack:
            callers = [
                await stack.enter_async_context(caller_with(gateway.address, at.keys[_TENANT]))
                for gateway in at.gateways
            ]
            opened = await _gaps(callers, _CALLERS[setting.long])
        rows = sorted(at.emulator.sessions(), key=lambda row: float(row["started_mono_s"]))
        refused = at.full_count()
    times_s: dict[bool, list[float]] = {True: [], False: []}
    for before, after in itertools.pairwise(rows):
        gap_s = after["started_mono_s"] - before["started_mono_s"] - before["duration_s"]
        times_s[opened[before["id"]] != opened[after["id"]]].append(gap_s)
    across_s, within_s = times_s[True], times_s[False]
    p50_s, p99_s = percentile(across_s, 50), percentile(across_s, 99)
    own = f", {len(within_s)} on one gateway p50 {percentile(within_s, 50) * 1e3:.0f} ms" if within_s else ""
    return Outcome(
        figure=f"{len(across_s)} from one gateway to the other, token and start included: "
        f"p50 {p50_s * 1e3:.0f} ms, p99 {p99_s * 1e3:.0f} ms, at most {max(across_s) * 1e3:.0f} ms{own}; "
        f"{refused} refusals 4032",
        passed=p99_s <= _WITHIN_S and not refused,
    )


HAND_OVER: Final = Line(
    name="hand-over",
    goal=f"a freed permit becomes a session of the head of the queue on another gateway, p99 within "
    f"{_WITHIN_S * 1e3:.0f} ms",
    run=_run,
    measures_time=True,
)
