import asyncio

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from unit.client.fakes import FakeCall, settle

from liveavatar.gateway import AudioFormat, ConnectionLost, OutcomeKind
from liveavatar.gateway.audio_stream import DEFAULT_WAIT_S, AudioStream, StreamPhase
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.utterance import Phase, Stop, UtteranceState
from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as pb

FORMAT = AudioFormat()


def ready(credit=48_000):
    return pb.StreamAudioResponse(ready=pb.AudioReady(credit_bytes=credit, max_chunk_bytes=9600))


def ack(received, *, confirmed=0, credit=48_000):
    return pb.StreamAudioResponse(
        ack=pb.AudioAck(utterance_id="u", received_bytes=received, confirmed_bytes=confirmed, credit_bytes=credit)
    )


def rejected(reason, code, received=0, **metadata):
    info = error_details_pb2.ErrorInfo(domain="gateway.liveavatar", reason=reason, metadata=metadata)
    packed = any_pb2.Any()
    packed.Pack(info)
    error = status_pb2.Status(code=code.value[0], message=reason, details=[packed])
    return pb.StreamAudioResponse(
        rejected=pb.AudioRejected(utterance_id="u", received_bytes=received, error=error)
    )


ENDED = pb.StreamAudioResponse(
    ended=pb.AudioEnded(utterance_id="u", outcome=audio_pb2.UTTERANCE_OUTCOME_COMPLETED)
)


class World:
    """Stream that is being read, and an utterance."""

    def __init__(self):
        self.condition = Condition()
        self.call = FakeCall(ready())
        self.no_room = []
        self.stream = AudioStream(
            self.call,
            pb.AudioHeader(handle="h"),
            FORMAT,
            self.condition,
            on_no_room=lambda *arguments: self.no_room.append(arguments),
        )
        self.utterance = UtteranceState("u", None, self.condition)
        self.running = asyncio.create_task(self.stream.run())

    async def take(self, *messages):
        self.call.arrive(*messages)
        await settle()

    @property
    def kinds(self):
        return [request.WhichOneof("message") for request in self.call.written]


@pytest.fixture
async def world():
    made = World()
    await settle()
    yield made
    made.running.cancel()


async def test_the_header_is_first_and_ready_opens_the_stream(world):
    assert world.kinds == ["header"]
    assert world.stream.phase is StreamPhase.READY


async def test_an_utterance_goes_from_begin_to_its_outcome(world):
    assert await world.stream.begin(world.utterance)
    await world.stream.send(world.utterance, bytes(960))
    await world.take(ack(960))
    assert world.stream.made_progress
    await world.stream.end(world.utterance)
    assert world.utterance.phase is Phase.SEALED
    await world.take(ENDED)
    assert world.utterance.outcome.kind is OutcomeKind.PLAYED
    assert not world.stream.utterances
    assert world.kinds == ["header", "begin", "chunk", "end"]


async def test_bytes_in_flight_stay_within_the_credit(world):
    await world.stream.begin(world.utterance)
    await world.take(ack(0, credit=1920))
    assert world.stream.sendable_bytes(world.utterance, 9600, resend=False) == 1920
    await world.stream.send(world.utterance, bytes(1920))
    assert world.stream.sendable_bytes(world.utterance, 9600, resend=False) == 0
    await world.take(ack(1920, credit=1920))
    assert world.stream.sendable_bytes(world.utterance, 9600, resend=False) == 1920


async def test_a_resumed_utterance_continues_at_the_byte_that_the_gateway_names(world):
    world.utterance.begin()
    world.utterance.window.append(bytes(range(100)) * 10)
    await world.stream.begin(world.utterance)
    assert world.call.written[-1].begin.resume
    assert not world.stream.is_positioned(world.utterance)
    await world.take(ack(400))
    assert world.stream.is_positioned(world.utterance)
    assert world.utterance.window.resend_bytes == 600


async def test_bytes_that_are_not_kept_fail_the_utterance(world):
    world.utterance.begin()
    await world.stream.begin(world.utterance)
    await world.take(ack(400))
    assert world.utterance.stop is Stop.END
    assert isinstance(world.utterance.failure, ConnectionLost)


async def test_without_room_an_utterance_is_queued_again(world):
    await world.stream.begin(world.utterance)
    await world.take(rejected("CAPACITY_EXHAUSTED", grpc.StatusCode.RESOURCE_EXHAUSTED))
    assert world.no_room == [(world.utterance, DEFAULT_WAIT_S)]
    assert world.utterance.phase is Phase.QUEUED
    assert not world.stream.utterances


async def test_an_interrupted_utterance_without_room_is_dropped(world):
    await world.stream.begin(world.utterance)
    world.utterance.stop_sending(Stop.CANCEL)
    await world.take(rejected("CAPACITY_EXHAUSTED", grpc.StatusCode.RESOURCE_EXHAUSTED))
    assert (world.no_room, world.utterance.outcome.kind) == ([], OutcomeKind.INTERRUPTED)


async def test_a_gap_is_sent_again(world):
    await world.stream.begin(world.utterance)
    await world.stream.send(world.utterance, bytes(960))
    await world.take(rejected("AUDIO_GAP", grpc.StatusCode.FAILED_PRECONDITION, received=480, expected="480"))
    assert world.utterance.window.resend_bytes == 480
    await world.stream.resend(world.utterance, 480)
    assert world.call.written[-1].chunk.offset_bytes == 480


async def test_a_refused_begin_fails_the_utterance_at_once(world):
    await world.stream.begin(world.utterance)
    await world.take(rejected("UTTERANCE_ID_REUSED", grpc.StatusCode.ALREADY_EXISTS))
    assert world.utterance.outcome.error.reason == "UTTERANCE_ID_REUSED"
    assert world.utterance.stop is Stop.NOT_BEGUN


async def test_a_refused_chunk_seals_the_utterance(world):
    await world.stream.begin(world.utterance)
    await world.take(ack(0), rejected("CHUNK_TOO_LARGE", grpc.StatusCode.INVALID_ARGUMENT))
    assert (world.utterance.stop, world.utterance.outcome) == (Stop.END, None)


async def test_a_broken_call_closes_the_stream_and_keeps_its_reason(world):
    await world.stream.begin(world.utterance)
    lost = ConnectionLost("lost")
    await world.take(lost)
    assert (world.stream.phase, world.stream.error) == (StreamPhase.CLOSED, lost)
    assert world.stream.take_unfinished() == [world.utterance]
    assert not world.stream.utterances
