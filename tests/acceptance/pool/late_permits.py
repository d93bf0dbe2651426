"""LiveAvatar that frees sessions up to five seconds late, under callers that wait for their permits."""

import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections import Counter
from typing import Final

import grpc

from acceptance.line import Line, Outcome, Setting
from acceptance.pool.stage import Stage, all_free, info, stage
from testkit.caller import Caller
from testkit.tenants import caller_with

_ACCOUNTS: Final = {"one": 4, "two": 4}
_TENANT: Final = "all"
_CALLERS: Final = 24
_ROUNDS: Final = {True: 10, False: 2}
"""Sessions of each caller."""
_HOLD_S: Final = 0.3
_LATEST_MS: Final = 5000
_PERIOD_S: Final = 1.0
"""Period in which LiveAvatar takes another time to free sessions."""
_ALL_FREE_S: Final = 30.0


async def _vary(at: Stage, rng: random.Random) -> None:
    """Let LiveAvatar free sessions after five seconds, and then at any time from at once to that."""
    while True:
        # The first sessions are freed late in each run, or a short one could end before any caller had to wait.
        await asyncio.sleep(_PERIOD_S)
        late_ms = rng.choice((0, _LATEST_MS, rng.uniform(0, _LATEST_MS)))
        await asyncio.to_thread(at.emulator.change_settings, slot_release_ms=late_ms)


async def _come_and_go(caller: Caller, rounds: int, waits_s: list[float], failures: Counter[str]) -> None:
    for _ in range(rounds):
        began_s = time.monotonic()
        try:
            created = await caller.create(deadline_s=None)
            waits_s.append(time.monotonic() - began_s)
            await asyncio.sleep(_HOLD_S)
            await caller.end(created.session.id)
        except grpc.aio.AioRpcError as error:
            failures[f"{error.code().name} {(error.details() or '')[:100]}"] += 1


async def _run(setting: Setting) -> Outcome:
    waits_s: list[float] = []
    failures: Counter[str] = Counter()
    rounds = _ROUNDS[setting.long]
    with stage(_ACCOUNTS, {_TENANT: 1.0}, knobs={"slot_release_ms": _LATEST_MS}, settle_s=0) as at:
        async with contextlib.AsyncExitStack() as stack:
            callers = [
                await stack.enter_async_context(caller_with(gateway.address, at.keys[_TENANT]))
                for gateway in at.gateways
            ]
            varying = asyncio.create_task(_vary(at, random.Random(setting.seed)))
            chosen = itertools.islice(itertools.cycle(callers), _CALLERS)
            await asyncio.gather(*(_come_and_go(caller, rounds, waits_s, failures) for caller in chosen))
            assert not varying.done(), "LiveAvatar's time to free sessions was not varied"
            varying.cancel()
            is_free = await all_free(callers[0], at.emulator, within_s=_ALL_FREE_S)
            left = await info(callers[0])
        refused, peaks = at.full_count(), at.peaks()
    failed = "".join(f"; {count} x {name}" for name, count in failures.most_common(3))
    return Outcome(
        figure=f"{len(waits_s)} of {_CALLERS * rounds} served, {failures.total()} refused, after {refused} "
        f"answers 4032 to the gateways; waited {statistics.median(waits_s):.1f} s, at most {max(waits_s):.1f} s; "
        f"peaks {', '.join(map(str, peaks.values()))}; {left.used_permit_count} permits leaked{failed}",
        passed=not failures and refused > 0 and is_free,
    )


LATE_PERMITS: Final = Line(
    name="late permits",
    goal="sessions freed up to 5 s late: nobody in the queue is refused",
    run=_run,
)
