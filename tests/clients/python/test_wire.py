"""The network between client and gateway fails under a conversation."""

import asyncio
from datetime import timedelta

import pytest
from clients.python.wire import wire_to
from harness.caller import AVATAR
from harness.speech import sound

from liveavatar.gateway import (
    AsyncClient,
    ConnectionLost,
    SessionState,
    UtteranceEndedEvent,
    UtteranceStartedEvent,
)


@pytest.fixture
async def wire(emulator, shared_gateway):
    async with wire_to(shared_gateway.address) as found:
        yield found


async def test_a_cut_wire_costs_no_event_and_no_sealed_utterance(wire):
    """What was sent in full is spoken, and its end is told when the connection is back."""
    async with AsyncClient(wire.address) as client, client.open_session(AVATAR) as session:
        utterance = session.say(sound(2))
        async for progress in utterance.progress_updates():
            if progress.received_bytes == 96_000 and progress.played:
                break
        wire.cut()
        outcome = await utterance
        assert outcome.kind == "played"
        assert outcome.played == timedelta(seconds=2)
        assert (await session.say(sound(0.3))).kind == "played"
        await session.end()
        events = [event async for event in session.events()]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert sum(isinstance(event, UtteranceStartedEvent) for event in events) == 2
        assert sum(isinstance(event, UtteranceEndedEvent) for event in events) == 2
        assert wire.connection_count == 2


async def test_an_utterance_that_was_being_sent_fails_with_what_was_heard(wire):
    async def endless():
        while True:
            yield sound(0.1)
            await asyncio.sleep(0.05)

    async with AsyncClient(wire.address) as client, client.open_session(AVATAR) as session:
        utterance = session.say(endless())
        waiting = session.say(sound(0.3))
        async for progress in utterance.progress_updates():
            if progress.played > timedelta(seconds=0.3):
                break
        wire.cut()
        with pytest.raises(ConnectionLost):
            await utterance
        assert utterance.outcome is not None
        assert utterance.outcome.played > timedelta(seconds=0.3)
        # The next in line never knew.
        assert (await waiting).kind == "played"


async def test_commands_wait_for_a_wire_that_comes_back(wire):
    async with AsyncClient(wire.address) as client, client.open_session(AVATAR) as session:
        await session.ready()
        wire.cut(stay_down=True)
        command = asyncio.create_task(session.start_listening())
        while session.connected:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert not command.done()
        wire.mend()
        await command
        assert session.connected


async def test_a_session_outside_its_grace_is_over_when_the_wire_is_back(wire):
    """The gateway has ended it, and says so."""
    async with AsyncClient(wire.address) as client:
        session = await client.open_session(AVATAR, detach_grace=0.2).open()
        await session.ready()
        wire.cut(stay_down=True)
        with pytest.raises(ConnectionLost):
            await session.start_listening()
        wire.mend()
        record = await session.end()
        assert record.state is SessionState.ENDED
        assert session.state is SessionState.ENDED


async def test_a_wire_cut_again_and_again_loses_nothing(wire):
    """Five cuts under a conversation of short utterances, each sent in full or told to have failed."""
    async with AsyncClient(wire.address) as client, client.open_session(AVATAR) as session:
        await session.ready()
        kinds = []
        for number in range(5):
            utterance = session.say(sound(0.4, seed=number))
            await asyncio.sleep(0.1 * number)
            wire.cut()
            try:
                kinds.append((await utterance).kind)
            except ConnectionLost:
                kinds.append("lost")
        assert set(kinds) <= {"played", "lost"}
        assert (await session.say(sound(0.2))).kind == "played"
        await session.end()
        events = [event async for event in session.events()]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
