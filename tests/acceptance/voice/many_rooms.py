"""Many rooms with a user each, who are all heard: the delay stays, nothing is missing, and CPU is printed."""

import asyncio
import bisect
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from acceptance.cpu import cpu_s
from acceptance.line import Line, Outcome, Setting
from acceptance.voice.singers import PERIOD_S
from acceptance.voice.stage import Stage, stage
from liveavatar.gateway.v1 import session_pb2
from liveavatar_demo.process import clean_environment
from testkit.caller import Caller, Hearing
from testkit.caller import caller as connect
from testkit.checkout import PYTHONPATH, ROOT
from testkit.users import user_token

MAX_GROWTH: Final = 1.25
"""Most by which the delay of the last minute may exceed that of the first."""
_CHUNK_S: Final = 0.02
_LOUD: Final = 4_000
"""Sample above which a chime has begun; the users are silent otherwise."""
_CREDIT_BYTES: Final = 96_000
_SINGING_S: Final = 60.0
"""Longest wait for all users to be in their rooms."""
_MAX_LINE_BYTES: Final = 2**22
_LONGEST_DELAY_S: Final = 1.9
"""A chime that is heard later counts as missing: it cannot be told from the next one."""


@dataclass(slots=True)
class Ear:
    """Caller that hears one room, and finds the chimes in what comes."""

    hearing: Hearing
    chimes: list[float] = field(default_factory=list)
    """Arrivals of the chunks in which chimes begin."""
    dropped_s: float = 0.0
    gaps: int = 0
    """Chunks that are missing without having been dropped."""
    seconds: float = 0.0
    _sequence: int = 0

    async def hear(self) -> None:
        """Read until cancelled."""
        unpaid = 0
        while True:
            response = await self.hearing.call.read()
            if not response.HasField("audio"):
                continue
            now_s = time.monotonic()
            chunk = response.audio
            dropped_s = chunk.dropped.ToTimedelta().total_seconds()
            self.dropped_s += dropped_s
            self.gaps += chunk.sequence - self._sequence - 1 - round(dropped_s / _CHUNK_S)
            self._sequence = chunk.sequence
            self.seconds += _CHUNK_S
            is_loud = int(np.abs(np.frombuffer(chunk.audio, "<i2").astype(np.int32)).max()) > _LOUD
            if is_loud and (not self.chimes or now_s - self.chimes[-1] > PERIOD_S / 2):
                self.chimes.append(now_s)
            unpaid += len(chunk.audio)
            if unpaid > _CREDIT_BYTES // 4:
                await self.hearing.credit(unpaid)
                unpaid = 0


def delays(sung: Sequence[float], heard: Sequence[float]) -> list[tuple[float, float]]:
    """Return the time of each chime that was heard, and its delay."""
    found = []
    for at_s in sung:
        number = bisect.bisect_left(heard, at_s)
        if number < len(heard) and (delay_s := heard[number] - at_s) < _LONGEST_DELAY_S:
            found.append((at_s, delay_s))
    return found


@contextlib.asynccontextmanager
async def _singers(url: str, tokens: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("singers.py"))),
        env={**clean_environment(), "PYTHONPATH": PYTHONPATH},
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps({"url": url, "tokens": dict(tokens)}).encode() + b"\n")
        line = await asyncio.wait_for(process.stdout.readline(), _SINGING_S)
        assert line == b"ready\n", line
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listen(at: Stage, caller: Caller, rooms: Sequence[str]) -> list[Ear]:
    ears = []
    for room in rooms:
        own = session_pb2.LiveKitRoom(name=room)
        attachment = await caller.attach(livekit_room=own, detach_grace={"seconds": 300})
        ears.append(Ear(await caller.listen(attachment.session_id, chunk_s=_CHUNK_S, credit_bytes=_CREDIT_BYTES)))
    return ears


async def _run(setting: Setting) -> Outcome:
    count, seconds = (20, 300.0) if setting.long else (4, 30.0)
    span_s = 60.0 if setting.long else seconds / 3
    rooms = [f"room-{number}" for number in range(count)]
    with stage() as at:
        tokens = {room: user_token(at.livekit, room, "ann") for room in rooms}
        async with connect(at.gateway.address) as caller, _singers(at.livekit.url, tokens) as singers:
            ears = await _listen(at, caller, rooms)
            tasks = [asyncio.create_task(ear.hear(), name="ear") for ear in ears]
            # Until the jitter buffers have settled.
            await asyncio.sleep(5)
            pid = at.gateway.process.pid
            began_s, began_cpu_s = time.monotonic(), cpu_s(pid)
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            used_s, ended_s = cpu_s(pid) - began_cpu_s, time.monotonic()
            await asyncio.sleep(_LONGEST_DELAY_S)
            failed = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            sung = await _sung(singers)
            for task in failed:
                task.result()
    return _judge(sung, dict(zip(rooms, ears, strict=True)), began_s, ended_s, span_s=span_s, used_s=used_s)


async def _sung(singers: asyncio.subprocess.Process) -> dict[str, list[float]]:
    """Let the users leave; return the times of their chimes by room."""
    assert singers.stdin is not None
    assert singers.stdout is not None
    singers.stdin.close()
    found: dict[str, list[float]] = json.loads(await asyncio.wait_for(singers.stdout.readline(), _SINGING_S))
    return found


def _judge(
    sung: Mapping[str, Sequence[float]],
    ears: Mapping[str, Ear],
    began_s: float,
    ended_s: float,
    *,
    span_s: float,
    used_s: float,
) -> Outcome:
    chimes, found, gaps = 0, list[tuple[float, float]](), 0
    for room, ear in ears.items():
        within = [at_s for at_s in sung[room] if began_s <= at_s < ended_s]
        heard = delays(within, ear.chimes)
        chimes += len(within)
        found += heard
        # A chime may be among the audio that was dropped.
        gaps += abs(ear.gaps) + max(0, len(within) - len(heard) - round(ear.dropped_s / PERIOD_S + 0.5))
    first = [delay_s for at_s, delay_s in found if at_s < began_s + span_s]
    last = [delay_s for at_s, delay_s in found if at_s >= ended_s - span_s]
    if not first or not last:
        return Outcome(figure="no chime was heard", passed=False)
    growth = statistics.median(last) / statistics.median(first)
    dropped_s = sum(ear.dropped_s for ear in ears.values())
    share = used_s / (ended_s - began_s) / len(ears)
    return Outcome(
        figure=f"{len(ears)} rooms, {len(found)} of {chimes} chimes heard, delay {_ms(first)} -> {_ms(last)} "
        f"({growth:.2f} x), {gaps} unexplained gaps, {dropped_s:.1f} s dropped, {share:.1%} of a core per room",
        passed=growth <= MAX_GROWTH and gaps == 0,
    )


def _ms(values: Sequence[float]) -> str:
    return f"{statistics.median(values) * 1000:.0f} ms"


MANY_ROOMS: Final = Line(
    name="many rooms",
    goal=f"last minute's median delay <= {MAX_GROWTH:g} x the first's, 0 unexplained gaps; CPU printed",
    run=_run,
    measures_time=True,
)
