"""Turns of lists."""

import asyncio
import time

import pytest

from liveavatar_gateway.core.errors import TooManyCalls
from liveavatar_gateway.rpc.interceptors.list_turns import ListTurns


async def test_a_list_begins_after_the_period_of_the_one_before():
    turns = ListTurns(period_s=0.02)
    began_s = time.monotonic()
    await asyncio.gather(*[turns.take("a", "acme") for _ in range(4)])
    assert time.monotonic() - began_s >= 0.06


async def test_the_turn_after_a_large_answer_is_later():
    turns = ListTurns(period_s=0.001, bytes_per_s=1_000_000.0)
    began_s = time.monotonic()
    await turns.take("a", "acme")
    turns.answered(50_000)
    await turns.take("a", "acme")
    assert time.monotonic() - began_s >= 0.05


@pytest.mark.parametrize("other", [("b", "acme"), ("a", "other")])
async def test_waiting_lists_of_a_tenant_on_a_connection_are_bounded_and_those_of_others_not_refused(other):
    turns = ListTurns(period_s=10.0, max_waiting=2)
    await turns.take("a", "acme")
    waiting = [asyncio.create_task(turns.take("a", "acme")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyCalls) as refused:
        await turns.take("a", "acme")
    assert refused.value.metadata["scope"] == "waiting_lists"
    theirs = asyncio.create_task(turns.take(*other))
    await asyncio.sleep(0)
    assert not theirs.done()
    for task in (*waiting, theirs):
        task.cancel()
    await asyncio.wait([*waiting, theirs])
    again = asyncio.create_task(turns.take("a", "acme"))
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()
    await asyncio.wait([again])


async def test_a_list_that_is_given_up_leaves_its_place():
    turns = ListTurns(period_s=0.001, max_waiting=1)
    await turns.take("a", "acme")
    given_up = asyncio.create_task(turns.take("a", "acme"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    await turns.take("a", "acme")
