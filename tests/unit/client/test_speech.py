import asyncio
from datetime import timedelta

import pytest
from unit.client.fakes import FakeCall, connecting, retries, settle

from liveavatar.gateway import (
    AudioFormat,
    Outcome,
    OutcomeKind,
    SessionEnded,
    TooManyUtterances,
    UtteranceIdReused,
)
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.source import source_of
from liveavatar.gateway.speech import MAX_UTTERANCES, Speech
from liveavatar.gateway.utterance import UtteranceState
from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as pb


class SpokenCall(FakeCall):
    """Gateway that speaks each utterance at once, unless it is told to hold their ends back."""

    def __init__(self, *, holds=False):
        ready = pb.AudioReady(credit_bytes=96_000, max_chunk_bytes=9600)
        super().__init__(pb.StreamAudioResponse(ready=ready))
        self.holds = holds
        self.heard = {}

    async def write(self, request):
        match request.WhichOneof("message"):
            case "begin":
                self.heard[request.begin.utterance_id] = b""
                ack = pb.AudioAck(utterance_id=request.begin.utterance_id, credit_bytes=96_000)
                self.arrive(pb.StreamAudioResponse(ack=ack))
            case "chunk":
                self.heard[request.chunk.utterance_id] += request.chunk.audio
            case "end" if not self.holds:
                self.end(request.end.utterance_id)
        return await super().write(request)

    def end(self, utterance_id, outcome=audio_pb2.UTTERANCE_OUTCOME_COMPLETED):
        self.arrive(pb.StreamAudioResponse(ended=pb.AudioEnded(utterance_id=utterance_id, outcome=outcome)))


class World:
    """Speech of one session over prepared calls."""

    def __init__(self, *calls):
        self.calls, self.resumed = list(calls), []
        self.condition = Condition()
        self.speech = Speech(
            connecting(self.calls),
            lambda: "handle",
            lambda: timedelta(seconds=5),
            self.condition,
            retries(),
            on_resumed=lambda *arguments: self.resumed.append(arguments),
            chunk_s=0.1,
        )
        self.running = asyncio.create_task(self.speech.run())

    def say(self, utterance_id, audio=bytes(960), audio_format=None):
        state = UtteranceState(utterance_id, source_of(audio, audio_format, AudioFormat()), self.condition)
        self.speech.submit(state)
        return state

    async def stop(self):
        self.running.cancel()
        await asyncio.wait({self.running})


async def test_utterances_are_sent_in_order_on_one_stream():
    call = SpokenCall()
    world = World(call)
    said = [world.say(name, name.encode() * 960) for name in "abc"]
    outcomes = [await asyncio.wait_for(utterance.done, 5) for utterance in said]
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.PLAYED] * 3
    assert call.heard == {name: name.encode() * 960 for name in "abc"}
    assert list(call.heard) == ["a", "b", "c"]
    assert world.speech.idle
    await world.stop()


async def test_another_format_waits_for_a_stream_of_its_own():
    first, second = SpokenCall(holds=True), SpokenCall()
    world = World(first, second)
    world.say("a")
    other = world.say("b", audio_format=AudioFormat(sample_rate_hz=16_000))
    await settle(100)
    assert not second.written
    first.end("a")
    await asyncio.wait_for(other.done, 5)
    assert second.written[0].header.format.sample_rate_hz == 16_000
    assert first.half_closed
    await world.stop()


async def test_what_a_broken_stream_leaves_is_resumed_before_anything_new():
    first, second = SpokenCall(holds=True), SpokenCall()
    world = World(first, second)
    left = world.say("a")
    await settle(100)
    first.arrive(None)
    new = world.say("b")
    await asyncio.wait_for(asyncio.wait({left.done, new.done}), 5)
    begins = [request.begin for request in second.written if request.WhichOneof("message") == "begin"]
    assert [(begin.utterance_id, begin.resume) for begin in begins] == [("a", True), ("b", False)]
    assert len(world.resumed) == 1
    await world.stop()


async def test_within_an_interrupt_nothing_is_begun_and_the_queue_is_dropped():
    call = SpokenCall(holds=True)
    world = World(call)
    with world.speech.interrupting(""):
        later = world.say("later")
        await settle(50)
        assert not call.written
    await settle(100)
    with world.speech.interrupting("later") as interrupted:
        assert interrupted == [later]
    await settle(50)
    assert later.stop is not None
    await world.stop()


async def test_an_id_that_is_in_use_is_refused():
    world = World(SpokenCall(holds=True))
    world.say("a")
    with pytest.raises(UtteranceIdReused):
        world.say("a")
    await world.stop()


async def test_more_utterances_than_a_session_keeps_are_refused():
    world = World(SpokenCall(holds=True))
    for number in range(MAX_UTTERANCES):
        world.say(str(number))
    with pytest.raises(TooManyUtterances):
        world.say("one more")
    await world.stop()


async def test_the_end_by_events_counts_when_no_stream_has_the_utterance():
    world = World(SpokenCall(holds=True))
    with world.speech.interrupting("nobody"):
        waiting = world.say("a")
        outcome = Outcome(utterance_id="a", kind=OutcomeKind.PLAYED, played=timedelta(seconds=1))
        world.speech.on_started("a")
        world.speech.on_ended(outcome)
        assert (waiting.started, waiting.outcome) == (True, outcome)
    await world.stop()


async def test_the_end_of_the_session_fails_everything():
    world = World(SpokenCall(holds=True))
    said = [world.say(name) for name in "ab"]
    await settle(100)
    error = SessionEnded("over")
    world.speech.fail_all(error)
    assert [utterance.outcome.error for utterance in said] == [error, error]
    await world.stop()


async def test_an_error_of_the_audio_is_the_utterances_own():
    def breaks():
        yield bytes(960)
        raise LookupError("no more audio")

    call = SpokenCall()
    world = World(call)
    broken, next_one = world.say("a", breaks()), world.say("b")
    async with asyncio.timeout(5):
        while not any(request.WhichOneof("message") == "cancel" for request in call.written):
            await asyncio.sleep(0)
        call.end("a", audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED)
        assert isinstance((await broken.done).error, LookupError)
        assert (await next_one.done).kind is OutcomeKind.PLAYED
    await world.stop()
