"""`python -m acceptance.flood ADDRESS SECONDS`: calls of one tenant, each kind at ten times its quota.

Reads the credential from the standard input; prints how many calls were accepted and refused, as JSON.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import grpc

from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit.caller import Caller
from testkit.tenants import caller_with

QUOTAS: Final[dict[str, float]] = {
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


class Flood:
    """Calls of the first tenant, each kind at ten times its quota."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.accepted = 0
        self.refused = 0

    async def run(self) -> None:
        """Flood until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work, per_s in (
                (self._call, QUOTAS["unary_calls_per_s"]),
                (self._list, QUOTAS["list_calls_per_s"]),
                (self._open, QUOTAS["opens_per_min"] / 60),
                (self._attach, QUOTAS["max_streams"] / 4),
                (self._watch, QUOTAS["max_watches"] / 2),
            ):
                tasks.create_task(self._every(1 / (per_s * _TIMES), work))
            tasks.create_task(self._talk())

    async def _every(self, period_s: float, work: Callable[[], Awaitable[None]]) -> None:
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

    async def _count(self, work: Callable[[], Awaitable[None]]) -> None:
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
                    await speech.chunk(bytes(int(QUOTAS["audio_bytes_per_s"]) * _TIMES // 10))
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)


async def main(address: str, credential: str, seconds: float) -> None:
    """Flood a gateway for some seconds."""
    until_s = time.monotonic() + seconds
    async with caller_with(address, credential) as caller:
        flood = Flood(caller)
        running = asyncio.create_task(flood.run())
        await asyncio.sleep(until_s - time.monotonic())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    sys.stdout.write(json.dumps({"accepted": flood.accepted, "refused": flood.refused}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.stdin.readline().strip(), float(sys.argv[2])))
