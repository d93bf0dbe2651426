"""Readers of a stream that may end before its caller has sent everything.

grpc.aio loses about 100 bytes for each read that is cancelled, forever, and each of those keeps a page of memory
from being used again. So a read of gRPC is never cancelled, and ends with its call.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final, TypeVar

from liveavatar_gateway.core.errors import FirstMessageTimeout
from liveavatar_gateway.upstream.standstill import wait_patiently

_Request = TypeVar("_Request")
_HALF_CLOSE_WAIT_S: Final = 0.5
"""Time for a caller to read the last message of a stream before the gateway closes the stream."""
_left: set[asyncio.Future[Any]] = set()
"""Abandoned reads, which end with their calls."""


async def first(reading: Awaitable[_Request], timeout_s: float) -> _Request:
    """Return the result of the first read of a call. Safe to cancel.

    Raises:
        FirstMessageTimeout: no message came in time. A silent call would live forever.
    """
    task = asyncio.ensure_future(reading)
    try:
        await wait_patiently(task, timeout_s)
    except asyncio.CancelledError:
        # Also if it has failed in the same moment, or its error would be logged as never retrieved.
        leave(task)
        raise
    if not task.done():
        leave(task)
        raise FirstMessageTimeout(timeout_s)
    try:
        return task.result()
    finally:
        # Its error refers to this frame, which would keep the request until the next garbage collection.
        del task


async def each(
    requests: AsyncIterator[_Request], *, first_within_s: float | None = None
) -> AsyncIterator[_Request]:
    """Yield one request after the other, until the caller has closed its side. Safe to cancel.

    Raises:
        FirstMessageTimeout: the first did not come within `first_within_s`; None waits without a limit.
    """
    if first_within_s is not None:
        request = await first(following(requests), first_within_s)
        if request is None:
            return
        yield request
    while True:
        reading = asyncio.ensure_future(following(requests))
        try:
            request = await asyncio.shield(reading)
        except asyncio.CancelledError:
            leave(reading)
            raise
        if request is None:
            return
        yield request


async def wait_for_half_close(reading: asyncio.Future[Any]) -> None:
    """Wait a moment for the caller to close its side, before the gateway closes the stream.

    A stream that the gateway closes first is reset behind its status. Some proxies (HAProxy 2.6) turn that reset
    into an error, and messages that the caller has not read by then are lost.
    """
    await asyncio.wait([reading], timeout=_HALF_CLOSE_WAIT_S)


def leave(reading: asyncio.Future[Any]) -> None:
    """Let a read, or a task that reads, end with its call; its result is ignored."""
    _left.add(reading)
    reading.add_done_callback(_forget)


async def following(requests: AsyncIterator[_Request]) -> _Request | None:
    """Return the next request; None once the caller has closed its side."""
    return await anext(requests, None)


def _forget(reading: asyncio.Future[Any]) -> None:
    _left.discard(reading)
    if not reading.cancelled():
        reading.exception()
