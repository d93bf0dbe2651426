"""The audio stream: order, credit, refusals and breaks, as the caller sees them."""

import asyncio
import os
import struct
import threading
import time
from datetime import timedelta

import grpc
import pytest
from clients.python.scripted import AttachPeer, AudioPeer, fluent, opened, played, scripted, status, well_behaved

from liveavatar.gateway import (
    AsyncClient,
    AudioEncoding,
    AudioFormat,
    AudioFormatUnsupported,
    AudioGap,
    AudioMisaligned,
    AudioStreamSuperseded,
    CreditExceeded,
    Draining,
    OutcomeKind,
    SessionEnded,
    UtteranceIdReused,
)
from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as pb
from liveavatar.gateway.v1 import session_service_pb2 as sessions

COMPLETED = audio_pb2.UTTERANCE_OUTCOME_COMPLETED
INTERRUPTED = audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED
FAILED = audio_pb2.UTTERANCE_OUTCOME_FAILED


def sound(size: int) -> bytes:
    return bytes(index * 7 % 251 for index in range(size))


async def test_utterances_are_spoken_in_order():
    heard = []

    async def listens(peer: AudioPeer) -> None:
        await peer.ready()
        for _ in range(3):
            utterance_id, audio, closed = await peer.utterance()
            heard.append((utterance_id, audio, closed))
            await peer.ended(utterance_id, played=played(1.5))

    async with scripted(audios=[listens]) as gateway, opened(gateway) as session:
        texts = [sound(100_000), b"", sound(3000)]
        utterances = [session.say(text, utterance_id=f"u{n}") for n, text in enumerate(texts)]
        outcomes = [await utterance for utterance in utterances]
        await session.wait_for_playout()
    assert heard == [(f"u{n}", text, "end") for n, text in enumerate(texts)]
    assert all(outcome.kind == "played" for outcome in outcomes)
    assert outcomes[0].played == timedelta(seconds=1.5)


async def test_the_credit_is_never_exceeded():
    """With 3000 bytes of credit, given back late and in odd pieces."""
    worst = []

    async def stingy(peer: AudioPeer) -> None:
        await peer.ready(credit=3000)
        begun = await peer.expect("begin")
        received = acked = 0
        credit = 3000
        while (message := await peer.read()).WhichOneof("message") == "chunk":
            received += len(message.chunk.audio)
            worst.append(credit - (received - acked))
            while received - acked > 1000:
                acked += 900
                credit = 2700
                await peer.ack(begun.utterance_id, acked, credit)
        await peer.ended(begun.utterance_id)
        assert received == 50_000

    async with scripted(audios=[stingy]) as gateway, opened(gateway) as session:
        assert (await session.say(sound(50_000))).kind is OutcomeKind.PLAYED
    assert min(worst) >= 0


async def test_the_credit_is_shared_by_all_utterances():
    """Audio of an utterance that waits upstream counts against the next one."""
    sent = []

    async def full(peer: AudioPeer) -> None:
        await peer.ready(credit=4000)
        first, audio, _ = await peer.utterance()
        assert len(audio) == 3000
        second = (await peer.expect("begin")).utterance_id
        sent.append(len((await peer.expect("chunk")).audio))
        await peer.ack(first, 3000, credit=500)
        await peer.ack(second, sent[0], credit=1500)
        sent.append(len((await peer.expect("chunk")).audio))
        await peer.ended(first)
        await peer.ended(second, INTERRUPTED)
        while await peer.read() is not None:
            pass

    async with scripted(audios=[full]) as gateway, opened(gateway) as session:
        first, second = session.say(sound(3000)), session.say(sound(9600))
        await first
        assert (await second).kind == "interrupted"
    assert sent == [1000, 1500]


async def test_chunks_end_between_samples_and_within_the_gateways_limit():
    sizes = []

    async def strict(peer: AudioPeer) -> None:
        header = await peer.ready(max_chunk=1001)
        assert header.format.encoding == audio_pb2.AUDIO_ENCODING_PCM_F32LE
        assert (header.format.sample_rate_hz, header.format.channel_count) == (8000, 2)
        begun = await peer.expect("begin")
        while (message := await peer.read()).WhichOneof("message") == "chunk":
            sizes.append(len(message.chunk.audio))
        await peer.ended(begun.utterance_id)

    stereo = AudioFormat(encoding=AudioEncoding.PCM_F32LE, sample_rate_hz=8000, channel_count=2)
    async with scripted(audios=[strict]) as gateway, opened(gateway, audio_format=stereo) as session:
        pieces = [sound(8000)[start : start + 333] for start in range(0, 8000, 333)]
        await session.say(iter(pieces))
    assert sum(sizes) == 8000
    assert all(size % 8 == 0 and size <= 1001 for size in sizes)


async def test_a_hole_is_filled_from_where_the_gateway_says():
    """AUDIO_GAP costs nothing but time: what was swallowed is sent again."""
    heard = bytearray()

    async def swallows(peer: AudioPeer) -> None:
        await peer.ready(credit=100_000)
        begun = await peer.expect("begin")
        count = 0
        while (message := await peer.read()).WhichOneof("message") == "chunk":
            chunk = message.chunk
            count += 1
            if count == 3:
                continue
            if chunk.offset_bytes > len(heard):
                gap = status(
                    "AUDIO_GAP",
                    grpc.StatusCode.FAILED_PRECONDITION,
                    expected=len(heard),
                    got=chunk.offset_bytes,
                )
                await peer.write(
                    rejected=pb.AudioRejected(
                        utterance_id=begun.utterance_id, error=gap, received_bytes=len(heard)
                    )
                )
                continue
            heard.extend(chunk.audio[len(heard) - chunk.offset_bytes :])
            await peer.ack(begun.utterance_id, len(heard), credit=100_000)
        await peer.ended(begun.utterance_id)

    async def slowly():
        for start in range(0, 40_000, 2000):
            yield sound(40_000)[start : start + 2000]
            await asyncio.sleep(0.005)

    async with scripted(audios=[swallows]) as gateway, opened(gateway) as session:
        assert (await session.say(slowly())).kind is OutcomeKind.PLAYED
    assert bytes(heard) == sound(40_000)


async def test_a_hole_that_cannot_be_filled_fails_the_utterance():
    async def confused(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        await peer.expect("chunk")
        await peer.ack(begun.utterance_id, 9600)
        gap = status("AUDIO_GAP", grpc.StatusCode.FAILED_PRECONDITION, expected=4800, got=9600)
        await peer.write(
            rejected=pb.AudioRejected(utterance_id=begun.utterance_id, error=gap, received_bytes=4800)
        )
        while (await peer.read()).WhichOneof("message") == "chunk":
            pass
        await peer.ended(begun.utterance_id, played=played(0.1))

    async def slowly():
        for _ in range(20):
            yield sound(9600)
            await asyncio.sleep(0.02)

    async with scripted(audios=[confused]) as gateway, opened(gateway) as session:
        utterance = session.say(slowly())
        with pytest.raises(AudioGap) as raised:
            await utterance
        assert raised.value.expected == 4800
        assert utterance.outcome is not None
        assert utterance.outcome.played == timedelta(seconds=0.1)


async def test_refused_audio_fails_its_utterance_alone():
    """The accepted audio is spoken; the error and the time that was heard both reach the caller."""
    closings = []

    async def refuses(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        await peer.expect("chunk")
        error = status("CREDIT_EXCEEDED", grpc.StatusCode.RESOURCE_EXHAUSTED, retry_s=0.5)
        await peer.write(rejected=pb.AudioRejected(utterance_id=begun.utterance_id, error=error))
        while (kind := (await peer.read()).WhichOneof("message")) == "chunk":
            pass
        closings.append(kind)
        await peer.ended(begun.utterance_id, FAILED, error=error, played=played(0.2))
        await peer.speak_all()

    async def endless():
        while True:
            yield sound(960)
            await asyncio.sleep(0.01)

    async with scripted(audios=[refuses]) as gateway, opened(gateway) as session:
        first, second = session.say(endless()), session.say(sound(960))
        with pytest.raises(CreditExceeded) as raised:
            await first
        assert raised.value.retry_after == 0.5
        assert first.outcome is not None
        assert first.outcome.kind == "failed"
        assert first.outcome.played == timedelta(seconds=0.2)
        assert (await second).kind == "played"
    assert closings == ["end"]


async def test_a_refused_begin_fails_at_once():
    """The gateway owes no end for what it did not take, so none is waited for."""

    async def refuses(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        error = status("UTTERANCE_ID_REUSED", grpc.StatusCode.ALREADY_EXISTS, field="begin.utterance_id")
        await peer.write(rejected=pb.AudioRejected(utterance_id=begun.utterance_id, error=error))
        while (message := await peer.read()).WhichOneof("message") != "begin":
            assert message.WhichOneof("message") in ("chunk", "end")
        second = message.begin.utterance_id
        while (await peer.read()).WhichOneof("message") == "chunk":
            pass
        await peer.ended(second)

    async with scripted(audios=[refuses]) as gateway, opened(gateway) as session:
        first = session.say(sound(960), utterance_id="twice")
        with pytest.raises(UtteranceIdReused):
            session.say(sound(960), utterance_id="twice")
        with pytest.raises(UtteranceIdReused):
            await first
        assert (await session.say(sound(960))).kind == "played"


async def test_a_begin_that_a_draining_gateway_refuses_fails_at_once():
    """No end comes for it, so waiting for one would never end."""

    async def drains(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        error = status("DRAINING", grpc.StatusCode.UNAVAILABLE, retry_s=1)
        await peer.write(rejected=pb.AudioRejected(utterance_id=begun.utterance_id, error=error))
        while await peer.read() is not None:
            pass

    async with scripted(audios=[drains]) as gateway, opened(gateway) as session:
        async with asyncio.timeout(5):
            with pytest.raises(Draining):
                await session.say(sound(960))


async def test_a_refused_format_fails_the_utterance_that_needs_it():
    async def refuses(peer: AudioPeer) -> None:
        await peer.read()
        await peer.refuse(
            status("AUDIO_FORMAT_UNSUPPORTED", grpc.StatusCode.INVALID_ARGUMENT, field="header.format")
        )

    async with scripted(audios=[refuses, fluent]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            with pytest.raises(AudioFormatUnsupported) as raised:
                await session.say(sound(960), format=AudioFormat(sample_rate_hz=96_000))
            assert raised.value.field_violations[0].field == "header.format"
            assert (await session.say(sound(960))).kind == "played"
        assert gateway.audio_count == 2


async def test_another_format_waits_for_its_own_stream():
    """Each format has a stream of its own, opened when all earlier utterances were spoken."""
    order = []

    async def first(peer: AudioPeer) -> None:
        await peer.ready()
        utterance_id, _, _ = await peer.utterance()
        await asyncio.sleep(0.1)
        order.append("first spoken")
        await peer.ended(utterance_id)
        assert await peer.read() is None
        order.append("first closed")

    async def second(peer: AudioPeer) -> None:
        order.append("second opened")
        header = await peer.ready()
        assert header.format.sample_rate_hz == 8000
        await peer.speak_all()

    async with scripted(audios=[first, second]) as gateway, opened(gateway) as session:
        session.say(sound(960))
        await session.say(sound(960), format=AudioFormat(encoding=AudioEncoding.MULAW, sample_rate_hz=8000))
    assert order == ["first spoken", "first closed", "second opened"]


async def test_an_audio_stream_that_cannot_be_opened_is_tried_again():
    async def breaks(peer: AudioPeer) -> None:
        await peer.read()
        await peer.break_off()

    async with scripted(audios=[breaks, breaks, fluent]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            assert (await session.say(sound(960))).kind == "played"
        assert gateway.audio_count == 3


async def test_losing_the_speech_to_another_stream_fails_all_that_waits():
    async def taken(peer: AudioPeer) -> None:
        await peer.ready()
        await peer.expect("begin")
        await peer.refuse(status("AUDIO_STREAM_SUPERSEDED", grpc.StatusCode.ABORTED))

    async with scripted(audios=[taken, fluent]) as gateway, opened(gateway) as session:
        first, second = session.say(sound(960)), session.say(sound(960))
        with pytest.raises(AudioStreamSuperseded):
            await first
        with pytest.raises(AudioStreamSuperseded):
            await second
        # Speaking again is the caller's decision, and takes the speech back.
        assert (await session.say(sound(960))).kind == "played"


async def test_the_end_of_the_session_ends_its_utterances():
    """With what was heard, and the reason."""
    spoken = asyncio.Event()

    async def ends(peer: AttachPeer) -> None:
        await peer.opened()
        await spoken.wait()
        await peer.end(1, 4)

    async def speaks(peer: AudioPeer) -> None:
        await peer.ready()
        utterance_id, audio, _ = await peer.utterance()
        await peer.ack(utterance_id, len(audio), played_s=0.5)
        await asyncio.sleep(0.05)
        spoken.set()
        await peer.read()

    async with scripted([ends], [speaks]) as gateway, opened(gateway) as session:
        utterance = session.say(sound(960))
        with pytest.raises(SessionEnded) as raised:
            await utterance
        assert raised.value.end_reason == "MAX_DURATION"
        assert utterance.outcome is not None
        assert utterance.outcome.played == timedelta(seconds=0.5)


async def test_an_interrupt_that_overtakes_its_utterance_is_repeated():
    """Control does not wait behind speech, so the gateway may hear of the interrupt first."""
    asked = []
    sealed, begun, cut = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve(peer: AttachPeer) -> None:
        await peer.opened()
        command = await peer.expect("command")
        asked.append(command.interrupt.utterance_id)
        await peer.answer(command, status=status("UTTERANCE_NOT_FOUND", grpc.StatusCode.NOT_FOUND))
        begun.set()
        command = await peer.expect("command")
        asked.append(command.interrupt.utterance_id)
        ended = sessions.UtteranceEnded(utterance_id="u", outcome=INTERRUPTED, played=played(0.1))
        await peer.answer(command, interrupt=sessions.InterruptResult(interrupted=[ended]))
        await peer.event(1, utterance_ended=ended)
        cut.set()
        await peer.until_end(2)

    async def late(peer: AudioPeer) -> None:
        await peer.ready()
        await peer.expect("begin")
        await peer.expect("chunk")
        await peer.expect("end")
        sealed.set()
        await begun.wait()
        await peer.ack("u", 960)
        await cut.wait()
        await peer.ended("u", INTERRUPTED, played=played(0.1))
        await peer.read()

    async with scripted([serve], [late]) as gateway, opened(gateway) as session:
        utterance = session.say(sound(960), utterance_id="u")
        await sealed.wait()
        interruption = await session.interrupt("u")
        assert [outcome.utterance_id for outcome in interruption.interrupted] == ["u"]
        assert interruption.played == timedelta(seconds=0.1)
        assert (await utterance).kind == "interrupted"
    assert asked == ["u", "u"]


async def test_an_interrupt_drops_what_waits_and_spares_what_comes_after():
    """Nothing is begun between the interrupt and its answer, so it cannot cut the reply to it."""
    log = []
    begun = asyncio.Event()

    async def serve(peer: AttachPeer) -> None:
        await peer.opened()
        command = await peer.expect("command")
        assert command.interrupt.utterance_id == ""
        await asyncio.sleep(0.2)
        log.append("answered")
        await peer.answer(command)
        await peer.until_end()

    async def listens(peer: AudioPeer) -> None:
        await peer.ready()
        first = (await peer.expect("begin")).utterance_id
        log.append(first)
        begun.set()
        while (kind := (await peer.read()).WhichOneof("message")) == "chunk":
            pass
        assert kind == "cancel"
        await peer.ended(first, INTERRUPTED, played=played(0.3))
        while (message := await peer.read()).WhichOneof("message") != "begin":
            pass
        log.append(message.begin.utterance_id)
        while (await peer.read()).WhichOneof("message") == "chunk":
            pass
        await peer.ended(message.begin.utterance_id)

    async def endless():
        while True:
            yield sound(960)
            await asyncio.sleep(0.01)

    async with scripted([serve], [listens]) as gateway, opened(gateway) as session:
        spoken = session.say(endless(), utterance_id="spoken")
        waiting = session.say(sound(960), utterance_id="waiting")
        await begun.wait()
        interrupting = asyncio.create_task(session.interrupt())
        await asyncio.sleep(0)
        reply = session.say(sound(960), utterance_id="reply")
        interruption = await interrupting
        assert {outcome.utterance_id for outcome in interruption.interrupted} == {"spoken", "waiting"}
        assert (await spoken).played == timedelta(seconds=0.3)
        assert (await waiting).played == timedelta()
        assert (await reply).kind == "played"
    assert log == ["spoken", "answered", "reply"]


async def test_an_utterance_that_waits_is_dropped_without_asking():
    """The gateway has never heard of it, so it is not asked."""

    async def holds(peer: AudioPeer) -> None:
        await peer.ready(credit=960)
        begun = await peer.expect("begin")
        await peer.expect("chunk")
        await asyncio.sleep(0.2)
        await peer.ack(begun.utterance_id, 960)
        while (await peer.read()).WhichOneof("message") == "chunk":
            pass
        await peer.ended(begun.utterance_id)

    async def serve(peer: AttachPeer) -> None:
        await peer.opened()
        assert await peer.until_end() == []

    async with scripted([serve], [holds]) as gateway, opened(gateway) as session:
        first, second = session.say(sound(1920)), session.say(sound(960))
        outcome = await second.interrupt()
        assert (outcome.kind, outcome.played) == ("interrupted", timedelta())
        assert not await second.started()
        assert (await first).kind == "played"


async def test_a_source_that_fails_silences_its_utterance():
    """The caller gets the iterator's exception, and the next utterance is spoken."""
    closings = []

    async def listens(peer: AudioPeer) -> None:
        await peer.ready()
        utterance_id, _, closed = await peer.utterance()
        closings.append(closed)
        await peer.ended(utterance_id, INTERRUPTED, played=played(0.02))
        await peer.speak_all()

    async def breaks():
        yield sound(960)
        raise LookupError("no more words")

    async with scripted(audios=[listens]) as gateway, opened(gateway) as session:
        failing, following = session.say(breaks()), session.say(sound(960))
        with pytest.raises(LookupError, match="no more words"):
            await failing
        assert failing.outcome is not None
        assert failing.outcome.played == timedelta(seconds=0.02)
        assert (await following).kind == "played"
    assert closings == ["cancel"]


async def test_a_source_that_cancels_itself_does_not_hang_the_session():
    async def cancelled():
        yield sound(960)
        raise asyncio.CancelledError

    async with scripted() as gateway, opened(gateway) as session:
        with pytest.raises(RuntimeError, match="cancelled"):
            await session.say(cancelled())


async def test_a_wav_from_a_pipe_is_spoken_and_one_that_keeps_it_back_holds_nothing_up(tmp_path):
    paths = [tmp_path / name for name in ("silent", "spoken")]
    for path in paths:
        os.mkfifo(path)
    async with scripted() as gateway, opened(gateway) as session:
        silent, spoken = (session.say(path) for path in paths)
        writer = await asyncio.to_thread(os.open, paths[0], os.O_WRONLY)  # returns when it is being read
        await silent.interrupt()
        assert silent.outcome is not None
        assert silent.outcome.kind == "interrupted"
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 24_000, 48_000, 2, 16)
        header = b"RIFF\0\0\0\0WAVE" + form + b"data\0\0\0\0"
        await asyncio.to_thread(paths[1].write_bytes, header + sound(960))
        assert (await spoken).played == timedelta(seconds=0.02)
    os.close(writer)


async def test_a_buffer_that_ends_inside_a_sample_is_refused_before_anything_is_sent():
    async with scripted() as gateway, opened(gateway) as session:
        with pytest.raises(AudioMisaligned):
            session.say(sound(961))


async def test_a_source_that_ends_inside_a_sample_is_spoken_without_it_and_a_note_is_left(caplog):
    async with scripted() as gateway, opened(gateway) as session:
        outcome = await session.say(iter([sound(961)]), utterance_id="odd")
        assert (outcome.kind, outcome.error) == ("played", None)
        assert outcome.played == timedelta(seconds=0.02)
    assert "utterance odd ends inside a 2-byte sample; the last 1 bytes were dropped" in caplog.text


async def test_a_blocking_source_does_not_block_the_loop():
    """It sleeps in a thread of its own, while others go on."""
    threads = set()

    def slow():
        for _ in range(5):
            time.sleep(0.05)
            threads.add(threading.current_thread().name)
            yield sound(960)

    async with scripted() as gateway, opened(gateway) as session:
        utterance = session.say(slow())
        ticks = 0
        while utterance.outcome is None:
            await asyncio.sleep(0.005)
            ticks += 1
        assert ticks > 10
        assert (await utterance).kind == "played"
    assert threads == {"liveavatar-source"}


async def test_interrupting_closes_the_source():
    """Its clean-up runs, in a thread for a blocking one."""
    closed = []
    both = threading.Event()

    async def asynchronous():
        try:
            while True:
                yield sound(960)
                await asyncio.sleep(0.01)
        finally:
            closed.append("async")

    def blocking():
        try:
            while True:
                yield sound(960)
                time.sleep(0.01)
        finally:
            closed.append("blocking")
            both.set()

    async with scripted([well_behaved]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            for source in (asynchronous(), blocking()):
                utterance = session.say(source)
                assert await utterance.started()
                assert (await utterance.interrupt()).kind == "interrupted"
        assert await asyncio.to_thread(both.wait, 5)
    assert closed == ["async", "blocking"]


async def test_progress_is_followed_to_the_end():
    async def steps(peer: AudioPeer) -> None:
        await peer.ready()
        utterance_id, audio, _ = await peer.utterance()
        for part in range(4):
            await peer.ack(utterance_id, len(audio) * part // 3, played_s=part / 10)
            await asyncio.sleep(0.02)
        await peer.ended(utterance_id, played=played(0.3))
        await peer.read()

    async with scripted(audios=[steps]) as gateway, opened(gateway) as session:
        utterance = session.say(sound(9600))
        seen = [progress async for progress in utterance.progress_updates()]
        assert utterance.progress.received_bytes == 9600
    assert [progress.received_bytes for progress in seen] == sorted(progress.received_bytes for progress in seen)
    assert seen[-1].played == timedelta(seconds=0.3)


async def test_a_missing_file_is_raised_where_it_is_awaited(tmp_path):
    async with scripted() as gateway, opened(gateway) as session:
        with pytest.raises(FileNotFoundError):
            await session.say(tmp_path / "none.wav")
        assert (await session.say(sound(960))).kind == "played"


async def test_giving_up_the_wait_does_not_silence_the_utterance():
    done = asyncio.Event()

    async def slow(peer: AudioPeer) -> None:
        await peer.ready()
        utterance_id, _, closed = await peer.utterance()
        assert closed == "end"
        await done.wait()
        await peer.ended(utterance_id)
        await peer.read()

    async with scripted(audios=[slow]) as gateway, opened(gateway) as session:
        utterance = session.say(sound(960))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await utterance
        done.set()
        assert (await utterance).kind == "played"
