"""Callers that wait for the answer to their interrupt."""

import asyncio
from collections.abc import Sequence

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.events import UtteranceEnded


class InterruptWaiters:
    """Waiting callers by the id that the state machine gave their interrupt."""

    def __init__(self) -> None:
        self._answers: dict[int, asyncio.Future[Sequence[UtteranceEnded]]] = {}

    def open(self, interrupt_id: int) -> asyncio.Future[Sequence[UtteranceEnded]]:
        """Return a future of the answer; from now on that is not lost."""
        answer: asyncio.Future[Sequence[UtteranceEnded]] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: self._answers.pop(interrupt_id, None))
        self._answers[interrupt_id] = answer
        return answer

    def answer(self, interrupt_id: int, ended: Sequence[UtteranceEnded]) -> None:
        """Give the ended utterances to the caller, if it still waits."""
        answer = self._answers.get(interrupt_id)
        if answer is not None and not answer.done():
            answer.set_result(ended)

    def fail_all(self, error: GatewayError) -> None:
        """Give an error to all waiting callers."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
