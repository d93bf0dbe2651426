"""A turn is read while it grows, by several readers, and whole."""

import asyncio
from datetime import timedelta

from unit.client.users import BEGAN

from liveavatar.gateway import AsyncUserTurn, AudioFormat, TurnEnd, TurnRules, TurnVerdict
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.turn_interrupts import TurnJudge
from liveavatar.gateway.user_turn import TurnState


def made() -> tuple[TurnState, AsyncUserTurn, list[int]]:
    counted: list[int] = []
    judge = TurnJudge(TurnRules(), None, is_cutting_in=False)
    state = TurnState("ann", BEGAN, judge, Condition(), lambda _, count: counted.append(count))
    return state, AsyncUserTurn(state), counted


async def test_a_turn_says_who_spoke_when_and_how_long():
    state, turn, counted = made()
    state.append(bytes(16_000))
    assert (turn.participant, turn.started_at, turn.end, turn.interrupted) == ("ann", BEGAN, None, None)
    assert (turn.duration, turn.format) == (timedelta(seconds=0.5), AudioFormat(sample_rate_hz=16_000))
    assert (turn.verdict, turn.audio) == (TurnVerdict.OPEN, bytes(16_000))
    assert repr(turn) == "<AsyncUserTurn ann 0.50 s open>"
    state.finish(TurnEnd.SILENCE)
    assert repr(turn) == "<AsyncUserTurn ann 0.50 s silence>"
    turn.report_words(3)
    assert counted == [3]


async def test_each_reader_gets_the_whole_turn_from_its_beginning():
    state, turn, _ = made()
    state.append(b"ab")

    async def read() -> bytes:
        return b"".join([chunk async for chunk in turn])

    early, whole = asyncio.create_task(read()), asyncio.create_task(turn.complete())
    await asyncio.sleep(0)
    state.append(b"cd")
    late = asyncio.create_task(read())
    state.condition.notify()
    await asyncio.sleep(0)
    assert not early.done()
    state.finish(TurnEnd.SILENCE)
    state.condition.notify()
    assert [await task for task in (early, late, whole)] == [b"abcd"] * 3
