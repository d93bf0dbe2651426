import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from liveavatar.gateway import AsyncUtterance, ConnectionLost, Interruption, Outcome, OutcomeKind, Progress, Word
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.utterance import PHASE_TRANSITIONS, Phase, Reception, Stop, UtteranceState
from liveavatar.gateway.words import SpokenText

LOST = ConnectionLost("lost")


@pytest.fixture
async def state():
    return UtteranceState("u", None, Condition())


def outcome(kind=OutcomeKind.PLAYED):
    return Outcome(utterance_id="u", kind=kind, played=timedelta(seconds=1))


@pytest.mark.parametrize(("before", "after"), [*itertools.product(Phase, Phase)])
async def test_a_phase_follows_only_where_the_table_says(state, before, after):
    state.phase = before
    {Phase.QUEUED: state.requeue, Phase.OPEN: state.begin, Phase.SEALED: state.seal, Phase.ENDED: state.drop}[
        after
    ]()
    assert state.phase is (after if after in PHASE_TRANSITIONS[before] else before)


async def test_an_utterance_that_was_begun_before_is_resumed(state):
    assert not state.begin()
    state.seal()
    assert state.begin()
    state.requeue()
    assert not state.begin()


async def test_the_reception_only_increases(state):
    assert (state.reception, state.accepted, state.started) == (Reception.UNKNOWN, False, False)
    state.accept(Progress(received_bytes=4))
    assert (state.accepted, state.started) == (True, False)
    state.start()
    state.accept()
    assert (state.accepted, state.started, state.progress.received_bytes) == (True, True, 4)


async def test_the_first_outcome_wins(state):
    state.finish(outcome())
    state.finish(outcome(OutcomeKind.INTERRUPTED))
    state.fail(LOST)
    assert (state.outcome, state.phase, state.stop) == (outcome(), Phase.ENDED, Stop.CANCEL)


async def test_the_first_reason_to_stop_and_the_newest_failure_win(state):
    state.stop_sending(Stop.END, LOST)
    newer = ConnectionLost("newer")
    state.stop_sending(Stop.CANCEL, newer)
    assert (state.stop, state.failure) == (Stop.END, newer)


async def test_a_failure_makes_any_outcome_a_failure(state):
    state.stop_sending(Stop.END, LOST)
    state.finish(outcome())
    assert (state.outcome.kind, state.outcome.error, state.outcome.played) == (
        OutcomeKind.FAILED,
        LOST,
        timedelta(seconds=1),
    )


async def test_an_interruption_that_nobody_asked_for_after_the_loss_of_the_stream_is_that_loss(state):
    state.orphan(LOST)
    state.finish(outcome(OutcomeKind.INTERRUPTED))
    assert (state.outcome.kind, state.outcome.error) == (OutcomeKind.FAILED, LOST)


async def test_the_outcome_by_events_is_taken_when_the_stream_is_lost(state):
    state.report(outcome())
    state.fail(LOST)
    assert state.outcome == outcome()


async def test_without_a_report_the_loss_is_the_outcome(state):
    state.accept(Progress(played=timedelta(seconds=2)))
    state.fail(LOST)
    assert (state.outcome.error, state.outcome.played) == (LOST, timedelta(seconds=2))


class Interrupts:
    def __init__(self, state):
        self.state, self.ids = state, []

    async def __call__(self, utterance_id):
        self.ids.append(utterance_id)
        self.state.finish(outcome(OutcomeKind.INTERRUPTED))
        return Interruption(interrupted=())


async def test_the_callers_object_follows_the_state(state):
    condition = state._condition
    utterance = AsyncUtterance(state, condition, Interrupts(state))
    assert repr(utterance) == "<AsyncUtterance u queued>"
    waiting = asyncio.create_task(utterance.started())
    updates = []

    async def follow():
        updates.extend([progress.received_bytes async for progress in utterance.progress_updates()])

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    state.accept(Progress(received_bytes=2))
    state.start()
    assert await waiting
    state.finish(outcome())
    await following
    assert updates == [0, 2]
    assert await utterance == outcome()
    assert repr(utterance) == "<AsyncUtterance u played>"


async def test_an_interrupt_is_sent_once_and_not_after_the_end(state):
    interrupts = Interrupts(state)
    utterance = AsyncUtterance(state, state._condition, interrupts)
    assert (await utterance.interrupt()).kind is OutcomeKind.INTERRUPTED
    await utterance.interrupt()
    assert interrupts.ids == ["u"]


async def test_a_failed_utterance_raises_its_reason(state):
    utterance = AsyncUtterance(state, state._condition, Interrupts(state))
    state.fail(LOST)
    with pytest.raises(ConnectionLost, match="lost"):
        await utterance


async def test_a_pause_shows_until_its_end_or_that_of_the_utterance(state):
    state.pause(paused=True)
    assert state.paused
    state.pause(paused=False)
    assert not state.paused
    state.pause(paused=True)
    state.finish(outcome())
    state.pause(paused=True)
    assert not state.paused


@pytest.mark.parametrize(("kind", "heard"), [(OutcomeKind.PLAYED, "one two "), (OutcomeKind.INTERRUPTED, "one ")])
async def test_an_end_without_text_gets_that_of_the_words(kind, heard):
    state = UtteranceState("u", None, Condition(), SpokenText([Word("one ", 0, 0.5), Word("two ", 1.0, 2.0)]))
    state.finish(outcome(kind))
    assert state.outcome.heard_text == heard


async def test_the_text_of_the_gateway_counts_where_it_has_one():
    state = UtteranceState("u", None, Condition(), SpokenText([Word("one ", 0, 0.5)]))
    state.finish(replace(outcome(), heard_text="other"))
    assert state.outcome.heard_text == "other"
