"""Interrupts across both streams: utterances that wait in this process, are being sent, or are being spoken."""

import contextlib
from collections.abc import Awaitable, Callable

from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import UtteranceNotFound
from liveavatar.gateway.model import Interruption, Outcome, OutcomeKind
from liveavatar.gateway.speech import Speech
from liveavatar.gateway.timeouts import timeout
from liveavatar.gateway.utterance import UtteranceState

SETTLE_S = 5.0
"""Longest wait for the outcomes of interrupted utterances, which come with the next message of either stream."""

SendInterrupt = Callable[[str], Awaitable[Interruption]]
"""Sends the interrupt command, for an utterance id or for "", and returns the gateway's answer."""


async def interrupt_speech(
    speech: Speech, send: SendInterrupt, condition: Condition, utterance_id: str
) -> Interruption:
    """Interrupt one utterance, or all for the id "".

    The command travels on the Attach stream and may overtake audio, on purpose. The gateway does not know an
    utterance that the command overtook entirely, so a second command follows once the gateway knows it.

    Raises:
        GatewayError: the session is over.
        UtteranceNotFound: the session never had the utterance.
    """
    with speech.interrupting(utterance_id) as utterances:
        sent = [utterance for utterance in utterances if utterance.outcome is None]
        interrupted: dict[str, Outcome] = {}
        # The gateway does not know an utterance that was waiting here and was dropped.
        if not utterance_id or not utterances:
            interrupted = _by_id(await send(utterance_id))
        for utterance in sent:
            if utterance.id not in interrupted:
                interrupted |= await _interrupt_one(utterance, send, condition)
        await _wait_briefly(condition, lambda: all(utterance.outcome for utterance in sent))
        for utterance in utterances:
            if utterance.outcome is not None and utterance.outcome.kind is OutcomeKind.INTERRUPTED:
                known = interrupted.get(utterance.id)
                if known is None or not known.heard_text:
                    interrupted[utterance.id] = utterance.outcome
    return Interruption(interrupted=tuple(interrupted.values()))


async def _interrupt_one(
    utterance: UtteranceState, send: SendInterrupt, condition: Condition
) -> dict[str, Outcome]:
    if utterance.outcome is not None:
        return {}
    try:
        return _by_id(await send(utterance.id))
    except UtteranceNotFound:
        # An open utterance is also cancelled on its own stream, behind its audio; a sealed utterance is not.
        await _wait_briefly(condition, lambda: utterance.accepted or utterance.outcome)
    if utterance.outcome is not None or not utterance.accepted:
        return {}
    return _by_id(await send(utterance.id))


async def _wait_briefly(condition: Condition, predicate: Callable[[], object]) -> None:
    """Wait for a message that should come within `SETTLE_S`, and go on without the message after that time."""
    with contextlib.suppress(TimeoutError):
        async with timeout(SETTLE_S):
            await condition.until(predicate)


def _by_id(interruption: Interruption) -> dict[str, Outcome]:
    return {outcome.utterance_id: outcome for outcome in interruption.interrupted}
