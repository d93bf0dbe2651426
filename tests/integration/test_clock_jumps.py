"""The wall clock is for people alone; no behaviour depends on it."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from liveavatar.gateway.v1 import audio_pb2
from testkit import processes, speech
from testkit.caller import Caller
from testkit.caller import caller as connect
from testkit.clock import WallClock

HOUR_S = 3600
GRACE_S = 5


async def _ahead(caller: Caller) -> timedelta:
    """Return the gateway's date minus ours, from the creation time of a new session."""
    session = (await caller.create()).session
    await caller.end(session.id)
    return session.created_at.ToDatetime(UTC) - datetime.now(UTC)


async def _jumped(caller: Caller, offset_s: float) -> None:
    """Wait until the gateway has seen it."""
    for _ in range(50):
        if (await _ahead(caller)).total_seconds() == pytest.approx(offset_s, abs=60):
            return
        await asyncio.sleep(0.2)
    raise AssertionError("the clock did not jump")


async def test_a_session_lives_on_while_the_wall_clock_jumps_an_hour_ahead_and_back(emulator, tmp_path):
    clock = WallClock(tmp_path / "clock")
    with processes.gateway(emulator.url, clock=clock, detach_grace_s=GRACE_S) as gateway:
        async with connect(gateway.address) as caller:
            attached = await caller.attach()
            await attached.until_ready()
            stream = await caller.speak(attached.session_id)
            for number, offset_s in enumerate((HOUR_S, -HOUR_S, 0)):
                pcm = speech.sound(1.5, seed=number)
                await stream.begin(str(number))
                await stream.chunk(pcm[: len(pcm) // 2], 0)
                clock.jump(offset_s)
                await _jumped(caller, offset_s)
                await stream.say_on(pcm, len(pcm) // 2)
                assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
                heard = await asyncio.to_thread(emulator.utterance_audio, attached.upstream_id, number)
                assert heard == pcm
                attached.call.cancel()
                await asyncio.sleep(0.5)
                resumed = await caller.resume(attached.opened.handle, skip_compacted=True)
                assert (resumed.session_id, resumed.upstream_id) == (attached.session_id, attached.upstream_id)
                attached = resumed
            await caller.end(attached.session_id)


@pytest.mark.parametrize("offset_s", [HOUR_S, -HOUR_S])
async def test_a_jump_of_the_wall_clock_neither_shortens_nor_prolongs_the_detach_grace(offset_s, tmp_path):
    clock = WallClock(tmp_path / "clock")
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, clock=clock, detach_grace_s=GRACE_S) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attached = await caller.attach()
            await attached.until_ready()
            attached.call.cancel()
            detached_s = time.monotonic()
            await asyncio.sleep(1)
            clock.jump(offset_s)
            await asyncio.to_thread(emulator.wait_active, 0, 30)
            assert time.monotonic() - detached_s >= GRACE_S - 0.5
