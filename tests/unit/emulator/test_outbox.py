"""Outbox of one socket: order, delays, limits, end."""

import pytest

from liveavatar_emulator.clock import ManualClock, RealClock
from liveavatar_emulator.outbox import OUTBOX_LIMIT, CloseFrame, Item, Outbox, is_ack
from liveavatar_emulator.states import OutboxState

ACK = b'{"type":"agent.audio_buffer_appended"}'
EVENT = b'{"type":"agent.state_updated"}'


def outbox(clock: ManualClock, released: list[bytes]) -> Outbox:
    return Outbox(clock, reset=lambda: None, on_release=released.append)


async def ready(box: Outbox) -> list[Item]:
    items: list[Item] = []
    while box._ready:
        items.append(await box.take())
    return items


def test_a_client_that_never_reads_is_cut_off():
    resets = []
    box = Outbox(RealClock(), reset=lambda: resets.append(True))
    for _ in range(OUTBOX_LIMIT + 2):
        box.put(b"{}")
    assert resets == [True]
    assert box.state is OutboxState.OVERFLOWED


def test_a_connection_that_a_fault_resets_did_not_overflow():
    box = Outbox(RealClock(), reset=lambda: None)
    box.put(b"{}")
    box.reset()
    assert box.state is OutboxState.RESET


async def test_nothing_follows_a_close_frame():
    box = Outbox(RealClock(), reset=lambda: None)
    box.put(CloseFrame(1000, ""))
    box.put(b"{}")
    box.put(CloseFrame(1001, ""))
    assert await ready(box) == [CloseFrame(1000, "")]


async def test_held_back_events_keep_their_order():
    clock, released = ManualClock(), []
    box = outbox(clock, released)
    box.put(b"1", delay_s=3)
    box.put(b"2", delay_s=1)
    box.put(b"3")
    box.put(CloseFrame(1000, ""))
    await clock.advance(2.9)
    assert released == []
    await clock.advance(0.1)
    assert await ready(box) == [b"1", b"2", b"3", CloseFrame(1000, "")]


async def test_held_back_acks_are_overtaken_by_everything_but_acks():
    clock, released = ManualClock(), []
    box = outbox(clock, released)
    box.put(ACK, ack_delay_s=1)
    box.put(EVENT)
    box.put(ACK)
    assert released == [EVENT]
    await clock.advance(1)
    assert released == [EVENT, ACK, ACK]


async def test_what_is_held_back_is_lost_with_the_connection():
    clock, released = ManualClock(), []
    box = outbox(clock, released)
    box.put(ACK, ack_delay_s=1)
    box.put(EVENT, delay_s=1)
    box.reset()
    await clock.advance(5)
    assert released == []


@pytest.mark.parametrize("kind", ["appended", "committed", "cleared"])
def test_acks_are_known_by_their_type(kind):
    assert is_ack(f'{{"type":"agent.audio_buffer_{kind}","event_id":"1"}}'.encode())
    assert not is_ack(EVENT)
