import asyncio

import pytest

from liveavatar.gateway.condition import Condition


async def test_everyone_who_waits_is_woken_once():
    changes = Condition()
    waiting = [asyncio.create_task(changes.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    changes.notify()
    await asyncio.gather(*waiting)
    again = asyncio.create_task(changes.wait())
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


async def test_a_condition_is_looked_at_after_every_change():
    changes, seen = Condition(), []
    waiting = asyncio.create_task(changes.until(lambda: len(seen) == 2))
    for number in range(2):
        await asyncio.sleep(0)
        assert not waiting.done()
        seen.append(number)
        changes.notify()
    await waiting


async def test_a_true_condition_does_not_wait():
    await Condition().until(lambda: True)


async def test_one_who_stops_waiting_is_forgotten():
    changes = Condition()
    waiting = asyncio.create_task(changes.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not changes._waiting
    changes.notify()
