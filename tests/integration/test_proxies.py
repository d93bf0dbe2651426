"""Streams through the proxies that people put in front of a gateway, with the settings of `deploy`."""

import asyncio
import contextlib

import grpc
import pytest

from liveavatar.gateway.v1 import audio_pb2, stream_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as audio
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import processes, speech
from testkit.caller import caller as connect
from testkit.proxies import proxy

BEAT_S = 0.4
SILENCE_S = 3.5
"""Longer than the time-outs below, which are a second each."""

IMPATIENT = {
    "nginx": {
        "client_body_timeout 60s": "client_body_timeout 1s",
        "grpc_read_timeout 60s": "grpc_read_timeout 1s",
        "grpc_send_timeout 60s": "grpc_send_timeout 1s",
    },
    "haproxy": {"timeout client 60s": "timeout client 1s", "timeout server 60s": "timeout server 1s"},
    "envoy": {"stream_idle_timeout: 60s": "stream_idle_timeout: 1s"},
}


@pytest.fixture(scope="module")
def beating(shared_emulator):
    """Run a gateway that sends heartbeats often enough for impatient proxies."""
    with processes.gateway(shared_emulator.url, heartbeat_s=BEAT_S, watch_progress_s=BEAT_S) as found:
        yield found


@pytest.fixture(scope="module")
def silent(shared_emulator):
    """Run a gateway without heartbeats."""
    with processes.gateway(shared_emulator.url, heartbeat_s=0) as found:
        yield found


@pytest.mark.parametrize("kind", ["nginx", "haproxy", "envoy"])
async def test_heartbeats_of_both_sides_keep_silent_streams_open(beating, emulator, kind):
    with proxy(kind, beating.address, IMPATIENT[kind]) as address:
        async with connect(address) as caller, asyncio.TaskGroup() as tasks:
            attachment = await caller.attach()
            beats = tasks.create_task(
                _beat(attachment.call, sessions.AttachRequest(heartbeat=stream_pb2.Heartbeat()))
            )
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            audio_beats = tasks.create_task(
                _beat(stream.call, audio.StreamAudioRequest(heartbeat=stream_pb2.Heartbeat()))
            )
            await asyncio.sleep(SILENCE_S)
            audio_beats.cancel()
            pcm = speech.sound(0.5)
            await stream.say(pcm, "after the silence")
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            beats.cancel()
            assert (await attachment.command("x", stop_listening=sessions.StopListening())).status.code == 0
            assert emulator.audio(attachment.upstream_id) == pcm
            async with connect(beating.address) as direct:
                await direct.end(attachment.session_id)


@pytest.mark.parametrize("kind", ["nginx", "haproxy", "envoy"])
async def test_without_them_the_same_streams_are_cut(silent, kind):
    with proxy(kind, silent.address, IMPATIENT[kind]) as address:
        async with connect(address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            assert await attachment.closed() is not grpc.StatusCode.OK
            assert await stream.status() is not grpc.StatusCode.OK
            async with connect(silent.address) as direct:
                await direct.end(attachment.session_id)


async def test_more_speech_than_a_megabyte_passes_nginx(beating):
    """Audio of 21 s: nginx accepts no larger request body by default."""
    pcm = speech.sound(29.0)
    with proxy("nginx", beating.address) as address:
        async with connect(address) as caller:
            session = (await caller.create()).session
            stream = await caller.speak(session.id)
            await stream.begin("long")
            for start in range(0, len(pcm), 96_000):
                await stream.chunk(pcm[start : start + 96_000], start)
            while (await stream.until("ack")).received_bytes < len(pcm):
                pass
            await caller.end(session.id)


@pytest.mark.parametrize("kind", ["nginx", "haproxy", "envoy"])
async def test_the_end_of_a_session_comes_through_whole(beating, kind):
    with proxy(kind, beating.address) as address:
        async with connect(address) as caller:
            for _ in range(5):
                attachment = await caller.attach()
                await attachment.until_ready()
                stream = await caller.speak(attachment.session_id)
                await stream.begin("u")
                await stream.chunk(speech.sound(0.2))
                await stream.until("ack")
                await caller.end(attachment.session_id)
                await attachment.event("ended")
                await attachment.call.done_writing()
                assert await attachment.closed() is grpc.StatusCode.OK
                assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED


async def test_envoy_refuses_a_flood_of_calls_with_a_status_that_clients_know(beating):
    with proxy("envoy", beating.address) as address:
        async with connect(address) as caller:
            calls = [
                caller.sessions.GetServerInfo(sessions.GetServerInfoRequest(), timeout=30) for _ in range(400)
            ]
            answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
    assert {one.code() for one in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(refused) < len(answers)


async def test_envoy_passes_on_calls_of_the_contract_alone(beating):
    with proxy("envoy", beating.address) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/Nothing")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"", timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def _beat(call, heartbeat) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        while True:
            await call.write(heartbeat)
            await asyncio.sleep(BEAT_S)
