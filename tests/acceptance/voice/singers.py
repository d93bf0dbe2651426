"""Users of many rooms in a process of their own: each gives a short chime every two seconds.

Reads the URL and the tokens as a line of JSON from stdin, and prints "ready" once all are in their rooms. At the
end of stdin the times of their chimes are printed as a line of JSON, and they leave.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Final

import click
import numpy as np
from livekit import rtc

from testkit.voices import RATE_HZ, speaking

PERIOD_S: Final = 2.0
CHIME_HZ: Final = 1_000
_CHIME_S: Final = 0.1
_LEAVE_TIMEOUT_S: Final = 5.0
_FRAME_S: Final = 0.1
"""Long frames: these users are to cost little beside the gateway that is measured."""


def chime() -> np.ndarray:
    """Return the sound; its first samples are loud, so that its beginning is found to the sample."""
    times = np.arange(round(_CHIME_S * RATE_HZ)) / RATE_HZ
    return np.cos(2 * np.pi * CHIME_HZ * times) * 16_000


async def _sing(
    url: str, token: str, identity: str, ready: asyncio.Semaphore, chimes: dict[str, list[float]]
) -> None:
    room = rtc.Room()
    await room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
    try:
        async with speaking(room, frame_s=_FRAME_S) as voice:
            ready.release()
            sound = chime()
            while True:
                spoken = await voice.say(sound)
                chimes.setdefault(identity, []).append(spoken.at(0.0))
                await asyncio.sleep(PERIOD_S - _CHIME_S)
    finally:
        await room.disconnect()


async def _main(url: str, tokens: Mapping[str, str]) -> None:
    ready, chimes = asyncio.Semaphore(0), dict[str, list[float]]()
    singers = [
        asyncio.create_task(_sing(url, token, identity, ready, chimes)) for identity, token in tokens.items()
    ]
    waiting = asyncio.gather(*(ready.acquire() for _ in singers))
    done, _ = await asyncio.wait([waiting, *singers], return_when=asyncio.FIRST_COMPLETED)
    for one in done:
        await one
    click.echo("ready")
    await asyncio.to_thread(sys.stdin.read)
    click.echo(json.dumps(chimes))
    for singer in singers:
        singer.cancel()
    await asyncio.wait(singers, timeout=_LEAVE_TIMEOUT_S)


if __name__ == "__main__":
    order = json.loads(sys.stdin.readline())
    asyncio.run(_main(order["url"], order["tokens"]))
