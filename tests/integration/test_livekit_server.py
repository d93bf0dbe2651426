"""The LiveKit server that tests and demo run: its media, and that no packet leaves the machine."""

import asyncio
import contextlib
import ipaddress
import os
import re
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from livekit import api, rtc
from livekit.protocol.rtc import SignalResponse
from websockets.asyncio.client import connect

from liveavatar_demo.livekit_server import LiveKitServer, livekit_server

STEP_TIMEOUT_S = 20.0
RATE_HZ = 48_000


def token(server: LiveKitServer, identity: str) -> str:
    grants = api.VideoGrants(room_join=True, room="loopback")
    return api.AccessToken(server.api_key, server.api_secret).with_identity(identity).with_grants(grants).to_jwt()


@contextlib.asynccontextmanager
async def joined(server: LiveKitServer, identity: str) -> AsyncIterator[rtc.Room]:
    room = rtc.Room()
    await room.connect(server.url, token(server, identity))
    try:
        yield room
    finally:
        await room.disconnect()


async def hum(source: rtc.AudioSource) -> None:
    """Play a tone of 440 Hz, 10 ms at a time, until cancelled."""
    samples = (np.sin(np.arange(RATE_HZ) * 2 * np.pi * 440 / RATE_HZ) * 12_000).astype(np.int16)
    for start in range(0, 60 * RATE_HZ, RATE_HZ // 100):
        chunk = np.take(samples, range(start, start + RATE_HZ // 100), mode="wrap")
        await source.capture_frame(rtc.AudioFrame(chunk.tobytes(), RATE_HZ, 1, len(chunk)))


async def heard(track: rtc.Track) -> None:
    """Listen until there is sound."""
    stream = rtc.AudioStream(track, sample_rate=RATE_HZ, num_channels=1)
    try:
        async for event in stream:
            if np.abs(np.frombuffer(event.frame.data, np.int16)).max() > 3_000:
                return
    finally:
        await stream.aclose()


async def test_sound_gets_from_one_participant_to_another_by_udp_on_loopback(livekit):
    subscribed: asyncio.Future[rtc.Track] = asyncio.get_running_loop().create_future()
    async with joined(livekit, "listener") as listener, joined(livekit, "speaker") as speaker:
        listener.on("track_subscribed", lambda track, *_: subscribed.set_result(track))
        source = rtc.AudioSource(RATE_HZ, 1)
        await speaker.local_participant.publish_track(rtc.LocalAudioTrack.create_audio_track("hum", source))
        humming = asyncio.create_task(hum(source))
        try:
            track = await asyncio.wait_for(subscribed, STEP_TIMEOUT_S)
            await asyncio.wait_for(heard(track), STEP_TIMEOUT_S)
        finally:
            humming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await humming
        routes = [await route_to_server(room) for room in (listener, speaker)]
        await source.aclose()
    assert routes == [({"127.0.0.1"}, {"udp"})] * 2


async def route_to_server(room: rtc.Room) -> tuple[set[str], set[str]]:
    """Addresses of the server that a participant sent packets to, and the protocols it settled for."""
    stats = await room.get_rtc_stats()
    found = [*stats.publisher_stats, *stats.subscriber_stats]
    protocols = {
        each.local_candidate.rtc.id: each.local_candidate.candidate.protocol
        for each in found
        if each.HasField("local_candidate")
    }
    chosen = [each.candidate_pair.candidate_pair for each in found if each.HasField("candidate_pair")]
    return (
        {each.remote_candidate.candidate.address for each in found if each.HasField("remote_candidate")},
        {protocols[pair.local_candidate_id] for pair in chosen if pair.nominated},
    )


async def test_clients_are_told_no_server_elsewhere(livekit):
    """Left alone, the server tells them to ask public STUN servers for their address."""
    query = f"access_token={token(livekit, 'asker')}&protocol=15&auto_subscribe=1"
    async with connect(f"{livekit.url}/rtc?{query}", proxy=None) as signal:
        answer = SignalResponse.FromString(await asyncio.wait_for(signal.recv(), STEP_TIMEOUT_S))
    urls = [url for server in answer.join.ice_servers for url in server.urls]
    hosts = [re.fullmatch(r"stun:([0-9.]+):\d+", url) for url in urls]
    assert hosts
    assert all(host and ipaddress.ip_address(host[1]).is_loopback for host in hosts), urls


async def health(server: LiveKitServer) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(server.url.replace("ws", "http", 1))).text


async def test_two_servers_run_side_by_side_and_are_gone_afterwards():
    with livekit_server() as one, livekit_server() as other:
        assert one.url != other.url
        assert one.api_secret != other.api_secret
        # A participant who stays would hold up a polite stop.
        signal = await connect(f"{one.url}/rtc?access_token={token(one, 'stays')}", proxy=None)
        await asyncio.wait_for(signal.recv(), STEP_TIMEOUT_S)
        assert await health(other) == "OK"
    for gone in (one, other):
        with pytest.raises(ProcessLookupError):
            os.kill(gone.process.pid, 0)
        with pytest.raises(httpx.ConnectError):
            await health(gone)
    await signal.close()
