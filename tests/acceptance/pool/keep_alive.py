"""Idle sessions under an accelerated clock: none is reaped, and their keep-alives come in time, from one timer."""

import asyncio
import itertools
import random
import time
from collections.abc import Iterable
from typing import Any, Final

from acceptance.line import Line, Outcome, Setting
from liveavatar_gateway.upstream.keepalive import KeepAliveConfig, KeepAlives
from testkit import processes
from testkit.caller import Attachment, caller
from testkit.clock import HastenedClock

_SPEED: Final = 20.0
_LEAST_GAP_S, _MOST_GAP_S = 45.0, 75.0
_OPENINGS_AT_ONCE: Final = 10
_PATIENT: Final = {
    # All of the gateway's deadlines run 20 times as fast, while the machine does not.
    "ready_timeout_s": 120,
    "rest_timeout_s": 120,
    "connect_timeout_s": 120,
    "handshake_timeout_s": 120,
    "first_message_timeout_s": 300,
    "detach_grace_s": 300,
    "lease_s": 300,
    "wait_s": 600,
    "heartbeat_s": 0,
}


class _Target:
    """Idle session that takes each keep-alive at once."""

    def __init__(self) -> None:
        self.last_command_at_s = time.monotonic()

    def keep_alive(self) -> None:
        self.last_command_at_s = time.monotonic()


async def _timers_of(count: int) -> int:
    """Return how many timers the loop has for so many sessions."""
    loop: Any = asyncio.SelectorEventLoop()

    async def added() -> int:
        keep_alives = KeepAlives(KeepAliveConfig(), random.Random(1))
        before = sum(not timer.cancelled() for timer in loop._scheduled)
        for _ in range(count):
            keep_alives.add(_Target())
        return sum(not timer.cancelled() for timer in loop._scheduled) - before

    try:
        return await asyncio.to_thread(loop.run_until_complete, added())
    finally:
        loop.close()


def _gaps_s(recording: dict[str, Any]) -> Iterable[float]:
    """Return the times between the signs of life of a session, from its start on."""
    times_s = [0.0, *(one["at_s"] for one in recording["keepalives"])]
    return (later_s - earlier_s for earlier_s, later_s in itertools.pairwise(times_s))


async def _run(setting: Setting) -> Outcome:
    sessions, minutes = (200, 30) if setting.long else (50, 10)
    clock = HastenedClock(_SPEED)
    limits = {"concurrency": sessions, "max_duration_s": 86_400, "credits": 1_000_000}
    with (
        processes.emulator(clock=clock, **limits) as emulator,
        processes.gateway(emulator.url, clock=clock, max_sessions=sessions, **_PATIENT) as gateway,
    ):
        async with caller(gateway.address) as found:
            slots = asyncio.Semaphore(_OPENINGS_AT_ONCE)

            async def opened() -> Attachment:
                async with slots:
                    attachment = await found.attach()
                    await attachment.until_ready()
                return attachment

            attachments = await asyncio.gather(*(opened() for _ in range(sessions)))
            await asyncio.sleep(minutes * 60 / _SPEED)
            recordings = [emulator.session(attachment.upstream_id) for attachment in attachments]
            for attachment in attachments:
                attachment.call.cancel()
    reaped = sum(recording["end_reason"] is not None for recording in recordings)
    gaps_s = [gap_s for recording in recordings for gap_s in _gaps_s(recording)]
    shortest_s, longest_s = min(gaps_s, default=0.0), max(gaps_s, default=0.0)
    least_count = min(len(recording["keepalives"]) for recording in recordings)
    timers = await _timers_of(sessions)
    return Outcome(
        figure=f"{sessions} sessions for {minutes} min, {_SPEED:g} times as fast: {reaped} reaped, "
        f"{len(gaps_s)} gaps of {shortest_s:.1f} to {longest_s:.1f} s, at least {least_count} each; "
        f"{timers} timer for {sessions} sessions",
        passed=reaped == 0
        and shortest_s >= _LEAST_GAP_S
        and longest_s <= _MOST_GAP_S
        and least_count >= minutes * 60 / _MOST_GAP_S
        and timers == 1,
    )


KEEP_ALIVE: Final = Line(
    name="keep-alive",
    goal=f"no idle session reaped, gaps of {_LEAST_GAP_S:g} to {_MOST_GAP_S:g} s, one timer",
    run=_run,
    in_short=False,
    measures_time=True,
)
