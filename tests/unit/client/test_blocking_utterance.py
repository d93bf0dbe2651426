import asyncio
from datetime import timedelta

import pytest

from liveavatar.gateway import AsyncUtterance, DeadlineExceeded, Outcome, OutcomeKind, Progress, Utterance
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.portal import Portal
from liveavatar.gateway.utterance import UtteranceState

OUTCOME = Outcome(utterance_id="u", kind=OutcomeKind.PLAYED, played=timedelta(seconds=1))


@pytest.fixture
def portal():
    with_loop = Portal()
    yield with_loop
    with_loop.close()


@pytest.fixture
def state(portal):
    return portal.run(lambda: UtteranceState("u", None, Condition()))


@pytest.fixture
def utterance(portal, state):
    async def interrupt(utterance_id):
        state.finish(OUTCOME)

    return Utterance(AsyncUtterance(state, state._condition, interrupt), portal)


def test_a_result_that_does_not_come_in_time_leaves_the_utterance_alone(utterance):
    with pytest.raises(DeadlineExceeded):
        utterance.result(timeout=0.01)
    assert (utterance.id, utterance.outcome) == ("u", None)


def test_the_result_is_waited_for(portal, state, utterance):
    portal.run(lambda: asyncio.get_running_loop().call_later(0.01, state.finish, OUTCOME))
    assert utterance.result(timeout=10) == OUTCOME
    assert not utterance.started()


def test_progress_is_iterated_over_to_the_end(portal, state, utterance):
    updates = utterance.progress_updates(timeout=10)
    assert next(updates) == Progress()
    portal.run(lambda: state.accept(Progress(received_bytes=2)))
    portal.run(lambda: state.finish(OUTCOME))
    assert [progress.received_bytes for progress in updates] == [2]


def test_an_interrupt_returns_the_outcome(utterance):
    assert utterance.interrupt(timeout=10) == OUTCOME
