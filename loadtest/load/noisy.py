"""Process of a tenant that floods the gateway: `python -m load.noisy`, started by `NoisyProcess`.

It is apart from the generator, which measures the other tenant: on one event loop each call of the flood would
delay the measured ones. Its first line on stdin is a `Flooding` as JSON, the end of stdin ends it early. It writes
its counts as JSON lines on stdout, and no times: nobody judges the delays of a tenant above its quotas.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import sys
import time
from collections.abc import Coroutine, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self, TextIO

import aiohttp
import uvloop

from liveavatar.gateway.channel import Connection
from load.figures import Recorder, System
from load.flood import TIMES, Flood, Rates
from load.gateway import AVATAR_ID, CONNECTION_OPTIONS, GatewaySession
from load.keys import CallerKeys
from load.recorder import LoadRecorder
from load.session import Failure, Utterance, until
from load.speech import BYTE_RATE, Voice, real_time
from load.upstream_check import NotRecorded, UpstreamCheck
from stage.tenants import NOISY, QUOTAS

logger = logging.getLogger(__name__)

_SYSTEM: Final[System] = "gateway"
_NICENESS: Final = 5
"""Below the generator, whose delays would look like the gateway's."""
_COUNT_EVERY_S: Final = 1.0
_CHUNK_MS: Final = 200
_UTTERANCE_S: Final = 4.0
"""Length of an utterance: below what the credit allows at once, so that the quota is the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flooding:
    """Order to flood a gateway."""

    target: str
    """Gateway, `host:port`."""
    emulator: str = ""
    """Base URL of the emulator, for the check of bytes upstream; empty for none."""
    key_file: str
    """File with the API key of the tenant."""
    one_clock: bool = False
    seed: int = 1
    windows: tuple[tuple[float, float], ...]
    """Begin and end of each flood, seconds after the schedule's zero."""
    zero_mono_s: float = 0.0
    """The schedule's zero on the monotonic clock of this machine."""

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read the line of `to_json`."""
        row = json.loads(line)
        return cls(**{**row, "windows": tuple((from_s, to_s) for from_s, to_s in row["windows"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts since the counts before."""

    at_s: float
    """Time of the counts, seconds after the schedule's zero."""
    counters: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    integrity_failures: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read the line of `to_json`."""
        row = json.loads(line)
        return cls(**{**row, "integrity_failures": tuple(row["integrity_failures"])})

    def add_to(self, recorder: Recorder) -> None:
        """Add the counts to a recorder."""
        at_mono_s = recorder.started_mono_s + self.at_s
        for counter, number in self.counters.items():
            recorder.count(_SYSTEM, counter, number, at_mono_s=at_mono_s)
        for reason, number in self.errors.items():
            for _ in range(number):
                recorder.failed(_SYSTEM, reason, at_mono_s=at_mono_s)
        # Their counter is among the counters.
        recorder.integrity_failures += self.integrity_failures


class CountsWriter:
    """Writer of what a recorder has counted since the line before."""

    def __init__(self, recorder: LoadRecorder, lines: TextIO) -> None:
        self._recorder = recorder
        self._lines = lines
        self._counters: dict[tuple[System, str], int] = {}
        self._errors: dict[tuple[System, str], int] = {}
        self._failures = 0

    async def run(self) -> None:
        """Write a line every second."""
        while True:
            await asyncio.sleep(_COUNT_EVERY_S)
            self.write()

    def write(self) -> None:
        """Write a line."""
        measured = self._recorder.measured
        counts = Counts(
            at_s=time.monotonic() - measured.started_mono_s,
            counters=_since(self._counters, measured.counters),
            errors=_since(self._errors, measured.errors),
            integrity_failures=tuple(measured.integrity_failures[self._failures :]),
        )
        self._counters, self._errors = dict(measured.counters), dict(measured.errors)
        self._failures = len(measured.integrity_failures)
        # Nobody shows or judges them, so they must not pile up.
        self._recorder.for_locust.clear()
        for late in self._recorder.late.values():
            del late[:]
        print(counts.to_json(), file=self._lines, flush=True)


def _since(before: Mapping[tuple[System, str], int], now: Mapping[tuple[System, str], int]) -> dict[str, int]:
    grown = {name: number - before.get((system, name), 0) for (system, name), number in now.items()}
    return {name: number for name, number in grown.items() if number}


class NoisyTenant:
    """Tenant that floods the gateway with calls and speech, each at ten times its quota."""

    def __init__(self, flooding: Flooding, recorder: LoadRecorder, http: aiohttp.ClientSession | None) -> None:
        """Prepare to flood.

        Args:
            flooding: The order.
            recorder: Gets the counts.
            http: Session with the emulator, for the check of bytes upstream; None leaves it out.
        """
        self._flooding = flooding
        self._recorder = recorder
        self._metadata = CallerKeys.read(flooding.key_file).of(0)
        self._connection = Connection(flooding.target, None, CONNECTION_OPTIONS)
        self._voice = Voice()
        self._upstream_check = UpstreamCheck(http, flooding.one_clock, self._voice) if http is not None else None
        self._rng = random.Random(f"noisy/{flooding.seed}")
        self._utterances = 0

    async def run(self) -> None:
        """Flood in each window; close the connection at the end."""
        try:
            for from_s, to_s in self._flooding.windows:
                await until(self._flooding.zero_mono_s + from_s)
                await self._flood_until(self._flooding.zero_mono_s + to_s)
        finally:
            await self._connection.close()

    async def _flood_until(self, until_s: float) -> None:
        session = GatewaySession(self._connection, self._recorder, self._voice, attached=True)
        session.metadata = self._metadata
        self._recorder.count(_SYSTEM, "arrivals")
        calls: asyncio.Task[None] | None = None
        try:
            # Before the calls, which leave no place for a session.
            await self._spoken(session.open())
            calls = asyncio.create_task(self._calls(until_s))
            await self._spoken(self._speak_until(session, until_s))
            await calls
        finally:
            if calls is not None:
                calls.cancel()
                await asyncio.wait({calls})
            await session.end()
        await self._check(session)

    async def _spoken(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Failure as failure:
            logger.warning("speech of the flood: %s: %s", failure.reason, failure)
            self._recorder.failed(_SYSTEM, failure.reason, took_s=0.0)

    async def _speak_until(self, session: GatewaySession, until_s: float) -> None:
        if session.waits.failure is not None or not session.tenant:
            return
        self._recorder.count(_SYSTEM, "sessions")
        while time.monotonic() < until_s:
            await self._speak_too_fast(session, until_s)

    async def _calls(self, until_s: float) -> None:
        rates = Rates.of(QUOTAS[NOISY])
        flood = Flood(self._connection, self._metadata, self._recorder, rates, avatar_id=AVATAR_ID)
        await flood.run(until_s - time.monotonic())

    async def _speak_too_fast(self, session: GatewaySession, until_s: float) -> None:
        """Send an utterance above the quota of audio, and interrupt it once all of it is written."""
        text = self._voice.pick(self._rng, _UTTERANCE_S)
        times = TIMES * QUOTAS[NOISY]["audio_bytes_per_s"] / BYTE_RATE
        delivery = real_time(text.size_bytes, chunk_ms=_CHUNK_MS).faster(times)
        self._utterances += 1
        utterance = Utterance(f"noisy-{self._utterances}", text, delivery, time.monotonic(), until_s, paced=False)
        await session.speak(utterance)
        utterance.interrupt_s = time.monotonic()
        await session.interrupt(utterance)
        await session.finish(utterance)

    async def _check(self, session: GatewaySession) -> None:
        if self._upstream_check is None:
            return
        try:
            await self._upstream_check.check(session, self._recorder)
        except NotRecorded as error:
            logger.warning("integrity of a session could not be checked: %s", error)


async def flood(flooding: Flooding, lines: TextIO, stop: asyncio.Event) -> None:
    """Carry out an order, and write counts until the last window has ended or `stop` is set."""
    recorder = LoadRecorder(Recorder(flooding.zero_mono_s), lambda *_: False)
    writer = CountsWriter(recorder, lines)
    writing = asyncio.create_task(writer.run())
    async with contextlib.AsyncExitStack() as stack:
        http = None
        if flooding.emulator:
            http = await stack.enter_async_context(aiohttp.ClientSession(flooding.emulator))
        work = asyncio.create_task(NoisyTenant(flooding, recorder, http).run())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not work.done():
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    writing.cancel()
    writer.write()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    line = await stdin.readline()
    if not line:
        return
    stop = asyncio.Event()
    end = asyncio.create_task(stdin.read())
    end.add_done_callback(lambda _: stop.set())
    await flood(Flooding.from_json(line.decode()), sys.stdout, stop)
    end.cancel()


def main() -> Any:
    """Run the process."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    os.nice(_NICENESS)
    uvloop.run(_main())


if __name__ == "__main__":
    main()
