import asyncio
import contextlib
from datetime import timedelta

import grpc

from liveavatar.gateway import Interruption, Outcome, OutcomeKind, UtteranceNotFound
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.interrupt import interrupt_speech
from liveavatar.gateway.utterance import UtteranceState


class Speech:
    """Speech with prepared utterances."""

    def __init__(self, *utterances):
        self.utterances = list(utterances)

    @contextlib.contextmanager
    def interrupting(self, utterance_id):
        yield [utterance for utterance in self.utterances if utterance_id in ("", utterance.id)]


def interrupted(utterance_id):
    return Outcome(utterance_id=utterance_id, kind=OutcomeKind.INTERRUPTED, played=timedelta(seconds=1))


def gateway(*utterances):
    """Answer commands for utterances that are accepted, and refuse others."""
    asked = []

    async def send(utterance_id):
        asked.append(utterance_id)
        known = [u for u in utterances if utterance_id in ("", u.id) and u.accepted]
        if utterance_id and not known:
            raise UtteranceNotFound("unknown", code=grpc.StatusCode.NOT_FOUND)
        for utterance in known:
            utterance.finish(interrupted(utterance.id))
        return Interruption(interrupted=tuple(interrupted(u.id) for u in known))

    return send, asked


async def test_all_speech_is_interrupted_by_one_command():
    condition = Condition()
    utterances = [UtteranceState(name, None, condition) for name in "ab"]
    for utterance in utterances:
        utterance.accept()
    send, asked = gateway(*utterances)
    result = await interrupt_speech(Speech(*utterances), send, condition, "")
    assert [outcome.utterance_id for outcome in result.interrupted] == ["a", "b"]
    assert asked == [""]


async def test_an_utterance_that_the_command_overtook_is_interrupted_once_the_gateway_knows_it():
    condition = Condition()
    utterance = UtteranceState("a", None, condition)
    send, asked = gateway(utterance)
    interrupting = asyncio.create_task(interrupt_speech(Speech(utterance), send, condition, "a"))
    while not asked:
        await asyncio.sleep(0)
    utterance.accept()
    result = await interrupting
    assert [outcome.utterance_id for outcome in result.interrupted] == ["a"]
    assert asked == ["a", "a"]


async def test_an_utterance_that_was_dropped_here_needs_no_command():
    condition = Condition()
    utterance = UtteranceState("a", None, condition)
    utterance.drop()
    send, asked = gateway(utterance)
    result = await interrupt_speech(Speech(utterance), send, condition, "a")
    assert [outcome.utterance_id for outcome in result.interrupted] == ["a"]
    assert not asked


async def test_an_unknown_utterance_is_for_the_gateway_to_refuse():
    send, asked = gateway()
    refused = None
    try:
        await interrupt_speech(Speech(), send, Condition(), "nobody")
    except UtteranceNotFound as error:
        refused = error
    assert refused is not None
    assert asked == ["nobody"]
