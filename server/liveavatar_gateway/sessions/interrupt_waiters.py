"""Callers that wait for the result of an interrupt, a pause or a continuation."""

import asyncio
from typing import Generic, TypeVar

from liveavatar_gateway.core.errors import GatewayError

_Result = TypeVar("_Result")


class InterruptWaiters(Generic[_Result]):
    """Pending results of calls that interrupt speech, by the id that the state machine gave each call."""

    def __init__(self) -> None:
        self._results: dict[int, asyncio.Future[_Result]] = {}

    def expect(self, call_id: int) -> asyncio.Future[_Result]:
        """Return the future result of a call."""
        result: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        result.add_done_callback(lambda _: self._results.pop(call_id, None))
        self._results[call_id] = result
        return result

    def resolve(self, call_id: int, found: _Result) -> None:
        """Pass the result of a call to its caller, if that still waits."""
        result = self._results.get(call_id)
        if result is not None and not result.done():
            result.set_result(found)

    def fail_all(self, error: GatewayError) -> None:
        """Fail every pending result."""
        for result in self._results.values():
            if not result.done():
                result.set_exception(error)
