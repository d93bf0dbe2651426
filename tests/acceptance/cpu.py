"""CPU time of a gateway, and the speech for which it is measured."""

import asyncio
import os
from pathlib import Path
from typing import Final

from testkit.caller import Caller

CHUNKS_PER_S: Final = 50
_CHUNK: Final = bytes(960)
"""20 ms of audio."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used so far, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


async def speak_in_chunks(caller: Caller, sessions: int, seconds: float) -> None:
    """Stream speech in chunks of 20 ms in real time, from several sessions."""

    async def one() -> None:
        created = await caller.create()
        speech = await caller.speak(created.session.id)
        await speech.begin("u")
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(int(seconds * CHUNKS_PER_S)):
            await speech.chunk(_CHUNK)
            await asyncio.sleep(max(0.0, began_s + number / CHUNKS_PER_S - loop.time()))
        await speech.end("u")
        await speech.until("ended")
        await caller.end(created.session.id)

    await asyncio.gather(*(one() for _ in range(sessions)))
