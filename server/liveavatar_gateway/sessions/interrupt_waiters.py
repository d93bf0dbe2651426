"""Barge-ins under way: each caller that cut something waits for LiveAvatar's answer."""

import asyncio

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.events import UtteranceEnded


class InterruptWaiters:
    """Numbers of interrupts, as the state machine gives them out, and who waits for which."""

    def __init__(self) -> None:
        self._answers: dict[int, asyncio.Future[list[UtteranceEnded]]] = {}

    def open(self, ticket: int) -> asyncio.Future[list[UtteranceEnded]]:
        """Return what to wait for; from now on an answer is not lost."""
        answer: asyncio.Future[list[UtteranceEnded]] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: self._answers.pop(ticket, None))
        self._answers[ticket] = answer
        return answer

    def answer(self, ticket: int, ended: list[UtteranceEnded]) -> None:
        """Hand out what was cut, if somebody still waits for it."""
        answer = self._answers.get(ticket)
        if answer is not None and not answer.done():
            answer.set_result(ended)

    def fail_all(self, error: GatewayError) -> None:
        """Nobody here will know what was cut."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
