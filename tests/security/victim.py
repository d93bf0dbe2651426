"""`python -m security.victim ADDRESS`: caller that talks in some sessions, and calls once in a while.

The first line that it reads is its credential, or empty; each other one begins a window. At the end of its input
it stops, and prints for every window the latencies of its calls, and what failed, as JSON.
"""

import asyncio
import contextlib
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Final

import grpc

from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar.gateway.v1.audio_pb2 import UTTERANCE_OUTCOME_COMPLETED
from testkit.caller import Caller, Speech
from testkit.tenants import caller_with

SESSIONS: Final = 6
_CHUNK_S: Final = 0.1
_TURN_S: Final = 4.0
_AHEAD_S: Final = 0.4
"""Audio that is sent at once at the begin of a turn; the rest follows in real time."""
_BYTES_PER_S: Final = 48_000
_PROBE_S: Final = 0.03
_PROBE_TIMEOUT_S: Final = 20.0


@dataclass(slots=True)
class Window:
    """Observations of some seconds."""

    probes_s: list[float] = field(default_factory=list)
    firsts_s: list[float] = field(default_factory=list)
    """Times from the begin of a turn to its first sound."""
    failures: list[str] = field(default_factory=list)


class Victim:
    """Caller that talks and measures."""

    def __init__(self, talker: Caller, prober: Caller) -> None:
        self._talker = talker
        self._prober = prober
        self.windows: dict[str, Window] = {}
        self._window = Window()

    def begin(self, name: str) -> None:
        """Begin a window."""
        self._window = self.windows.setdefault(name, Window())

    async def run(self) -> None:
        """Talk and probe until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._probe())
            for number in range(SESSIONS):
                tasks.create_task(self._converse(number))

    async def _probe(self) -> None:
        # At a fixed rate, whatever earlier calls do: a standstill is as many slow calls as it lasts.
        async with asyncio.TaskGroup() as calls:
            while True:
                calls.create_task(self._call(self._window))
                await asyncio.sleep(_PROBE_S)

    async def _call(self, window: Window) -> None:
        began_s = time.monotonic()
        try:
            await self._prober.sessions.GetServerInfo(p.GetServerInfoRequest(), timeout=_PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            window.failures.append(f"probe: {error.code().name} {error.details()}")
        window.probes_s.append(time.monotonic() - began_s)

    async def _converse(self, number: int) -> None:
        attached = await self._talker.attach()
        await attached.until_ready()
        drain = asyncio.create_task(self._drain(attached.call))
        try:
            speech = await self._talker.speak(attached.session_id)
            for turn in range(1_000_000):
                await self._say(speech, f"v-{number}-{turn}")
        except (grpc.aio.AioRpcError, EOFError, AssertionError, TimeoutError) as error:
            self._window.failures.append(f"session: {type(error).__name__} {error}"[:300])
        finally:
            drain.cancel()
            with contextlib.suppress(Exception):
                await self._talker.end(attached.session_id)

    async def _say(self, speech: Speech, utterance: str) -> None:
        window, began_s = self._window, time.monotonic()
        await speech.begin(utterance)
        hearing = asyncio.create_task(self._hear(speech, window, began_s))
        try:
            for number in range(int(_TURN_S / _CHUNK_S)):
                await speech.chunk(bytes(int(_CHUNK_S * _BYTES_PER_S)))
                wait_s = began_s + (number + 1) * _CHUNK_S - _AHEAD_S - time.monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
            await speech.end()
            await hearing
        finally:
            hearing.cancel()

    @staticmethod
    async def _hear(speech: Speech, window: Window, began_s: float) -> None:
        await speech.until("started")
        window.firsts_s.append(time.monotonic() - began_s)
        ended = await speech.until("ended")
        if ended.outcome != UTTERANCE_OUTCOME_COMPLETED:
            window.failures.append(f"utterance: outcome {ended.outcome} {ended.error.message}")

    @staticmethod
    async def _drain(call: grpc.aio.StreamStreamCall) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass


async def main(address: str) -> None:
    """Talk until the input ends."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
    )
    credential = (await lines.readline()).decode().strip()
    async with caller_with(address, credential) as talker, caller_with(address, credential) as prober:
        victim = Victim(talker, prober)
        running = asyncio.create_task(victim.run())
        while line := await lines.readline():
            victim.begin(line.decode().strip())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    windows = {
        name: {"probes_s": one.probes_s, "firsts_s": one.firsts_s, "failures": one.failures}
        for name, one in victim.windows.items()
    }
    sys.stdout.write(json.dumps(windows))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
