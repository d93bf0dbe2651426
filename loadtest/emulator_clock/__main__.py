"""Lateness of the emulator's clock while many sessions talk at once: `python -m emulator_clock`."""

import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohttp
import click
import uvloop

from liveavatar_gateway.escaping import escaped
from load.direct import DirectSession
from load.figures import Recorder
from load.recorder import LoadRecorder
from load.session import Failure, Utterance
from load.speech import Voice, real_time
from stage import services
from stage.cores import Cores, CoreTimes, choose_cores, on_cores, process_cpu_s
from stage.daemon import Daemon
from stage.errors import StageError

PACKET_MS: Final = 1000
"""Length of a packet; official clients send one per second of speech."""
_STAGGER_S: Final = 1.0
"""Sessions begin evenly over this time, so that they are not in step."""
_OPENING: Final = 8
"""Sessions that are opened at the same time."""


@dataclass(frozen=True, slots=True)
class Timekeeping:
    """Lateness of the emulator's clock during the window."""

    sessions: int
    seconds: float
    moments: int
    """Events that were due: starts and ends of speech, dry buffers, arrivals after one of them."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    packets_per_s: float
    cpu_share: float
    """Share of its core that the emulator took."""
    core_taken: float
    """Share of that core that went to other processes and machines: with much of it the figures are theirs."""

    def lines(self) -> list[str]:
        """Return the figures as text."""
        return [
            f"{self.sessions} sessions talking for {self.seconds:.0f} s, {self.packets_per_s:.0f} packets/s",
            f"late by p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, max {self.max_ms:.2f} ms",
            f"{self.moments} events; CPU {self.cpu_share:.0%} of its core, others {self.core_taken:.0%}",
        ]


async def measure(sessions: int, seconds: float, warmup_s: float, utterance_ms: int, cores: Cores) -> Timekeeping:
    """Run the emulator alone on one core and its callers on the other.

    Raises:
        StageError: the emulator ended early, or not all sessions talked.
    """
    with tempfile.TemporaryDirectory(prefix="emulator-clock-") as name:
        # Recordings with their audio are a part of its work.
        knobs = {"keep_audio_mb": 64}
        daemon = services.emulator(sessions=sessions, cores=[cores.measured], workdir=Path(name), knobs=knobs)
        with on_cores([cores.load]), daemon as emulator:
            async with aiohttp.ClientSession(
                str(emulator.info["url"]), connector=aiohttp.TCPConnector(limit=0), raise_for_status=False
            ) as http:
                try:
                    return await _measure(http, emulator, sessions, seconds, warmup_s, utterance_ms, cores)
                except Failure as failure:
                    raise StageError(f"a session did not talk on: {failure.reason}: {failure}") from failure


async def _measure(  # noqa: PLR0917 - as `measure`
    http: aiohttp.ClientSession,
    emulator: Daemon,
    sessions: int,
    seconds: float,
    warmup_s: float,
    utterance_ms: int,
    cores: Cores,
) -> Timekeeping:
    voice, recorder = Voice(), LoadRecorder(Recorder(), lambda *_: False)
    callers = [DirectSession(http, services.API_KEY, recorder, voice) for _ in range(sessions)]
    limit = asyncio.Semaphore(_OPENING)

    async def open_one(caller: DirectSession) -> None:
        async with limit:
            await caller.open()

    try:
        await asyncio.gather(*map(open_one, callers))
        start_s = time.monotonic()
        talking = [
            asyncio.create_task(_talk(caller, voice, utterance_ms, start_s + _STAGGER_S * number / sessions))
            for number, caller in enumerate(callers)
        ]
        window = asyncio.create_task(_window(http, emulator, sessions, seconds, _STAGGER_S + warmup_s, cores))
        # Callers talk until they fail, so the first to end is the window or a failure.
        done, _ = await asyncio.wait({window, *talking}, return_when=asyncio.FIRST_COMPLETED)
        for task in (window, *talking):
            if task in done:
                task.result()
            else:
                task.cancel()
        return window.result()
    finally:
        await asyncio.gather(*(caller.end() for caller in callers), return_exceptions=True)


async def _talk(caller: DirectSession, voice: Voice, utterance_ms: int, start_s: float) -> NoReturn:
    """Speak utterance after utterance without a pause."""
    rng = random.Random(0)
    for number in itertools.count():
        text = voice.pick(rng, utterance_ms / 1000)
        delivery = real_time(text.size_bytes, chunk_ms=PACKET_MS)
        await caller.speak(Utterance(f"u{number}", text, delivery, start_s))
        caller.utterances.clear()
        start_s += text.seconds
    raise AssertionError("unreachable: the loop has no end")


async def _window(  # noqa: PLR0917 - as `measure`
    http: aiohttp.ClientSession, emulator: Daemon, sessions: int, seconds: float, warmup_s: float, cores: Cores
) -> Timekeeping:
    async def state() -> dict[str, Any]:
        async with http.get("/_emulator/state") as response:
            answer: dict[str, Any] = await response.json()
            return answer

    await asyncio.sleep(warmup_s)
    before = await state()
    async with http.delete("/_emulator/clock/late") as response:
        response.raise_for_status()
    began_s, cpu_s = time.monotonic(), process_cpu_s(emulator.pid)
    core = CoreTimes.now(cores.measured)
    await asyncio.sleep(seconds)
    took_s = time.monotonic() - began_s
    used_s = process_cpu_s(emulator.pid) - cpu_s
    busy = CoreTimes.now(cores.measured).busy_since(core)
    after = await state()
    emulator.check()
    if (active := after["sessions"]["active"]) != sessions:
        raise StageError(f"{active} of {sessions} sessions are active at the end")
    late = after["clock"]["late"]
    return Timekeeping(
        sessions=sessions,
        seconds=took_s,
        moments=late["count"],
        p50_ms=late["p50_ms"],
        p99_ms=late["p99_ms"],
        max_ms=late["max_ms"],
        packets_per_s=(after["totals"]["packets"] - before["totals"]["packets"]) / took_s,
        cpu_share=used_s / took_s,
        core_taken=max(0.0, busy - used_s / took_s),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--sessions", type=click.IntRange(1, 2000), default=200, help="Sessions that talk at once.")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=30.0, help="Length of the measured window.")
@click.option("--warmup", type=click.FloatRange(0, 60), default=3.0, help="Talk before it, seconds.")
@click.option(
    "--utterance-ms",
    type=click.IntRange(PACKET_MS, 60_000),
    default=4_000,
    help="Length of one utterance; the next follows at once.",
)
@click.option("--limit-ms", type=click.FloatRange(0.1), default=20.0, help="Most lateness at the 99th percentile.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(
    *, sessions: int, seconds: float, warmup: float, utterance_ms: int, limit_ms: float, as_json: bool
) -> None:
    """Measure how late the emulator notices what is due, in real time, on a core of its own, without media.

    Exit status: 0 when the 99th percentile is within the limit, 1 when it is not, 2 when it could not be measured.
    """
    try:
        kept = uvloop.run(measure(sessions, seconds, warmup, utterance_ms, choose_cores()))
    except (StageError, aiohttp.ClientError) as error:
        click.echo(f"emulator-clock: {escaped(str(error))}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(asdict(kept)))
    else:
        click.echo("\n".join(kept.lines()))
    if kept.p99_ms > limit_ms:
        click.echo(f"emulator-clock: p99 {kept.p99_ms:.2f} ms is above {limit_ms:g} ms", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
