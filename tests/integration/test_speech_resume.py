"""A `StreamAudio` that breaks loses no byte: another one goes on where the first was."""

import asyncio

import grpc
import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import audio_pb2
from testkit import speech
from testkit.caller import Caller, Refusal, refused
from testkit.caller import caller as connect
from testkit.processes import Emulator

CHUNK = 9_600
COMPLETED = audio_pb2.UTTERANCE_OUTCOME_COMPLETED
INTERRUPTED = audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED


async def _chunks(stream, pcm: bytes, start: int, stop: int) -> None:
    """Send a part of `pcm`, each chunk with its offset."""
    for at in range(start, stop, CHUNK):
        await stream.chunk(pcm[at : min(at + CHUNK, stop)], offset=at)


async def _received(stream, size: int) -> None:
    while (await stream.until("ack")).received_bytes < size:
        pass


async def _heard(emulator: Emulator, upstream_id: str, number: int) -> bytes:
    return await asyncio.to_thread(emulator.utterance_audio, upstream_id, number)


@pytest.mark.parametrize("how", ["hung up", "half closed", "taken over"])
async def test_an_utterance_goes_on_where_its_stream_broke(caller: Caller, shared_gateway, emulator, how):
    created = (await caller.create()).session
    pcm = speech.sound(2.0)
    async with connect(shared_gateway.address) as other:
        first = await other.speak(created.id)
        await first.begin("u")
        await _chunks(first, pcm, 0, len(pcm) // 2)
        await _received(first, len(pcm) // 2)
        if how == "half closed":
            await first.call.done_writing()
        if how == "hung up":
            first.call.cancel()
        second = await caller.speak(created.id)
        ack = await second.resume("u")
        assert (ack.utterance_id, ack.received_bytes) == ("u", len(pcm) // 2)
        # A caller that is not sure sends some of it again: what was received already is dropped.
        await _chunks(second, pcm, ack.received_bytes - 2 * CHUNK, len(pcm))
        await second.end()
        ended = await second.until("ended")
        assert ended.outcome == COMPLETED
        assert ended.played.ToTimedelta().total_seconds() == pytest.approx(2.0, abs=0.01)
        assert await _heard(emulator, created.upstream_session_id, 0) == pcm
        if how != "hung up":
            assert await first.status() is grpc.StatusCode.ABORTED
    await caller.end(created.id)


async def test_audio_still_on_its_way_to_a_stream_that_was_taken_over_is_not_taken_twice(caller, emulator):
    created = (await caller.create()).session
    pcm = speech.sound(3.0)
    first = await caller.speak(created.id)
    await first.begin("u")
    sending = asyncio.create_task(_without_offsets(first, pcm))
    await asyncio.sleep(0.05)
    second = await caller.speak(created.id)
    ack = await second.resume("u")
    await sending
    await _chunks(second, pcm, ack.received_bytes, len(pcm))
    await second.end()
    assert (await second.until("ended")).outcome == COMPLETED
    assert await _heard(emulator, created.upstream_session_id, 0) == pcm
    await caller.end(created.id)


async def _without_offsets(stream, pcm: bytes) -> None:
    try:
        for at in range(0, len(pcm), 960):
            await stream.chunk(pcm[at : at + 960])
    except grpc.aio.AioRpcError:
        return


async def test_several_utterances_are_resumed_oldest_first_and_each_is_told_of(caller: Caller, emulator):
    created = (await caller.create()).session
    pcm = [speech.sound(1.5, seed=seed) for seed in range(3)]
    first = await caller.speak(created.id)
    await first.say(pcm[0], "spoken")
    await first.say(pcm[1], "waiting")
    await first.begin("open")
    await _chunks(first, pcm[2], 0, CHUNK)
    await first.until("started")
    first.call.cancel()
    second = await caller.speak(created.id)
    assert (await second.resume("spoken")).received_bytes == len(pcm[0])
    await second.end()
    # Without its `end`: it had been sealed already, so the next `begin` is in order.
    assert (await second.resume("waiting")).received_bytes == len(pcm[1])
    ack = await second.resume("open")
    await _chunks(second, pcm[2], ack.received_bytes, len(pcm[2]))
    await second.end()
    ends = [await second.until("ended") for _ in pcm]
    assert [(end.utterance_id, end.outcome) for end in ends] == [
        ("spoken", COMPLETED),
        ("waiting", COMPLETED),
        ("open", COMPLETED),
    ]
    started = [one.started.utterance_id for one in second.received if one.WhichOneof("message") == "started"]
    assert started == ["spoken", "waiting", "open"]
    for number, said in enumerate(pcm):
        assert await _heard(emulator, created.upstream_session_id, number) == said
    await caller.end(created.id)


async def test_an_utterance_that_has_ended_is_answered_with_its_end_again(caller: Caller, emulator):
    created = (await caller.create()).session
    first = await caller.speak(created.id)
    await first.say(speech.sound(0.5), "u")
    told = await first.until("ended")
    second = await caller.speak(created.id)
    await second.begin("u", resume=True)
    # What its caller had sent behind it, not yet knowing that it ended, does no harm.
    await second.chunk(speech.sound(0.1))
    await second.end()
    assert await second.until("ended") == told
    await second.say(speech.sound(0.2), "next")
    assert (await second.until("ended")).utterance_id == "next"
    state = await asyncio.to_thread(emulator.session, created.upstream_session_id)
    assert len(state["utterances"]) == 2
    await caller.end(created.id)


async def test_an_utterance_that_is_not_known_begins_anew(caller: Caller, emulator):
    created = (await caller.create()).session
    stream = await caller.speak(created.id)
    assert (await stream.resume("never heard of")).received_bytes == 0
    pcm = speech.sound(0.5)
    await _chunks(stream, pcm, 0, len(pcm))
    await stream.end()
    assert (await stream.until("ended")).outcome == COMPLETED
    assert await _heard(emulator, created.upstream_session_id, 0) == pcm
    await caller.end(created.id)


@pytest.mark.parametrize("received", [1, 2_001, 47_999])
async def test_an_utterance_goes_on_inside_a_sample(caller: Caller, emulator, received):
    created = (await caller.create()).session
    pcm = speech.sound(1.0)
    first = await caller.speak(created.id)
    await first.begin("u")
    await first.chunk(pcm[:received], 0, utterance_id="u")
    await _received(first, received)
    first.call.cancel()
    second = await caller.speak(created.id)
    ack = await second.resume("u")
    assert ack.received_bytes == received
    # Some of it again, from another odd byte.
    again = max(0, received - 501)
    await second.chunk(pcm[again:], again, utterance_id="u")
    await second.end("u")
    ended = await second.until("ended")
    assert (ended.outcome, ended.dropped_tail_bytes) == (COMPLETED, 0)
    assert await _heard(emulator, created.upstream_session_id, 0) == pcm
    await caller.end(created.id)


async def test_a_file_is_refused_although_its_stream_broke_inside_its_header(caller: Caller):
    created = (await caller.create()).session
    first = await caller.speak(created.id)
    await first.begin("u")
    await first.chunk(b"RI", 0)
    await _received(first, 2)
    first.call.cancel()
    second = await caller.speak(created.id)
    assert (await second.resume("u")).received_bytes == 2
    await second.chunk(b"FF\x24\x08\x00\x00WAVEfmt ", 2)
    assert Refusal((await second.until("rejected")).error).reason == "AUDIO_CONTAINER_DETECTED"
    assert (await second.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED
    await caller.end(created.id)


async def test_a_refusal_that_the_broken_stream_did_not_deliver_is_told_again(caller: Caller):
    created = (await caller.create()).session
    first = await caller.speak(created.id)
    await first.begin("u")
    await first.chunk(speech.sound(1.0))
    await first.chunk(bytes(256 * 1024 + 2))
    why = await first.until("rejected")
    first.call.cancel()
    second = await caller.speak(created.id)
    await second.begin("u", resume=True)
    assert await second.until("rejected") == why
    ended = await second.until("ended")
    assert (ended.outcome, Refusal(ended.error).reason) == (audio_pb2.UTTERANCE_OUTCOME_FAILED, "CHUNK_TOO_LARGE")
    await caller.end(created.id)


async def test_an_utterance_nobody_comes_back_for_is_cancelled_after_the_grace(caller: Caller):
    attachment = await caller.attach(detach_grace=duration_pb2.Duration(nanos=600_000_000))
    stream = await caller.speak(attachment.session_id)
    await stream.begin("u")
    await stream.chunk(speech.sound(1.0))
    await stream.until("started")
    stream.call.cancel()
    ended = await attachment.event("utterance_ended")
    assert (ended.utterance_id, ended.outcome) == ("u", INTERRUPTED)
    await caller.end(attachment.session_id)


async def test_a_caller_that_goes_on_with_something_else_does_not_wait_behind_what_it_left(caller: Caller):
    created = (await caller.create()).session
    first = await caller.speak(created.id)
    await first.begin("left")
    await first.chunk(speech.sound(3.0))
    await first.until("started")
    first.call.cancel()
    second = await caller.speak(created.id)
    await second.say(speech.sound(0.5), "something else")
    assert (await second.until("ended")).outcome == COMPLETED
    await second.begin("left", resume=True)
    left = await second.until("ended")
    assert (left.utterance_id, left.outcome) == ("left", INTERRUPTED)
    await caller.end(created.id)


async def test_an_utterance_is_resumed_in_the_format_it_was_begun_in(caller: Caller):
    created = (await caller.create()).session
    first = await caller.speak(created.id)
    await first.begin("u")
    await first.chunk(speech.sound(0.1))
    await _received(first, 4_800)
    second = await caller.speak(created.id, sample_rate_hz=16_000)
    await second.begin("u", resume=True)
    why = Refusal((await second.until("rejected")).error)
    assert (why.reason, why.field) == ("INVALID_FIELD", "header.format")
    await second.begin("", resume=True)
    why = Refusal((await second.until("rejected")).error)
    assert (why.reason, why.field) == ("INVALID_FIELD", "begin.utterance_id")
    await caller.end(created.id)


async def test_speech_of_a_session_that_has_ended_meanwhile_is_refused_with_the_reason_of_its_end(caller: Caller):
    created = (await caller.create()).session
    first = await caller.speak(created.id)
    await first.begin("u")
    await caller.end(created.id)
    why = await refused(caller.speak(created.id))
    assert (why.reason, why.metadata["end_reason"]) == ("SESSION_ENDED", "CALLER_ENDED")
