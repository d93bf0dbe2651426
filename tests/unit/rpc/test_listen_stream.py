"""Exchange on `ListenAudio`: what the header may ask for, and audio as far as the credit goes."""

import asyncio
from datetime import UTC, datetime

import grpc
import pytest

from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as p
from liveavatar_gateway.core.errors import (
    AudioFormatUnsupported,
    InvalidField,
    OwnerMoved,
    RoomUnreachable,
    SessionEnded,
    UnexpectedMessage,
)
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.listen_stream import ListenStream
from liveavatar_gateway.sessions.user_audio import Listener
from liveavatar_gateway.telemetry.metrics import Metrics
from testkit.actors import Context, Process


class Ears:
    """User audio of a session, played by a test."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        self.listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        self.listeners.remove(listener)

    def close(self) -> None: ...


class Call:
    """`ListenAudio` call of a caller."""

    def __init__(self, session, *, heartbeat_s: float = 0.0, **header) -> None:
        self.session = session
        self.ears = session.user_audio = Ears()
        self.context = Context()
        self.metrics = Metrics()
        config = RpcConfig(speech=SpeechConfig(), heartbeat_s=heartbeat_s)
        stream = ListenStream(session, p.ListenHeader(**header), config, self.metrics, self.context)
        self.running = asyncio.create_task(stream.run())

    async def join(self) -> Listener:
        async with asyncio.timeout(5):
            while not self.ears.listeners:
                await asyncio.sleep(0)
        self.ears.listeners[0].join()
        return self.ears.listeners[0]

    def send(self, **message) -> None:
        self.context.requests.put_nowait(p.ListenAudioRequest(**message))

    def half_close(self) -> None:
        self.context.requests.put_nowait(grpc.aio.EOF)

    async def end(self) -> None:
        await asyncio.wait_for(self.running, 5)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


@pytest.fixture
async def session(process):
    return await process.ready()


async def test_ready_comes_with_the_room_and_audio_with_its_user_and_time(session):
    call = Call(session)
    await asyncio.sleep(0.01)
    assert call.context.written.empty()
    listener = await call.join()
    ready = await call.context.until("ready")
    assert (ready.session_id, ready.chunk_bytes) == (session.id, 960)
    assert not ready.HasField("heartbeat_interval")
    listener.take("ann", b"a" * 960, 1_700_000_000.5)
    audio = await call.context.until("audio")
    assert (audio.participant, audio.sequence, audio.audio) == ("ann", 1, b"a" * 960)
    assert audio.captured_at.ToDatetime(UTC) == datetime.fromtimestamp(1_700_000_000.5, UTC)
    assert not audio.HasField("dropped")
    assert call.value("gateway_listeners") == 1
    call.half_close()
    await call.end()
    assert call.ears.listeners == []
    assert call.value("gateway_listeners") == 0
    assert call.value("gateway_user_audio_seconds_total", outcome="sent") == pytest.approx(0.02)


async def test_credit_that_comes_later_brings_what_waits_and_the_duration_of_what_was_dropped(session):
    call = Call(session, credit_bytes=1)
    listener = await call.join()
    await call.context.until("ready")
    listener.take("ann", bytes(3 * 48_000), 1.0)
    call.send(credit=p.ListenCredit(bytes=1_000))
    audio = await call.context.until("audio")
    assert audio.dropped.ToTimedelta().total_seconds() == 1.0
    assert audio.sequence == 51
    call.half_close()
    await call.end()
    assert call.value("gateway_user_audio_seconds_total", outcome="dropped") == 1.0


async def test_mulaw_of_named_users(session):
    mulaw = audio_pb2.AudioFormat(encoding=audio_pb2.AUDIO_ENCODING_MULAW, sample_rate_hz=8_000)
    header = p.ListenHeader(format=mulaw, participants=["ann"])
    header.chunk_duration.FromMilliseconds(100)
    call = Call(session, format=mulaw, participants=["ann"], chunk_duration=header.chunk_duration)
    listener = await call.join()
    assert (await call.context.until("ready")).chunk_bytes == 800
    assert listener.rate_hz == 8_000
    assert listener.hears("ann")
    assert not listener.hears("bob")
    listener.take("ann", bytes(1_600), 1.0)
    assert (await call.context.until("audio")).audio == b"\xff" * 800
    call.half_close()
    await call.end()


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"format": audio_pb2.AudioFormat(sample_rate_hz=44_100)}, "header.format.sample_rate_hz"),
        ({"credit_bytes": -1}, "header.credit_bytes"),
        ({"chunk_duration": {"nanos": 15_000_000}}, "header.chunk_duration"),
        ({"chunk_duration": {"nanos": 9_000_000}}, "header.chunk_duration"),
        ({"chunk_duration": {"seconds": 1}}, "header.chunk_duration"),
        ({"participants": [""]}, "header.participants"),
    ],
)
async def test_a_header_that_cannot_be_served_is_refused_with_its_field(session, header, field):
    with pytest.raises((InvalidField, AudioFormatUnsupported)) as refused:
        Call(session, **header)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"credit": p.ListenCredit()}, InvalidField),
        ({"header": p.ListenHeader()}, UnexpectedMessage),
        ({}, UnexpectedMessage),
    ],
)
async def test_a_message_out_of_the_grammar_ends_the_stream(session, message, error):
    call = Call(session)
    await call.join()
    call.send(**message)
    with pytest.raises(error):
        await call.end()
    assert call.ears.listeners == []


async def test_heartbeats_keep_a_silent_stream_open(session):
    call = Call(session, heartbeat_s=0.01)
    await call.join()
    ready = await call.context.until("ready")
    assert ready.heartbeat_interval.ToTimedelta().total_seconds() == 0.01
    call.send(heartbeat={})
    await call.context.until("heartbeat")
    call.half_close()
    await call.end()


async def test_the_end_of_the_session_ends_the_stream_after_what_is_left(session):
    call = Call(session)
    listener = await call.join()
    await call.context.until("ready")
    listener.buffer.append("ann", b"a" * 960, 1.0)
    session.end(EndReason.CALLER_ENDED)
    await call.context.until("audio")
    await call.end()


async def test_a_session_that_ends_before_the_room_was_joined_is_reported(session):
    call = Call(session)
    async with asyncio.timeout(5):
        while not call.ears.listeners:
            await asyncio.sleep(0)
    session.end(EndReason.CALLER_ENDED)
    with pytest.raises(SessionEnded):
        await call.end()


async def test_the_error_of_a_listener_is_that_of_its_stream(session):
    call = Call(session)
    listener = await call.join()
    listener.fail(RoomUnreachable("no answer in time"))
    with pytest.raises(RoomUnreachable):
        await call.end()


async def test_a_session_that_another_process_owns_is_followed_there(session):
    call = Call(session)
    await call.join()
    await call.context.until("ready")
    session.attachments.supersede_all(OwnerMoved("s"))
    with pytest.raises(OwnerMoved):
        await call.end()
