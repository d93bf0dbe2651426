"""Orphaned utterances: another stream may continue them for a while."""

import asyncio
import time
from typing import Any

from liveavatar_gateway.sessions.orphaned_utterances import OrphanedUtterances


async def test_an_utterance_is_not_given_up_before_those_are_heard_who_came_while_the_process_stood_still():
    given_up: list[Any] = []
    orphans = OrphanedUtterances(grace_s=0.05, give_up=given_up.append)
    utterance, other = object(), object()
    orphans.add(utterance)
    orphans.add(other)
    time.sleep(0.7)  # noqa: ASYNC251 - a suspended process
    await asyncio.sleep(0.01)
    assert given_up == []
    orphans.take(utterance)
    async with asyncio.timeout(5):
        while not given_up:
            await asyncio.sleep(0.02)
    assert given_up == [other]
