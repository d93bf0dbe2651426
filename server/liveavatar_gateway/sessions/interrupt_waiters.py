"""Callers that wait for the result of an interrupt."""

import asyncio
from collections.abc import Sequence

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.events import UtteranceEnded


class InterruptWaiters:
    """Pending results of interrupts, by the id that the state machine gave each interrupt."""

    def __init__(self) -> None:
        self._results: dict[int, asyncio.Future[Sequence[UtteranceEnded]]] = {}

    def expect(self, interrupt_id: int) -> asyncio.Future[Sequence[UtteranceEnded]]:
        """Return the future result of an interrupt: the utterances that it ended."""
        result: asyncio.Future[Sequence[UtteranceEnded]] = asyncio.get_running_loop().create_future()
        result.add_done_callback(lambda _: self._results.pop(interrupt_id, None))
        self._results[interrupt_id] = result
        return result

    def resolve(self, interrupt_id: int, ended: Sequence[UtteranceEnded]) -> None:
        """Pass the result of an interrupt to its caller, if that still waits."""
        result = self._results.get(interrupt_id)
        if result is not None and not result.done():
            result.set_result(ended)

    def fail_all(self, error: GatewayError) -> None:
        """Fail every pending result."""
        for result in self._results.values():
            if not result.done():
                result.set_exception(error)
