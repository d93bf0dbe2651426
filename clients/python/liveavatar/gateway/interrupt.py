"""Barge-in across two streams: what waits here, what is on its way, and what is being spoken."""

import contextlib
from collections.abc import Awaitable, Callable

from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import UtteranceNotFound
from liveavatar.gateway.model import Interruption, Outcome, OutcomeKind
from liveavatar.gateway.speech import Speech
from liveavatar.gateway.timeouts import timeout
from liveavatar.gateway.utterance import UtteranceState

SETTLE_S = 5.0
"""How long the ends of what was cut are waited for; they come with the next message of either stream."""

Ask = Callable[[str], Awaitable[Interruption]]
"""Sends the interrupt command for an utterance id, or for none."""


async def interrupt(speech: Speech, ask: Ask, changes: Condition, utterance_id: str) -> Interruption:
    """Silence one utterance, or all.

    The command travels on the control stream and may overtake audio, which is the point of it. An utterance it
    overtook as a whole is unknown to the gateway then, and is cut as soon as the gateway knows it.

    Raises:
        UtteranceNotFound: the session never had it.
        GatewayError: the session is over.
    """
    with speech.silencing(utterance_id) as turns:
        on_wire = [turn for turn in turns if turn.outcome is None]
        cut: dict[str, Outcome] = {}
        # An utterance that waited here was dropped, and the gateway has never heard of it.
        if not utterance_id or not turns:
            cut = _by_id(await ask(utterance_id))
        for turn in on_wire:
            if turn.id not in cut:
                cut |= await _silence(turn, ask, changes)
        await _settled(changes, lambda: all(turn.outcome for turn in on_wire))
        for turn in turns:
            if turn.outcome is not None and turn.outcome.kind is OutcomeKind.INTERRUPTED:
                cut.setdefault(turn.id, turn.outcome)
    return Interruption(interrupted=tuple(cut.values()))


async def _silence(turn: UtteranceState, ask: Ask, changes: Condition) -> dict[str, Outcome]:
    if turn.outcome is not None:
        return {}
    try:
        return _by_id(await ask(turn.id))
    except UtteranceNotFound:
        # One that is still open is cancelled on its own stream, behind its audio; one that is sealed is not.
        await _settled(changes, lambda: turn.taken or turn.outcome)
    if turn.outcome is not None or not turn.taken:
        return {}
    return _by_id(await ask(turn.id))


async def _settled(changes: Condition, condition: Callable[[], object]) -> None:
    """Wait for what should come in a moment; the outcome comes later if it does not."""
    with contextlib.suppress(TimeoutError):
        async with timeout(SETTLE_S):
            await changes.until(condition)


def _by_id(interruption: Interruption) -> dict[str, Outcome]:
    return {outcome.utterance_id: outcome for outcome in interruption.interrupted}
