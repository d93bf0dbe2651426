"""Checks of warm sessions: regular, few at once, and none on top of one that still waits."""

import asyncio

import pytest

from liveavatar_gateway.auth.limiter import Limiter
from liveavatar_gateway.core import messages as m
from liveavatar_gateway.sessions.reservations import Reservations
from liveavatar_gateway.sessions.warm_checks import WarmChecks, WarmChecksConfig
from testkit.warmth import spec, until, warm_world


class Session:
    """Takes part in checks, each of which lasts until the test lets LiveAvatar answer."""

    id = "warm"

    def __init__(self, answers: asyncio.Event, *, fails: bool = False) -> None:
        self.begun = 0
        self._answers = answers
        self._fails = fails

    async def check(self) -> None:
        self.begun += 1
        if self._fails:
            raise RuntimeError
        await self._answers.wait()


@pytest.fixture
async def world():
    async with warm_world() as found:
        yield found


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_while_liveavatar_is_slow_few_checks_wait_and_no_new_ones_begin(world):
    answers = asyncio.Event()
    sessions = [Session(answers) for _ in range(20)]
    checks = WarmChecks(WarmChecksConfig(), world.pool, lambda: {"desk": sessions[:10], "hall": sessions[10:]})
    for _ in range(3):
        checks.begin()
        await turns()
    assert sum(one.begun for one in sessions) == 8
    answers.set()
    await until(lambda: all(one.begun == 1 for one in sessions))
    await world.pool.settle()
    checks.begin()
    await until(lambda: all(one.begun == 2 for one in sessions))


async def test_a_fault_with_one_session_leaves_the_checks_of_the_others(world):
    answers = asyncio.Event()
    answers.set()
    sessions = [Session(answers, fails=True), Session(answers)]
    checks = WarmChecks(WarmChecksConfig(check_s=0.0), world.pool, lambda: {"desk": sessions})
    running = asyncio.create_task(checks.run())
    await until(lambda: sessions[1].begun == 2)
    running.cancel()
    await asyncio.wait([running])
    await world.pool.settle()


async def test_a_reservation_that_cannot_speak_is_lost(world):
    reservations = Reservations(world.services, Limiter(lambda _: None), world.metrics)
    made = await reservations.prepare(spec(), "", tenant="acme", hold_s=60.0, wait_s=None)
    await until(lambda: made.warm.is_usable)
    checks = WarmChecks(WarmChecksConfig(), world.pool, lambda: {"": reservations.sessions})
    checks.begin()
    await until(lambda: m.Probe() in world.pool.upstreams[0].sockets[0].commands)
    await world.pool.settle()
    checks.begin()
    await until(lambda: world.pool.upstreams[0].end == "closed")
    reservations.close()
    await world.pool.settle()
