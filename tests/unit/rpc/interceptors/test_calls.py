"""Calls that a process has at once, and those that have not said anything."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from liveavatar_gateway.core.errors import TooManyCalls
from liveavatar_gateway.rpc.interceptors.calls import (
    CALLS,
    HEALTH_CALLS,
    WATCHES,
    CallLimitInterceptor,
    CallLimits,
    SilentCalls,
)
from liveavatar_gateway.telemetry.metrics import Metrics

SESSIONS = "liveavatar.gateway.v1.SessionService/"
HEALTH = "grpc.health.v1.Health/Watch"


async def limited(interceptor, method, behaviour):
    async def continuation(_):
        return grpc.stream_stream_rpc_method_handler(behaviour)

    handler = await interceptor.intercept_service(continuation, SimpleNamespace(method=f"/{method}"))
    return handler.stream_stream


@pytest.mark.parametrize(
    ("method", "others", "scope"),
    [
        (f"{SESSIONS}GetSession", [HEALTH, f"{SESSIONS}WatchSessions"], "calls"),
        (f"{SESSIONS}WatchSessions", [HEALTH, f"{SESSIONS}Attach"], "watches"),
        (HEALTH, [f"{SESSIONS}Attach", f"{SESSIONS}WatchSessions"], "health_calls"),
    ],
)
async def test_calls_of_each_kind_have_a_limit_of_their_own(method, others, scope):
    interceptor = CallLimitInterceptor(CallLimits(calls=1, watches=1, health_calls=1), Metrics(), SilentCalls(64))
    end = asyncio.Event()

    async def wait(_requests, _context):
        await end.wait()

    call = await limited(interceptor, method, wait)
    running = asyncio.create_task(call(None, None))
    await asyncio.sleep(0)
    with pytest.raises(TooManyCalls) as refused:
        await call(None, None)
    assert refused.value.metadata["scope"] == scope
    assert refused.value.retry_after_s
    end.set()
    for other in others:
        await (await limited(interceptor, other, wait))(None, None)
    await running
    await call(None, None)


class Silence:
    """Tasks that count as silent calls, at times of a test's own."""

    def __init__(self, limit: int) -> None:
        self.now_s = 0.0
        self.calls = SilentCalls(limit, clock=lambda: self.now_s)
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self, scope: str = CALLS) -> None:
        async def call() -> None:
            silent = self.calls.add(scope)
            try:
                await asyncio.Event().wait()
            finally:
                self.calls.discard(silent)

        self.tasks.append(asyncio.create_task(call()))
        await asyncio.sleep(0)

    def ended(self) -> list[bool]:
        return [task.done() for task in self.tasks]


async def test_above_the_limit_the_oldest_silent_calls_are_given_up():
    silence = Silence(2)
    for _ in range(2):
        await silence.open()
    silence.now_s = 2.0
    for _ in range(2):
        await silence.open()
    await asyncio.sleep(0)
    assert silence.ended() == [True, True, False, False]


async def test_a_silent_call_has_a_second_for_its_first_message():
    silence = Silence(1)
    silence.now_s = 10.0
    for _ in range(3):
        await silence.open()
    assert silence.ended() == [False, False, False]
    silence.now_s = 11.0
    async with asyncio.timeout(5):
        await asyncio.wait(silence.tasks[:2])
    assert silence.ended() == [True, True, False]


async def test_at_the_limit_of_calls_one_that_has_been_silent_for_a_moment_makes_room():
    silence = Silence(64)
    await silence.open()
    assert not silence.calls.make_room(CALLS)
    silence.now_s = 0.2
    assert silence.calls.make_room(CALLS)
    assert not silence.calls.make_room(CALLS)
    await asyncio.sleep(0)
    assert silence.ended() == [True]


async def test_a_silent_call_makes_room_for_calls_of_its_own_kind_alone():
    silence = Silence(64)
    for scope in (CALLS, HEALTH_CALLS, WATCHES):
        await silence.open(scope)
    silence.now_s = 0.2
    assert silence.calls.make_room(HEALTH_CALLS)
    assert not silence.calls.make_room(HEALTH_CALLS)
    await asyncio.sleep(0)
    assert silence.ended() == [False, True, False]


async def test_above_the_limit_the_oldest_is_given_up_of_whatever_kind():
    silence = Silence(2)
    for scope in (WATCHES, CALLS, HEALTH_CALLS):
        await silence.open(scope)
        silence.now_s += 1.0
    await silence.open(CALLS)
    async with asyncio.timeout(5):
        await asyncio.wait(silence.tasks[:2])
    assert silence.ended() == [True, True, False, False]


@pytest.mark.parametrize(
    ("method", "silent_scope", "room"),
    [
        (f"{SESSIONS}WatchSessions", CALLS, 0),
        (f"{SESSIONS}WatchSessions", WATCHES, 2),
        (HEALTH, CALLS, 0),
        (HEALTH, WATCHES, 0),
        (HEALTH, HEALTH_CALLS, 2),
        (f"{SESSIONS}GetSession", CALLS, 2),
    ],
)
async def test_silent_calls_of_another_kind_raise_no_limit(method, silent_scope, room):
    silence = Silence(64)
    limits = CallLimits(calls=2, watches=2, health_calls=2)
    interceptor = CallLimitInterceptor(limits, Metrics(), silence.calls)
    end = asyncio.Event()

    async def wait(_requests, _context):
        await end.wait()

    call = await limited(interceptor, method, wait)
    running = [asyncio.create_task(call(None, None)) for _ in range(2)]
    for _ in range(2):
        await silence.open(silent_scope)
    silence.now_s = 1.0
    later = [asyncio.create_task(call(None, None)) for _ in range(20)]
    await asyncio.sleep(0)
    assert sum(not task.done() for task in later) == room
    end.set()
    outcomes = await asyncio.gather(*running, *later, return_exceptions=True)
    assert sum(isinstance(outcome, TooManyCalls) for outcome in outcomes) == 20 - room
    assert sum(silence.ended()) == room
