"""A process that stood still reads what arrived before it judges by the clock."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator

import pytest

from liveavatar_gateway.core.errors import UpstreamTimeout
from liveavatar_gateway.upstream.model import Minted
from liveavatar_gateway.upstream.rest import Rest, RestConfig
from liveavatar_gateway.upstream.standstill import STOOD_STILL_S, PatientTimer, patient_timeout, wait_patiently
from testkit.tcp import tcp_server

_SUSPENDED_S = STOOD_STILL_S + 0.3
_TIMEOUT_S = 2.0
"""Deadline of a call; a busy machine reaches the server well within it."""


async def test_a_timer_that_is_late_gives_a_moment_more_and_then_calls():
    called: list[float] = []
    PatientTimer(0.05, lambda: called.append(time.monotonic()))
    time.sleep(_SUSPENDED_S)  # noqa: ASYNC251 - a suspended process
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not called
    async with asyncio.timeout(5):
        while not called:
            await asyncio.sleep(0.01)


async def test_a_timer_in_time_calls_at_once_and_a_cancelled_one_never():
    called: list[str] = []
    PatientTimer(0.01, lambda: called.append("due"))
    PatientTimer(0.01, lambda: called.append("cancelled")).cancel()
    async with asyncio.timeout(5):
        while not called:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    assert called == ["due"]


async def test_a_time_that_is_over_raises():
    with pytest.raises(TimeoutError):
        async with patient_timeout(0.01):
            await asyncio.sleep(5)


async def test_what_is_done_while_the_process_wakes_up_is_done_in_time():
    waited = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(wait_patiently(waited, 0.05))
    await asyncio.sleep(0)
    time.sleep(_SUSPENDED_S)  # noqa: ASYNC251 - a suspended process
    await asyncio.sleep(0.01)
    waited.set_result(None)
    assert await waiting


async def test_what_is_not_done_goes_on():
    waited = asyncio.get_running_loop().create_future()
    assert not await wait_patiently(waited, 0.01)
    assert not waited.cancelled()


@contextlib.asynccontextmanager
async def answering(*, answers: bool) -> AsyncIterator[str]:
    """LiveAvatar's API; its answer to `/start` is in the kernel before the process that asks goes on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        await reader.readexactly(length)
        if answers:
            data = {"code": 1000, "data": {"ws_url": "wss://example.org/ws"}, "message": "ok"}
            body = json.dumps(data).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            await writer.drain()
            # The same process: what it stands still with is the answer on its way to itself.
            time.sleep(_TIMEOUT_S + _SUSPENDED_S)  # noqa: ASYNC251 - a suspended process
        else:
            await reader.read()

    async with tcp_server(serve) as address:
        yield f"http://{address}"


async def start(url: str) -> str:
    rest = Rest(RestConfig(base_url=url, timeout_s=_TIMEOUT_S), "key", rng=random.Random(1))
    try:
        return (await rest.start(Minted(session_id="up-1", token="t"))).ws_url
    finally:
        await rest.aclose()


async def test_an_answer_that_came_while_the_process_stood_still_is_taken():
    """A start that is given up is a session that is paid for in vain."""
    async with answering(answers=True) as url:
        assert await start(url) == "wss://example.org/ws"


async def test_a_call_without_an_answer_ends_in_time():
    async with answering(answers=False) as url:
        with pytest.raises(UpstreamTimeout):
            await start(url)
