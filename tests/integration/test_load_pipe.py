"""HTTP/2 by hand against a real gateway: any size of message, more than a window of them, every way it ends."""

import asyncio
import signal
from collections.abc import Iterator

import grpc
import pytest

from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as audio
from load.pipe import AudioPipe, open_pipe
from testkit import processes, speech
from testkit.caller import Caller
from testkit.caller import caller as connect


class Ear:
    """Notes what a pipe hears."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[audio.StreamAudioResponse | None] = asyncio.Queue()

    def on_message(self, message: audio.StreamAudioResponse) -> None:
        self.messages.put_nowait(message)

    def on_closed(self) -> None:
        self.messages.put_nowait(None)

    async def until(self, kind: str) -> audio.StreamAudioResponse:
        while True:
            message = await asyncio.wait_for(self.messages.get(), 20)
            assert message is not None, "closed"
            if message.WhichOneof("message") == kind:
                return message


@pytest.fixture(scope="module")
def gateway(shared_emulator: processes.Emulator) -> Iterator[processes.Gateway]:
    with processes.gateway(shared_emulator.url) as found:
        yield found


@pytest.fixture
async def caller(emulator, gateway: processes.Gateway):
    async with connect(gateway.address) as found:
        yield found


async def _open(caller: Caller, gateway: processes.Gateway) -> tuple[AudioPipe, Ear, str, str]:
    created = await caller.create()
    ear = Ear()
    pipe = await open_pipe(gateway.address, ear.on_message, ear.on_closed)
    await pipe.write(audio.StreamAudioRequest(header=audio.AudioHeader(session_id=created.session.id)))
    await ear.until("ready")
    return pipe, ear, created.session.id, created.session.upstream_session_id


async def _say(pipe: AudioPipe, pcm: bytes, size: int) -> None:
    await pipe.write(audio.StreamAudioRequest(begin=audio.BeginUtterance(utterance_id="u")))
    for at in range(0, len(pcm), size):
        assert await pipe.write(audio.StreamAudioRequest(chunk=audio.AudioChunk(audio=pcm[at : at + size])))
    await pipe.write(audio.StreamAudioRequest(end=audio.EndUtterance()))


@pytest.mark.parametrize(
    ("size", "seconds"), [(2, 0.05), (960, 1.0), (16_376, 1.0), (16_384, 1.0), (200_000, 5.0)]
)
async def test_chunks_of_any_size_arrive_whole(caller: Caller, emulator, gateway, size: int, seconds: float):
    """Those that fill a frame to the last byte, those one byte longer, and those longer than any window."""
    pcm = speech.sound(seconds)
    pipe, ear, session_id, upstream_id = await _open(caller, gateway)
    await _say(pipe, pcm, size)
    assert (await ear.until("ended")).ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    assert emulator.audio(upstream_id) == pcm
    await caller.end(session_id)
    pipe.cancel()


async def test_a_gateway_that_stands_still_is_waited_for_and_loses_nothing(caller: Caller, emulator, gateway):
    """More is written than both windows hold; the writer waits, and goes on when it may."""
    pcm = speech.sound(10.0)
    pipe, ear, session_id, upstream_id = await _open(caller, gateway)
    gateway.process.send(signal.SIGSTOP)
    writing = asyncio.create_task(_say(pipe, pcm, 9_600))
    await asyncio.sleep(0.5)
    assert not writing.done(), "nothing can take 480 kB meanwhile"
    gateway.process.send(signal.SIGCONT)
    await asyncio.wait_for(writing, 20)
    assert (await ear.until("ended")).ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    assert emulator.audio(upstream_id) == pcm
    await caller.end(session_id)
    pipe.cancel()


async def test_a_half_closed_pipe_is_closed_by_the_gateway(caller: Caller, gateway):
    pipe, ear, session_id, _ = await _open(caller, gateway)
    await _say(pipe, speech.sound(0.2), 960)
    await pipe.finish_writing()
    await ear.until("ended")
    assert await asyncio.wait_for(ear.messages.get(), 20) is None
    assert not await pipe.write(audio.StreamAudioRequest(begin=audio.BeginUtterance()))
    await caller.end(session_id)


async def test_a_refused_header_closes_the_pipe(gateway):
    ear = Ear()
    pipe = await open_pipe(gateway.address, ear.on_message, ear.on_closed)
    await pipe.write(audio.StreamAudioRequest(header=audio.AudioHeader(session_id="nobody")))
    assert await asyncio.wait_for(ear.messages.get(), 20) is None
    pipe.cancel()


async def test_a_gateway_that_dies_closes_the_pipe(shared_emulator):
    with processes.gateway(shared_emulator.url) as mortal:
        async with connect(mortal.address) as caller:
            pipe, ear, _, upstream_id = await _open(caller, mortal)
            mortal.process.send(signal.SIGKILL)
            assert await asyncio.wait_for(ear.messages.get(), 20) is None
            pipe.cancel()
    key = {"X-API-KEY": processes.API_KEY}
    shared_emulator.http.post("/v1/sessions/stop", headers=key, json={"session_id": upstream_id})


@pytest.mark.long
async def test_a_long_silence_is_survived(shared_emulator):
    """The gateway pings idle connections; the pipe answers, so the call goes on."""
    with processes.gateway(shared_emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            pipe, ear, session_id, _ = await _open(caller, gateway)
            await asyncio.sleep(25)
            await _say(pipe, speech.sound(0.2), 960)
            assert (await ear.until("ended")).ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(session_id)
            pipe.cancel()


async def test_a_call_has_its_metadata_also_a_long_token():
    """A token is longer than the lengths that fit into one byte."""
    seen = asyncio.Queue()

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            seen.put_nowait(dict(handler_call_details.invocation_metadata))

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handler(),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        for secret in ("lag_key", "t" * 126, "t" * 700):
            metadata = (("authorization", f"Bearer {secret}"),)
            pipe = await open_pipe(target, lambda _: None, lambda: None, metadata)
            assert (await asyncio.wait_for(seen.get(), 10))["authorization"] == f"Bearer {secret}"
            pipe.cancel()
    finally:
        await server.stop(0)
