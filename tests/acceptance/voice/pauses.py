"""Pauses in the middle of a sentence that lose nothing: in each dialect, and while everything breaks."""

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import numpy as np

from acceptance.line import Line, Outcome, Setting
from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit import processes
from testkit.caller import Attachment, Caller, Speech
from testkit.caller import caller as connect
from testkit.speech import BYTE_RATE

DIALECTS: Final = ("classic", "acks_only", "modern")
MAX_SILENCE_S: Final = 0.5
"""Longest time from the caller's pause to the avatar's silence."""
_PAUSE_S: Final = 2.0
_SPEECH_S: Final = 6.0
_BEFORE_S: Final = (0.8, 2.0)
"""Range of the time of speech before the pause; later, the next utterance would be at LiveAvatar already."""
_QUEUED: Final = 3
"""Number of utterances behind the paused one."""
_QUEUED_S: Final = 1.0
_RANGE_S: Final = 0.5
"""Most by which the emulator's position may differ from the gateway's: the way of the interrupt."""
_RESUMED_S: Final = 20.0
_Entered = TypeVar("_Entered")


@dataclass(slots=True)
class Call:
    """Session that is speaking."""

    stack: contextlib.AsyncExitStack
    emulator: processes.Emulator
    gateway: processes.Gateway
    settings: dict[str, object]
    caller: Caller
    attachment: Attachment
    stream: Speech
    said: dict[str, bytes]

    @property
    def upstream_id(self) -> str:
        """Id of the session at LiveAvatar."""
        return self.attachment.upstream_id

    async def recording(self) -> dict[str, Any]:
        """Return LiveAvatar's recording of the session."""
        return await asyncio.to_thread(self.emulator.session, self.upstream_id)

    async def played(self) -> list[bytes]:
        """Return the audio that was played of each utterance of LiveAvatar."""
        rows = (await self.recording())["utterances"]
        return [
            await asyncio.to_thread(self.emulator.utterance_audio, self.upstream_id, number, played=True)
            for number in range(len(rows))
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Result of one pause."""

    name: str
    silent_after_s: float
    repeated_s: float
    """Audio that LiveAvatar played twice."""
    wrong: tuple[str, ...]


async def _nothing(_call: Call) -> None:
    """Break nothing."""


async def _lose_socket(call: Call) -> None:
    await asyncio.to_thread(call.emulator.drop, call.upstream_id, 1011)
    await call.attachment.event("reconnected")


async def _kill(call: Call) -> None:
    """Kill the gateway, start it again, and give it what it asks for, as a caller does."""
    port = int(call.gateway.address.rpartition(":")[2])
    await asyncio.to_thread(call.gateway.process.kill)
    again = processes.gateway(call.emulator.url, port=port, **call.settings)
    call.gateway = await _enter(call.stack, again)
    call.caller = await call.stack.enter_async_context(connect(call.gateway.address))
    call.attachment = await _resumed(call)
    call.stream = await call.caller.speak(call.attachment.session_id)
    for utterance_id, pcm in call.said.items():
        ack = await call.stream.resume(utterance_id)
        await call.stream.say_on(pcm, ack.received_bytes)


async def _resumed(call: Call) -> Attachment:
    async with asyncio.timeout(_RESUMED_S):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                return await call.caller.resume(call.attachment.opened.handle, skip_compacted=True)
            await asyncio.sleep(0.2)


TROUBLES: Final[dict[str, Callable[[Call], Awaitable[None]]]] = {
    "nothing": _nothing,
    "socket lost": _lose_socket,
    "kill -9": _kill,
}


def words(rng: random.Random, seconds: float) -> bytes:
    """Return noise with a silence of 160 ms in each 800 ms; no two seconds are alike."""
    samples = np.random.default_rng(rng.getrandbits(64)).integers(-6_000, 6_000, round(seconds * BYTE_RATE / 2))
    samples[np.arange(len(samples)) % 19_200 >= 15_360] = 0
    return samples.astype("<i2").tobytes()


async def _enter(
    stack: contextlib.AsyncExitStack, manager: contextlib.AbstractContextManager[_Entered]
) -> _Entered:
    """Enter a context without standing still: other dialects measure times meanwhile."""
    entered = await asyncio.to_thread(manager.__enter__)
    stack.push_async_callback(asyncio.to_thread, manager.__exit__, None, None, None)
    return entered


@contextlib.asynccontextmanager
async def _speaking(dialect: str, rng: random.Random) -> AsyncIterator[Call]:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings: dict[str, object] = {"registry_file": folder / "registry.db", "detach_grace_s": 60}
        emulator = await _enter(stack, processes.emulator(profile=dialect))
        gateway = await _enter(stack, processes.gateway(emulator.url, **settings))
        caller = await stack.enter_async_context(connect(gateway.address))
        attachment = await caller.attach()
        await attachment.until_ready()
        stream = await caller.speak(attachment.session_id)
        said = {"long": words(rng, _SPEECH_S)} | {f"queued-{n}": words(rng, _QUEUED_S) for n in range(_QUEUED)}
        for utterance_id, pcm in said.items():
            await stream.say(pcm, utterance_id)
        await stream.until("started")
        yield Call(stack, emulator, gateway, settings, caller, attachment, stream, said)


async def _pause_once(dialect: str, trouble: str, rng: random.Random) -> Figures:
    async with _speaking(dialect, rng) as call:
        await asyncio.sleep(rng.uniform(*_BEFORE_S))
        session_id = call.attachment.session_id
        asked_s = time.monotonic()
        pause = p.PauseSessionRequest(session_id=session_id, pause=p.Pause(utterance_id="long"))
        paused = (await call.caller.sessions.PauseSession(pause, timeout=10)).result
        recording = await call.recording()
        silent_s = recording["started_mono_s"] + recording["interrupts"][-1]["effective_at_s"]
        before = await call.played()
        until_s = time.monotonic() + _PAUSE_S
        await TROUBLES[trouble](call)
        await asyncio.sleep(until_s - time.monotonic())
        spoken_meanwhile = await call.played() != before
        continued = p.ContinueSessionRequest(session_id=session_id)
        result = (await call.caller.sessions.ContinueSession(continued, timeout=10)).result
        ended = [await call.stream.until("ended") for _ in call.said]
        await call.caller.end(session_id)
        parts = await call.played()
        after = parts[len(before) :]
        wrong = _wrong(call.said, before, after)
        repeated_s = max(0, sum(map(len, [*before, *after[:1]])) - len(call.said["long"])) / BYTE_RATE
        if not paused.paused or paused.utterance_id != "long" or not result.was_paused:
            wrong.append("the pause had no effect")
        if spoken_meanwhile:
            wrong.append("the avatar spoke during the pause")
        if [one.utterance_id for one in ended] != list(call.said):
            wrong.append("the utterances ended in another order")
        if any(one.outcome != audio_pb2.UTTERANCE_OUTCOME_COMPLETED for one in ended):
            wrong.append("an utterance was not completed")
        if repeated_s > result.repeated.ToTimedelta().total_seconds() + _RANGE_S:
            wrong.append(f"{repeated_s:.2f} s were repeated, more than the gateway says")
        silent_after_s = silent_s - asked_s
        if silent_after_s > MAX_SILENCE_S:
            wrong.append(f"silent after {silent_after_s:.2f} s")
        return Figures(
            name=f"{dialect}, {trouble}",
            silent_after_s=silent_after_s,
            repeated_s=repeated_s,
            wrong=tuple(wrong),
        )


def _wrong(said: dict[str, bytes], before: list[bytes], after: list[bytes]) -> list[str]:
    """Compare what LiveAvatar played before and after a pause with what was said."""
    found = []
    whole, first = said["long"], b"".join(before)
    if not whole.startswith(first):
        found.append("the part before the pause is not the beginning")
    if not after:
        return [*found, "nothing was played after the pause"]
    rest, queued = after[0], after[1:]
    if not whole.endswith(rest):
        found.append("the part after the pause is not the rest")
    if (lost := len(whole) - len(rest) - len(first)) > 0:
        found.append(f"{lost} bytes were lost")
    if queued != [pcm for utterance_id, pcm in said.items() if utterance_id != "long"]:
        found.append("the utterances behind were not played once, whole and in order")
    return found


async def _run(setting: Setting) -> Outcome:
    rng = random.Random(setting.seed)
    plan = {dialect: list(TROUBLES) for dialect in DIALECTS}
    if not setting.long:
        # Each trouble once, each in another dialect.
        order = rng.sample(list(TROUBLES), len(TROUBLES))
        plan = {dialect: [trouble] for dialect, trouble in zip(DIALECTS, order, strict=True)}

    async def in_dialect(dialect: str, seed: int) -> list[Figures]:
        own = random.Random(seed)
        return [await _pause_once(dialect, trouble, own) for trouble in plan[dialect]]

    found = await asyncio.gather(*(in_dialect(dialect, rng.getrandbits(32)) for dialect in DIALECTS))
    figures = [one for several in found for one in several]
    wrong = [f"{one.name}: {problem}" for one in figures for problem in one.wrong]
    slowest = max(one.silent_after_s for one in figures)
    return Outcome(
        figure="; ".join(
            [
                f"{len(figures)} pauses, {_QUEUED} utterances behind each",
                f"silent after at most {slowest * 1000:.0f} ms",
                f"{sum(bool(one.wrong) for one in figures)} wrong",
                *wrong[:3],
            ]
        ),
        passed=not wrong,
        details=tuple(
            f"{one.name.ljust(24)}  silent after {one.silent_after_s * 1000:4.0f} ms, "
            f"{one.repeated_s * 1000:4.0f} ms heard again"
            for one in figures
        ),
    )


PAUSES: Final = Line(
    name="pauses",
    goal=f"silent within {MAX_SILENCE_S:g} s, then the rest once, 0 lost; in each dialect and trouble",
    run=_run,
    measures_time=True,
)
