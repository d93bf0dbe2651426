"""Watch over tasks whose errors nobody takes."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest


@pytest.fixture
async def unretrieved() -> AsyncIterator[Callable[[], Awaitable[list[str]]]]:
    """Return the errors of tasks and futures that nobody took, once they have been collected."""
    loop = asyncio.get_running_loop()
    messages: list[str] = []
    loop.set_exception_handler(lambda _, found: messages.append(found["message"]))

    async def collected() -> list[str]:
        await asyncio.sleep(0)
        gc.collect()
        return messages

    yield collected
    loop.set_exception_handler(None)
