"""Memory of ended sessions is released: a gateway that serves for weeks does not grow."""

import asyncio
from pathlib import Path

import pytest

from testkit import processes
from testkit.caller import Caller
from testkit.caller import caller as connect

MB = 1_000_000


def _rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


async def churn(caller: Caller, count: int, *, at_once: int = 20) -> None:
    """Open and end sessions."""

    async def some() -> None:
        for _ in range(count // at_once):
            created = await caller.create()
            await caller.end(created.session.id)

    await asyncio.gather(*(some() for _ in range(at_once)))


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_memory_of_sessions_that_ended_is_given_back(record_property):
    """An ended session is objects that refer to each other: uncollected, 1600 of them are 9 MB."""
    with (
        processes.emulator(credits=1_000_000) as emulator,
        processes.gateway(emulator.url, retention_s=0, fresh=True) as gateway,
    ):
        async with connect(gateway.address) as caller:
            pid = gateway.process.pid
            await churn(caller, 400)
            before = _rss_bytes(pid)
            await churn(caller, 1_600)
            grown = _rss_bytes(pid) - before
    record_property("figure", f"1600 sessions opened and ended: RSS grew by {grown / MB:.1f} MB")
    assert grown < 4 * MB
