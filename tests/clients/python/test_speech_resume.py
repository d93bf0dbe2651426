"""The audio stream breaks, and speech goes on: every byte once and in order, whatever breaks when."""

import asyncio
from datetime import timedelta

import grpc
import pytest
from clients.python.scripted import (
    AttachPeer,
    AudioPeer,
    Ear,
    fluent,
    opened,
    played,
    scripted,
    status,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liveavatar.gateway import (
    AsyncClient,
    AudioStreamSuperseded,
    ConnectionLost,
    OutcomeKind,
    ResumedEvent,
    SessionEnded,
)
from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as pb

COMPLETED = audio_pb2.UTTERANCE_OUTCOME_COMPLETED
INTERRUPTED = audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED


def sound(size: int) -> bytes:
    return bytes(index * 7 % 251 for index in range(size))


async def speak(ear: Ear, *texts: bytes) -> int:
    """Say them all in chunks of 20 ms, and check what was heard; gives the count of streams it took."""
    async with (
        scripted(audios=[ear]) as gateway,
        AsyncClient(gateway.address, chunk_duration=0.02) as client,
        client.open_session("avatar") as session,
    ):
        utterances = [session.say(text, utterance_id=f"u{number}") for number, text in enumerate(texts)]
        for utterance in utterances:
            assert (await utterance).kind is OutcomeKind.PLAYED
    assert {name: bytes(audio) for name, audio in ear.heard.items()} == {
        f"u{number}": text for number, text in enumerate(texts)
    }
    return gateway.audio_count


def test_whatever_breaks_every_byte_is_heard_once_and_in_order():
    """Any breaks, any acks, and gateways that restart without what they had not passed on."""

    @given(
        breaks=st.lists(st.integers(0, 25), max_size=4),
        restarts=st.booleans(),
        credit=st.sampled_from([2000, 5000, 1_440_000]),
        ack_every=st.integers(1, 7),
        unconfirmed=st.sampled_from([0, 500, 3000, 100_000]),
        sizes=st.lists(st.integers(0, 5000).map(lambda samples: samples * 2), min_size=1, max_size=3),
    )
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def check(breaks, restarts, credit, ack_every, unconfirmed, sizes):
        ear = Ear(breaks=breaks, restarts=restarts, credit=credit, ack_every=ack_every, unconfirmed=unconfirmed)
        # All in one loop: grpc.aio does not let go of one that was closed.
        runner.run(speak(ear, *(sound(size) for size in sizes)))

    with asyncio.Runner() as runner:
        check()


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_break_at_each_message_in_turn_loses_nothing(restarts):
    """A conversation for each point at which the stream can break."""

    async def breaks_at(number: int) -> None:
        ear = Ear(breaks=[number], restarts=restarts, unconfirmed=1000)
        assert await speak(ear, sound(1920), sound(960)) == 2, f"no break at {number}"

    async with asyncio.TaskGroup() as tasks:
        for number in range(15):
            tasks.create_task(breaks_at(number))


async def test_the_caller_notices_nothing_but_an_event():
    """A sealed utterance and an utterance being sent both end as if nothing had happened."""

    async def slowly():
        for start in range(0, 40_000, 2000):
            yield sound(40_000)[start : start + 2000]
            await asyncio.sleep(0.01)

    ear = Ear(breaks=[12])
    async with scripted(audios=[ear]) as gateway, opened(gateway) as session:
        utterance = session.say(slowly())
        assert (await utterance).kind is OutcomeKind.PLAYED
        events = session.events()
        event = await anext(events)
        assert isinstance(event, ResumedEvent)
        assert event.stream == "speech"
        assert event.gap > timedelta()
        assert event.attempt_count == 1
        assert event.target == gateway.address
    (heard,) = ear.heard.values()
    assert bytes(heard) == sound(40_000)
    assert len(ear.resumed) == 1


async def test_a_gateway_that_lost_audio_gets_it_again():
    """`received_bytes` falls behind what was acknowledged before, and nothing is missing."""
    ear = Ear(breaks=[30], restarts=True, unconfirmed=6000)
    await speak(ear, sound(40_000))
    ((_, offset),) = ear.resumed
    assert 0 < offset < 13 * 960


async def test_the_kept_audio_is_bounded_and_new_audio_waits():
    """LiveAvatar takes nothing for a while: what is sent stays within the window, and goes on afterwards."""
    sizes = []
    confirmed = asyncio.Event()

    async def holds(peer: AudioPeer) -> None:
        await peer.ready(credit=96_000)
        begun = await peer.expect("begin")
        received = 0
        while True:
            try:
                async with asyncio.timeout(0.5):
                    message = await anext(peer.requests, None)
            except TimeoutError:
                break
            received += len(message.chunk.audio)
            # The gateway has room again and again, but nothing of it is confirmed.
            await peer.write(
                ack=pb.AudioAck(
                    utterance_id=begun.utterance_id,
                    received_bytes=received,
                    confirmed_bytes=0,
                    credit_bytes=96_000,
                )
            )
        sizes.append(received)
        confirmed.set()
        await peer.ack(begun.utterance_id, received, credit=96_000)
        await peer.break_off()

    ear = Ear()

    async def goes_on(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        assert begun.resume
        ear.heard[begun.utterance_id] = bytearray(sizes[0])
        received = sizes[0]
        await peer.ack(begun.utterance_id, received)
        while (message := await peer.read()).WhichOneof("message") == "chunk":
            assert message.chunk.offset_bytes == received
            received += len(message.chunk.audio)
            await peer.ack(begun.utterance_id, received)
        await peer.ended(begun.utterance_id)
        sizes.append(received)
        await peer.speak_all()

    async with scripted(audios=[holds, goes_on]) as gateway, opened(gateway) as session:
        assert (await session.say(sound(480_000))).kind == "played"
    assert 96_000 < sizes[0] <= 96_000 + 4 * 48_000
    assert sizes[1] == 480_000


async def test_what_cannot_be_resumed_in_time_fails_with_what_was_heard():
    """With the typed error, and with all that waits behind it."""

    async def breaks(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        await peer.expect("chunk")
        await peer.ack(begun.utterance_id, 960, played_s=0.25)
        await asyncio.sleep(0.05)
        await peer.break_off()

    async def refuses(peer: AudioPeer) -> None:
        await peer.read()
        await peer.break_off()

    async def endless():
        while True:
            yield sound(960)
            await asyncio.sleep(0.01)

    async with scripted(audios=[breaks, refuses]) as gateway:
        async with (
            AsyncClient(gateway.address, resume_timeout=2) as client,
            client.open_session("avatar") as session,
        ):
            utterance = session.say(endless())
            with pytest.raises(ConnectionLost, match=r"within 2"):
                await utterance
            assert utterance.outcome is not None
            assert utterance.outcome.kind == "failed"
            assert utterance.outcome.played == timedelta(seconds=0.25)
        assert gateway.audio_count > 2


async def test_a_stream_that_is_taken_and_always_breaks_is_given_up():
    """A gateway that takes the stream and nothing on it gets no more time each time."""

    async def breaks(peer: AudioPeer) -> None:
        await peer.ready()
        await peer.expect("begin")
        await peer.break_off()

    async with scripted(audios=[breaks]) as gateway:
        client = AsyncClient(gateway.address, resume_timeout=0.5)
        async with client, client.open_session("avatar") as session:
            with pytest.raises(ConnectionLost, match=r"within 0.5 s"):
                await session.say(sound(960))


async def test_audio_that_is_wanted_and_not_kept_fails_its_utterance():
    """A gateway that falls behind what LiveAvatar has is told nothing false: the rest is lost, and said to be."""

    async def breaks(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        for _ in range(10):
            await peer.expect("chunk")
        await peer.ack(begun.utterance_id, 9600)
        await asyncio.sleep(0.05)
        await peer.break_off()

    async def forgets(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        await peer.ack(begun.utterance_id, 0)
        await peer.expect("end")
        await peer.ended(begun.utterance_id, played=played(0.2))
        await peer.speak_all()

    async with (
        scripted(audios=[breaks, forgets]) as gateway,
        AsyncClient(gateway.address, chunk_duration=0.02) as client,
        client.open_session("avatar") as session,
    ):
        utterance = session.say(sound(48_000))
        with pytest.raises(ConnectionLost, match="not kept"):
            await utterance
        assert utterance.outcome is not None
        assert utterance.outcome.played == timedelta(seconds=0.2)
        assert (await session.say(sound(960))).kind == "played"


async def test_an_interrupt_while_the_stream_is_away_reaches_the_utterance():
    """It is cancelled as soon as the stream is there again, and nothing more of it is sent."""
    away = asyncio.Event()
    heard = []

    async def breaks(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        await peer.expect("chunk")
        await peer.ack(begun.utterance_id, 960, played_s=0.1)
        away.set()
        await peer.break_off()

    async def cancelled(peer: AudioPeer) -> None:
        await asyncio.sleep(0.1)
        await peer.ready()
        begun = await peer.expect("begin")
        assert begun.resume
        await peer.ack(begun.utterance_id, 960)
        heard.append((await peer.read()).WhichOneof("message"))
        await peer.ended(begun.utterance_id, INTERRUPTED, played=played(0.3))
        await peer.speak_all()

    async def endless():
        while True:
            yield sound(960)
            await asyncio.sleep(0.01)

    async def serve(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.until_end()

    async with scripted([serve], [breaks, cancelled]) as gateway, opened(gateway) as session:
        utterance = session.say(endless())
        await away.wait()
        await session.interrupt()
        assert (await utterance).kind == "interrupted"
        assert (await session.say(sound(960))).kind == "played"
    assert heard == ["cancel"]


async def test_an_end_that_came_while_the_stream_was_away_is_told_once():
    """By the session's events, or by the stream that follows."""
    told = asyncio.Event()

    async def breaks(peer: AudioPeer) -> None:
        await peer.ready()
        utterance_id, audio, _ = await peer.utterance()
        await peer.ack(utterance_id, len(audio))
        told.set()
        await peer.break_off()

    async def away(peer: AudioPeer) -> None:
        await peer.read()
        await peer.break_off()

    async def tells(peer: AttachPeer) -> None:
        await peer.opened()
        await told.wait()
        await asyncio.sleep(0.1)
        await peer.utterance_ended(1, "u", COMPLETED, 1.0)
        await peer.until_end(2)

    async with scripted([tells], [breaks, away, away, fluent]) as gateway, opened(gateway) as session:
        outcome = await session.say(sound(960), utterance_id="u")
        assert (outcome.kind, outcome.played) == ("played", timedelta(seconds=1))
        assert (await session.say(sound(960))).kind == "played"


async def test_speech_that_another_stream_took_fails_at_once_unless_it_was_sent_in_full():
    taken = asyncio.Event()

    async def is_taken(peer: AudioPeer) -> None:
        await peer.ready()
        sealed, audio, _ = await peer.utterance()
        await peer.ack(sealed, len(audio))
        begun = await peer.expect("begin")
        await peer.ack(begun.utterance_id, 0)
        await peer.expect("chunk")
        taken.set()
        await peer.refuse(status("AUDIO_STREAM_SUPERSEDED", grpc.StatusCode.ABORTED))

    async def tells(peer: AttachPeer) -> None:
        await peer.opened()
        await taken.wait()
        await asyncio.sleep(0.2)
        await peer.utterance_ended(1, "sealed", COMPLETED, 1.0)
        await peer.until_end(2)

    async def endless():
        while True:
            yield sound(960)
            await asyncio.sleep(0.01)

    async with scripted([tells], [is_taken, fluent]) as gateway, opened(gateway) as session:
        sealed = session.say(sound(960), utterance_id="sealed")
        with pytest.raises(AudioStreamSuperseded):
            await session.say(endless())
        assert sealed.outcome is None
        assert (await sealed).kind == "played"
        assert gateway.audio_count == 1


async def test_a_session_that_ended_while_the_stream_was_away_says_so():
    async def breaks(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        await peer.ack(begun.utterance_id, 0)
        await peer.break_off()

    async def over(peer: AudioPeer) -> None:
        await peer.read()
        refused.set()
        await peer.refuse(status("SESSION_ENDED", grpc.StatusCode.FAILED_PRECONDITION, end_reason="MAX_DURATION"))

    async def ends(peer: AttachPeer) -> None:
        await peer.opened()
        await refused.wait()
        await peer.end(1, 4)

    refused = asyncio.Event()
    async with scripted([ends], [breaks, over]) as gateway, opened(gateway) as session:
        with pytest.raises(SessionEnded) as raised:
            await session.say(sound(96_000))
        assert raised.value.end_reason == "MAX_DURATION"
