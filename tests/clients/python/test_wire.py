"""The network between client and gateway fails under a conversation."""

import asyncio
import threading
from datetime import timedelta

import pytest
from clients.python.wire import wire_to

from liveavatar.gateway import (
    AsyncClient,
    Client,
    ConnectionLost,
    Event,
    ResumedEvent,
    SessionState,
    UtteranceEndedEvent,
    UtteranceStartedEvent,
)
from testkit.caller import AVATAR
from testkit.speech import sound


@pytest.fixture
async def wire(emulator, shared_gateway):
    async with wire_to(shared_gateway.address) as found:
        yield found


async def test_a_cut_wire_costs_no_event_and_no_sealed_utterance(wire):
    """An utterance sent in full is spoken, and its end is reported when the connection is back."""
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
        events = [event async for event in session.events() if not isinstance(event, ResumedEvent)]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert sum(isinstance(event, UtteranceStartedEvent) for event in events) == 2
        assert sum(isinstance(event, UtteranceEndedEvent) for event in events) == 2
        assert wire.connection_count == 2


async def test_an_utterance_that_is_being_sent_survives_cuts_whole(wire, emulator):
    """A real-time source and three cuts: LiveAvatar gets every byte once, the caller gets an event for each."""
    pcm = sound(3)

    async def spoken():
        for start in range(0, len(pcm), 4800):
            yield pcm[start : start + 4800]
            await asyncio.sleep(0.1)

    async with AsyncClient(wire.address) as client, client.open_session(AVATAR) as session:
        await session.ready()
        utterance = session.say(spoken())
        waiting = session.say(sound(0.3, seed=2))
        for part in (1, 2, 3):
            async for progress in utterance.progress_updates():
                if progress.played > timedelta(seconds=0.5 * part):
                    break
            wire.cut()
        assert (await utterance).kind == "played"
        assert (await waiting).kind == "played"
        assert emulator.audio(session.record.upstream_session_id) == pcm + sound(0.3, seed=2)
        await session.end()
        resumed = [event async for event in session.events() if isinstance(event, ResumedEvent)]
        assert [event.stream for event in resumed].count("speech") == 3
        assert [event.stream for event in resumed].count("events") >= 1


@pytest.mark.timeout(90)
async def test_a_wire_that_goes_silent_is_given_up_and_speech_goes_on(wire, emulator):
    """Nobody resets anything: only unanswered pings tell. Quicker ones than by default, to save the test time."""
    pings = [("grpc.keepalive_time_ms", 10_000)]
    async with AsyncClient(wire.address, options=pings) as client, client.open_session(AVATAR) as session:
        utterance = session.say(sound(2))
        await utterance.started()
        wire.silence()
        async with asyncio.timeout(40):
            assert (await utterance).kind == "played"
        assert emulator.audio(session.record.upstream_session_id) == sound(2)
        assert wire.connection_count == 2


async def test_a_wire_that_stays_down_fails_what_is_being_sent_in_time(wire):
    """`resume_timeout` bounds the wait, and tells what was heard."""

    async def endless():
        while True:
            yield sound(0.1)
            await asyncio.sleep(0.05)

    async with AsyncClient(wire.address, resume_timeout=0.5) as client:
        session = await client.open_session(AVATAR, detach_grace=1).open()
        utterance = session.say(endless())
        async for progress in utterance.progress_updates():
            if progress.played > timedelta(seconds=0.3):
                break
        wire.cut(stay_down=True)
        with pytest.raises(ConnectionLost):
            await utterance
        assert utterance.outcome is not None
        assert utterance.outcome.played > timedelta(seconds=0.3)
        wire.mend()


async def test_a_second_address_serves_when_the_first_is_gone(wire, shared_gateway):
    """The session is resumed by the other way to the same gateway, in the middle of an utterance."""
    async with (
        AsyncClient([wire.address, shared_gateway.address]) as client,
        client.open_session(AVATAR) as session,
    ):
        utterance = session.say(sound(1.5))
        await utterance.started()
        wire.cut(stay_down=True)
        assert (await utterance).kind == "played"
        assert (await session.say(sound(0.3))).kind == "played"
        assert (await client.server_info()).version
        events = session.events()
        async for event in events:
            if isinstance(event, ResumedEvent):
                assert event.target == shared_gateway.address
                break


async def test_the_blocking_client_survives_a_cut_the_same_way(wire, shared_gateway, emulator):
    """In threads, over the second of its addresses."""
    cut = threading.Event()

    def speak() -> tuple[list[Event], str]:
        with Client(f"{wire.address},{shared_gateway.address}") as client:
            session = client.open_session(AVATAR).open()
            utterance = session.say(sound(1.5))
            assert utterance.started(timeout=20)
            cut.set()
            assert utterance.result(timeout=20).kind == "played"
            session.end(timeout=20)
            return list(session.events(timeout=20)), session.record.upstream_session_id

    speaking = asyncio.create_task(asyncio.to_thread(speak))
    assert await asyncio.to_thread(cut.wait, 20)
    wire.cut(stay_down=True)
    events, upstream_id = await speaking
    assert any(isinstance(event, ResumedEvent) for event in events)
    assert emulator.audio(upstream_id) == sound(1.5)


async def test_a_first_address_that_is_dead_costs_nothing_but_a_try(shared_gateway):
    async with (
        AsyncClient(f"127.0.0.1:1,{shared_gateway.address}") as client,
        client.open_session(AVATAR) as session,
    ):
        assert (await session.say(sound(0.2))).kind == "played"
        assert (await client.get_session(session.id)).id == session.id


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


async def test_a_wire_cut_again_and_again_loses_nothing(wire, emulator):
    """Five cuts under a conversation of short utterances: each is played, once."""
    texts = [sound(0.4, seed=number) for number in range(5)]
    async with AsyncClient(wire.address) as client, client.open_session(AVATAR) as session:
        await session.ready()
        for number, text in enumerate(texts):
            utterance = session.say(text)
            await asyncio.sleep(0.1 * number)
            wire.cut()
            assert (await utterance).kind == "played"
        assert emulator.audio(session.record.upstream_session_id) == b"".join(texts)
        await session.end()
        events = [event async for event in session.events() if not isinstance(event, ResumedEvent)]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert sum(isinstance(event, UtteranceEndedEvent) for event in events) == 5
