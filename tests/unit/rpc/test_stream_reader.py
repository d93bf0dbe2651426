"""A reader of a stream may stop at any time; gRPC's own read goes on until its call ends."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from liveavatar_gateway.rpc.stream_reader import each, first


class Caller:
    """A caller that sends what is put into `sent`; None closes its side."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[int | None] = asyncio.Queue()
        self.cancelled = False

    async def requests(self) -> AsyncIterator[int]:
        while True:
            try:
                request = await self.sent.get()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            if request is None:
                return
            yield request


async def _collect(requests: AsyncIterator[int], into: list[int]) -> None:
    async for request in each(requests):
        into.append(request)  # noqa: PERF401  what came is looked at while more is waited for


async def test_requests_come_in_their_order_until_the_caller_closes_its_side():
    caller, read = Caller(), []
    for request in (1, 2, 0, None):
        caller.sent.put_nowait(request)
    await _collect(caller.requests(), read)
    assert read == [1, 2, 0]


@pytest.mark.parametrize("last", [7, None])
async def test_a_reader_that_is_cancelled_leaves_the_read_under_it_alone(last):
    caller, read = Caller(), []
    reader = asyncio.create_task(_collect(caller.requests(), read))
    caller.sent.put_nowait(1)
    while not read:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])
    assert reader.cancelled()
    assert not caller.cancelled
    caller.sent.put_nowait(last)
    for _ in range(5):
        await asyncio.sleep(0)
    assert caller.sent.empty(), "the read did not end"
    assert read == [1]


async def test_a_first_message_that_came_while_the_process_stood_still_is_taken():
    sent: asyncio.Queue[int] = asyncio.Queue()
    reading = asyncio.create_task(first(sent.get(), 0.05))
    await asyncio.sleep(0)
    time.sleep(0.7)  # noqa: ASYNC251 - a suspended process
    await asyncio.sleep(0.01)
    sent.put_nowait(7)
    assert await reading == 7


async def test_the_error_of_a_first_read_that_fails_as_its_call_is_cancelled_is_taken(unretrieved):
    message = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(first(message, 10))
    await asyncio.sleep(0)
    message.set_exception(RuntimeError("the call is over"))
    reading.cancel()
    await asyncio.wait([reading])
    del message, reading
    assert await unretrieved() == []
