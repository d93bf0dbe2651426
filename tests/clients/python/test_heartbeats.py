"""Silent streams: heartbeats up as often as the gateway announced, and those that come down are not noticed."""

import asyncio

import pytest
from clients.python.scripted import (
    AttachPeer,
    AudioPeer,
    WatchPeer,
    opened,
    scripted,
)

from liveavatar.gateway import AsyncClient, ConnectionLost, SessionEndedEvent, WatchProgress
from liveavatar.gateway.v1 import stream_pb2
from liveavatar.gateway.watch import AsyncWatch, WatchPace
from testkit.speech import sound

INTERVAL_S = 0.1
SILENT_S = 0.4
BEAT = stream_pb2.Heartbeat()


async def beats(peer: AttachPeer | AudioPeer, count: int) -> None:
    """Read heartbeats, and send as many."""
    for _ in range(count):
        await peer.expect("heartbeat")
        await peer.write(heartbeat=BEAT)


async def test_a_silent_session_sends_heartbeats_and_shows_none():
    quiet = asyncio.Event()

    async def beating(peer: AttachPeer) -> None:
        await peer.opened(heartbeat_s=INTERVAL_S)
        await beats(peer, 3)
        quiet.set()
        while (message := await peer.read()) is not None:
            if message.HasField("command"):
                await peer.answer(message.command)
                await peer.end(1)
                return

    async with scripted([beating]) as gateway, opened(gateway) as session:
        await quiet.wait()
        await session.end()
        events = [event async for event in session.events()]
    assert [type(event) for event in events] == [SessionEndedEvent]


async def test_a_silent_audio_stream_sends_heartbeats():
    quiet = asyncio.Event()

    async def beating(peer: AudioPeer) -> None:
        # A gateway may be silent so long before it is ready, too.
        header = peer.ready(heartbeat_s=INTERVAL_S)
        await peer.write(heartbeat=BEAT)
        await header
        assert (await peer.utterance())[2] == "end"
        await beats(peer, 3)
        quiet.set()
        await peer.ended("u")
        while await peer.read() is not None:
            pass

    async with scripted(audios=[beating]) as gateway, opened(gateway) as session:
        utterance = session.say(sound(0.1), utterance_id="u")
        await quiet.wait()
        assert (await utterance).kind == "played"


async def test_speech_is_heartbeat_enough():
    """None is sent between chunks that are closer than the interval."""

    async def speaks():
        for _ in range(10):
            await asyncio.sleep(INTERVAL_S / 4)
            yield bytes(960)

    async def listens(peer: AudioPeer) -> None:
        await peer.ready(heartbeat_s=INTERVAL_S * 4)
        _, heard, how = await peer.utterance()
        assert (len(heard), how) == (9_600, "end")
        await peer.ended("u")
        await peer.read()

    async with scripted(audios=[listens]) as gateway, opened(gateway) as session:
        assert (await session.say(speaks(), utterance_id="u")).kind == "played"


async def test_an_older_gateway_gets_no_heartbeat():
    async def silent(peer: AttachPeer) -> None:
        await peer.opened()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.requests.__anext__(), SILENT_S)
        await peer.end(1)

    async with scripted([silent]) as gateway, AsyncClient(gateway.address) as client:
        session = await client.open_session("avatar").open()
        async for event in session.events():
            assert isinstance(event, SessionEndedEvent)


async def test_a_heartbeat_is_no_answer_to_a_resume():
    """A gateway that says nothing else is given up as one that says nothing."""

    async def breaks(peer: AttachPeer) -> None:
        await peer.opened(heartbeat_s=INTERVAL_S)
        await peer.break_off()

    async def beats_only(peer: AttachPeer) -> None:
        await peer.read()
        while True:
            await peer.write(heartbeat=BEAT)
            await asyncio.sleep(INTERVAL_S)

    async with (
        scripted([breaks, beats_only]) as gateway,
        AsyncClient(gateway.address, resume_timeout=1) as client,
        client.open_session("avatar") as session,
    ):
        with pytest.raises(ConnectionLost, match="did not answer"):
            await session.start_listening()


async def test_a_watch_asks_now_and_then_so_that_its_direction_is_not_silent():
    asked = 0

    async def counts(peer: WatchPeer) -> None:
        nonlocal asked
        await peer.asked()
        await peer.progress()
        while asked < 3:
            await peer.expect("progress")
            asked += 1
            await peer.progress()
        await peer.read()

    async with scripted(watches=[counts]) as gateway, AsyncClient(gateway.address) as client:
        pace = WatchPace(write_silence_s=INTERVAL_S, check_s=INTERVAL_S / 4)
        watch = AsyncWatch(client._runtime, {}, {}, open_timeout_s=10, resume_timeout=None, pace=pace)
        async with watch as changes:
            told = [await anext(changes) for _ in range(4)]
    assert all(isinstance(change, WatchProgress) for change in told)
    assert asked == 3


async def test_each_part_of_an_utterance_names_it():
    """So that none is taken for the next one after a barge-in."""
    seen = []

    async def notes(peer: AudioPeer) -> None:
        await peer.ready()
        while (message := await peer.read()) is not None:
            kind = message.WhichOneof("message")
            seen.append((kind, getattr(message, kind).utterance_id))
            if kind == "begin":
                await peer.ack(message.begin.utterance_id, 0)
            if kind in ("end", "cancel"):
                await peer.ended(getattr(message, kind).utterance_id)

    async def fails():
        yield bytes(960)
        while ("chunk", "second") not in seen:
            await asyncio.sleep(0.01)
        raise LookupError

    async with scripted(audios=[notes]) as gateway, opened(gateway) as session:
        await session.say(sound(0.1), utterance_id="first")
        with pytest.raises(LookupError):
            await session.say(fails(), utterance_id="second")
    assert set(seen) == {
        *((kind, "first") for kind in ("begin", "chunk", "end")),
        *((kind, "second") for kind in ("begin", "chunk", "cancel")),
    }
