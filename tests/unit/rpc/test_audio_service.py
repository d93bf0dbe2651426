"""The first message of an audio stream: which session, and in which format."""

from types import SimpleNamespace

import grpc
import pytest

from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as p
from liveavatar_gateway.auth.limiter import Limiter
from liveavatar_gateway.core.errors import AudioFormatUnsupported, HeaderRequired, InvalidField, SessionEnded
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rpc.audio_service import AudioService
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.telemetry.metrics import Metrics
from testkit.actors import Context, Process


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


@pytest.fixture
async def session(process):
    return await process.ready()


@pytest.fixture
def service(session):
    async def find(*_: object, **__: object):
        return session

    directory = SimpleNamespace(get=find, by_handle=find)
    return AudioService(RpcConfig(speech=SpeechConfig()), directory, Limiter(lambda _: None), Metrics())


@pytest.mark.parametrize("target", [{"session_id": "s"}, {"handle": "h"}])
async def test_a_header_opens_the_stream_of_its_session(service, session, target):
    context = Context([p.StreamAudioRequest(header=p.AudioHeader(**target)), grpc.aio.EOF])
    await service.StreamAudio(None, context)
    assert (await context.until("ready")).session_id == session.id


@pytest.mark.parametrize("first", [p.StreamAudioRequest(begin=p.BeginUtterance()), grpc.aio.EOF])
async def test_a_stream_begins_with_its_header(service, first):
    with pytest.raises(HeaderRequired):
        await service.StreamAudio(None, Context([first]))


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (p.AudioHeader(), InvalidField),
        (
            p.AudioHeader(session_id="s", format=audio_pb2.AudioFormat(sample_rate_hz=1)),
            AudioFormatUnsupported,
        ),
    ],
    ids=["no session", "no such rate"],
)
async def test_a_header_that_cannot_be_served_is_refused(service, header, error):
    with pytest.raises(error):
        await service.StreamAudio(None, Context([p.StreamAudioRequest(header=header)]))


async def test_a_session_that_is_over_takes_no_audio(service, session):
    session.end(EndReason.CALLER_ENDED)
    with pytest.raises(SessionEnded):
        await service.StreamAudio(None, Context([p.StreamAudioRequest(header=p.AudioHeader(session_id="s"))]))


@pytest.mark.parametrize("target", [{"session_id": "s"}, {"handle": "h"}])
async def test_a_header_opens_the_ear_of_its_session(service, session, target):
    mulaw = audio_pb2.AudioFormat(encoding=audio_pb2.AUDIO_ENCODING_MULAW)
    header = p.ListenHeader(**target, format=mulaw)
    context = Context([p.ListenAudioRequest(header=header), grpc.aio.EOF])
    await service.ListenAudio(None, context)
    assert context.written.empty(), "it has not joined"


@pytest.mark.parametrize("first", [p.ListenAudioRequest(credit=p.ListenCredit(bytes=1)), grpc.aio.EOF])
async def test_an_ear_begins_with_its_header_too(service, first):
    with pytest.raises(HeaderRequired):
        await service.ListenAudio(None, Context([first]))


async def test_a_session_that_is_over_is_not_heard(service, session):
    session.end(EndReason.CALLER_ENDED)
    with pytest.raises(SessionEnded):
        await service.ListenAudio(None, Context([p.ListenAudioRequest(header=p.ListenHeader(session_id="s"))]))
