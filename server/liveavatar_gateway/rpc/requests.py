"""Requests of a stream that may be over before its caller has said all.

grpc.aio loses about 100 bytes for each read that is cancelled, for ever, and each of those keeps a page of memory
from being used again. So gRPC's own reads are left to end with their calls.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

_Request = TypeVar("_Request")
_left: set[asyncio.Future[Any]] = set()
"""Reads that end with their calls."""


async def each(requests: AsyncIterator[_Request]) -> AsyncIterator[_Request]:
    """Give one request after the other, until the caller has closed its side. It may be cancelled."""
    while True:
        reading = asyncio.ensure_future(_next(requests))
        try:
            request = await asyncio.shield(reading)
        except asyncio.CancelledError:
            leave(reading)
            raise
        if request is None:
            return
        yield request


def leave(reading: asyncio.Future[Any]) -> None:
    """Let a read, or a task that reads, end by itself when its call is over; nobody is told what came of it."""
    _left.add(reading)
    reading.add_done_callback(_forget)


async def _next(requests: AsyncIterator[_Request]) -> _Request | None:
    return await anext(requests, None)


def _forget(reading: asyncio.Future[Any]) -> None:
    _left.discard(reading)
    if not reading.cancelled():
        reading.exception()
