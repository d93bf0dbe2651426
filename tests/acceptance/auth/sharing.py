"""Two tenants on one gateway: the first at ten times its quota, the second as if it were alone."""

import asyncio
import contextlib
import random
import statistics
import time
from typing import Final

import grpc

from acceptance.auth.stage import Stage, stage
from acceptance.line import Line, Outcome, Setting
from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit.caller import Caller
from testkit.tenants import caller_with

_AT_MOST: Final = 1.5
_QUOTAS: Final = {
    "max_sessions": 4,
    "opens_per_min": 60,
    "max_waiting": 2,
    "max_streams": 8,
    "max_watches": 2,
    "audio_bytes_per_s": 96_000,
    "unary_calls_per_s": 10.0,
    "list_calls_per_s": 2.0,
}
_TIMES: Final = 10
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


class _Flood:
    """Calls of the first tenant, each kind at ten times its quota."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.accepted = 0
        self.refused = 0

    async def run(self) -> None:
        """Flood until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work, per_s in (
                (self._call, _QUOTAS["unary_calls_per_s"]),
                (self._list, _QUOTAS["list_calls_per_s"]),
                (self._open, _QUOTAS["opens_per_min"] / 60),
                (self._attach, _QUOTAS["max_streams"] / 4),
                (self._watch, _QUOTAS["max_watches"] / 2),
            ):
                tasks.create_task(self._every(1 / (per_s * _TIMES), work))
            tasks.create_task(self._talk())

    async def _every(self, period_s: float, work) -> None:  # type: ignore[no-untyped-def]
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                task = asyncio.create_task(self._count(work))
                running.add(task)
                task.add_done_callback(running.discard)
                await asyncio.sleep(period_s)
        finally:
            for task in running:
                task.cancel()

    async def _count(self, work) -> None:  # type: ignore[no-untyped-def]
        try:
            await work()
            self.accepted += 1
        except (grpc.aio.AioRpcError, AssertionError, EOFError):
            self.refused += 1

    async def _call(self) -> None:
        await self._caller.sessions.GetServerInfo(p.GetServerInfoRequest(), timeout=10)

    async def _list(self) -> None:
        await self._caller.sessions.ListSessions(p.ListSessionsRequest(), timeout=10)

    async def _open(self) -> None:
        created = await self._caller.create(deadline_s=10)
        await asyncio.sleep(1)
        await self._caller.end(created.session.id)

    async def _attach(self) -> None:
        attached = await self._caller.attach()
        await asyncio.sleep(2)
        attached.call.cancel()

    async def _watch(self) -> None:
        watch = self._caller.watch()
        await watch.progress()
        await asyncio.sleep(2)
        watch.call.cancel()

    async def _talk(self) -> None:
        """Send audio ten times as fast as the quota allows, in a session of its own."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, AssertionError, EOFError):
                created = await self._caller.create(deadline_s=10)
                speech = await self._caller.speak(created.session.id)
                await speech.begin()
                while True:
                    await speech.chunk(bytes(_QUOTAS["audio_bytes_per_s"] * _TIMES // 10))
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)


async def _window(at: Stage, beta: Caller, acme: Caller | None, seconds: float, seed: int):  # type: ignore[no-untyped-def]
    """Return the times of the second tenant in a window, with the first tenant's flood or alone."""
    firsts_s: list[float] = []
    calls_s: list[float] = []
    flood = None if acme is None else _Flood(acme)
    flooding = None if flood is None else asyncio.create_task(flood.run())
    until_s = time.monotonic() + seconds
    await asyncio.gather(*(_speak(beta, until_s, firsts_s, calls_s, seed + number) for number in range(_SPEAKERS)))
    if flooding is not None:
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
    return firsts_s, calls_s, flood


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


async def _run(setting: Setting) -> Outcome:
    rounds, seconds = (4, 30.0) if setting.long else (2, 10.0)
    alone: tuple[list[float], list[float]] = ([], [])
    shared: tuple[list[float], list[float]] = ([], [])
    accepted = refused = 0
    with stage("acme", "beta") as at:
        at.tenants.tenant("acme", quotas=_QUOTAS)
        await asyncio.sleep(3)
        token = {name: at.token(name, "open", "speak", "control", "watch") for name in ("acme", "beta")}
        async with (
            caller_with(at.gateway.address, token["acme"]) as acme,
            caller_with(at.gateway.address, token["beta"]) as beta,
        ):
            for number in range(rounds):
                for flooded in (False, True):
                    found = await _window(at, beta, acme if flooded else None, seconds, setting.seed + number)
                    target = shared if flooded else alone
                    target[0].extend(found[0])
                    target[1].extend(found[1])
                    if found[2] is not None:
                        accepted += found[2].accepted
                        refused += found[2].refused
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
