"""Two tenants on one gateway: the first at ten times its quota, the second as if it were alone."""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from typing import Final

from acceptance.auth.stage import stage
from acceptance.flood import QUOTAS
from acceptance.line import Line, Outcome, Setting
from testkit.caller import Caller
from testkit.tenants import caller_with

_AT_MOST: Final = 1.5
_SPEAKERS: Final = 6
_UTTERANCE: Final = bytes(48_000)


async def _speak(caller: Caller, until_s: float, firsts_s: list[float], calls_s: list[float], seed: int) -> None:
    """Speak utterance after utterance in one session; note the time to each first sound, and of each call."""
    chance = random.Random(seed)
    created = await caller.create()
    speech = await caller.speak(created.session.id)
    number = 0
    while time.monotonic() < until_s:
        number += 1
        began_s = time.monotonic()
        await speech.say(_UTTERANCE, f"u-{number}", chunk_bytes=4_800)
        await speech.until("started")
        firsts_s.append(time.monotonic() - began_s)
        began_s = time.monotonic()
        await caller.get(created.session.id)
        calls_s.append(time.monotonic() - began_s)
        await speech.until("ended")
        await asyncio.sleep(chance.uniform(0.0, 0.2))
    await caller.end(created.session.id)


async def _flood(address: str, credential: str, seconds: float) -> dict[str, int]:
    """Flood from a process of its own, which does not slow the measured caller's; return what it counted."""
    words = [sys.executable, "-m", "acceptance.flood", address, str(seconds)]
    process = await asyncio.create_subprocess_exec(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output, _ = await process.communicate(f"{credential}\n".encode())
    counted: dict[str, int] = json.loads(output)
    return counted


async def _window(beta: Caller, seconds: float, seed: int) -> tuple[list[float], list[float]]:
    """Return the times to the first sounds, and those of calls, of the second tenant in a window."""
    firsts_s: list[float] = []
    calls_s: list[float] = []
    until_s = time.monotonic() + seconds
    await asyncio.gather(*(_speak(beta, until_s, firsts_s, calls_s, seed + number) for number in range(_SPEAKERS)))
    return firsts_s, calls_s


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


async def _run(setting: Setting) -> Outcome:
    rounds, seconds = (4, 30.0) if setting.long else (2, 8.0)
    alone: tuple[list[float], list[float]] = ([], [])
    shared: tuple[list[float], list[float]] = ([], [])
    accepted = refused = 0
    with stage("acme", "beta") as at:
        at.tenants.tenant("acme", quotas=QUOTAS)
        await asyncio.sleep(3)
        token = {name: at.token(name, "open", "speak", "control", "watch") for name in ("acme", "beta")}
        async with caller_with(at.gateway.address, token["beta"]) as beta:
            for number in range(rounds):
                for target in (alone, shared):
                    flooding = None
                    if target is shared:
                        flooding = asyncio.create_task(_flood(at.gateway.address, token["acme"], seconds + 2))
                        await asyncio.sleep(2)
                    firsts_s, calls_s = await _window(beta, seconds, setting.seed + number)
                    target[0].extend(firsts_s)
                    target[1].extend(calls_s)
                    if flooding is not None:
                        counted = await flooding
                        accepted += counted["accepted"]
                        refused += counted["refused"]
    firsts, calls = _p99(shared[0]) / _p99(alone[0]), _p99(shared[1]) / _p99(alone[1])
    return Outcome(
        figure=f"p99 to first sound {_p99(alone[0]) * 1e3:.0f} ms alone, {_p99(shared[0]) * 1e3:.0f} ms beside A "
        f"({firsts:.2f} x of {len(shared[0])}); of a call {_p99(alone[1]) * 1e3:.1f} ms, "
        f"{_p99(shared[1]) * 1e3:.1f} ms ({calls:.2f} x); A had {accepted} calls, and {refused} were refused",
        passed=firsts <= _AT_MOST and refused > accepted,
    )


SHARING = Line(
    name="sharing",
    goal=f"B's p99 beside A at ten times its quota within {_AT_MOST:g} x of alone",
    run=_run,
    measures_time=True,
)
