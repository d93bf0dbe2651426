"""Opening of a session with a warm one and without, side by side on one gateway."""

import asyncio
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx

from acceptance.line import Line, Outcome, Setting
from liveavatar.gateway.v1 import session_pb2
from testkit import processes
from testkit.caller import Caller
from testkit.caller import caller as connect
from testkit.pool_files import profile, write_pool_file

_READY_MS: Final = 2500
"""The emulator's own default, as measured of LiveAvatar; the test kit's is shorter."""
_ROUNDS: Final = {True: 10, False: 1}
"""Number of rounds in the long and in the short profile."""
_PER_ROUND: Final = 10
_LEAST_RATIO: Final = 20
_FILL_S: Final = 120.0
"""Limit of the wait for warm sessions, which no stall reaches."""


async def _open(caller: Caller, *, low: bool) -> float:
    """Open a session and end it; return the time from the call to the event with the state READY."""
    video = session_pb2.VideoSettings(quality=session_pb2.VIDEO_QUALITY_LOW if low else 0)
    began_s = time.monotonic()
    attachment = await caller.attach(video=video)
    await attachment.until_ready()
    took_s = time.monotonic() - began_s
    await caller.end(attachment.session_id)
    return took_s


async def _filled(gateway: processes.Gateway, count: int) -> None:
    """Wait until `count` warm sessions have become ready since the start."""
    give_up_s = time.monotonic() + _FILL_S
    while (ready := (log := await asyncio.to_thread(lambda: gateway.process.log)).count("warm.ready")) < count:
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"{ready} of {count} warm sessions became ready; {log.splitlines()[-1][:200]}")
        await asyncio.sleep(0.05)


async def _taken(metrics: str) -> int:
    async with httpx.AsyncClient(timeout=10) as http:
        lines = (await http.get(metrics)).text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("gateway_warm_taken_total{"))


def _percentile(times_s: list[float], share: float) -> float:
    """Return the nearest rank: the least time that is at or above such a share of all."""
    return sorted(times_s)[max(1, math.ceil(len(times_s) * share)) - 1]


async def _run(setting: Setting) -> Outcome:
    warm_s: list[float] = []
    cold_s: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        processes.emulator(ready_delay_ms=_READY_MS) as emulator,
        processes.gateway(
            emulator.url,
            pool_file=write_pool_file(Path(folder), {"desk": profile(min=_PER_ROUND)}),
            api_key="",
            metrics_port=0,
        ) as gateway,
    ):
        async with connect(gateway.address) as caller:
            for number in range(1, _ROUNDS[setting.long] + 1):
                await _filled(gateway, number * _PER_ROUND)
                cold = []
                for _ in range(_PER_ROUND):
                    cold.append(asyncio.create_task(_open(caller, low=True)))
                    warm_s.append(await _open(caller, low=False))
                cold_s += [await one for one in cold]
            taken = await _taken(str(gateway.metrics))
    cold_median_s, warm_worst_s = statistics.median(cold_s), _percentile(warm_s, 0.99)
    return Outcome(
        figure=f"cold p50 {cold_median_s * 1e3:.0f} ms; warm p50 {statistics.median(warm_s) * 1e3:.1f} ms, "
        f"p99 {warm_worst_s * 1e3:.1f} ms: 1/{cold_median_s / warm_worst_s:.0f} of cold p50 "
        f"({len(cold_s)} cold, {taken} of {len(warm_s)} warm)",
        passed=taken == len(warm_s) and warm_worst_s * _LEAST_RATIO <= cold_median_s,
    )


OPENING: Final = Line(
    name="opening",
    goal=f"warm p99 at most 1/{_LEAST_RATIO} of cold p50, {_ROUNDS[True] * _PER_ROUND} opens each, side by side",
    run=_run,
    measures_time=True,
)
