"""The sink speaks LiveAvatar's protocol to a real WebSocket client and counts audio without decoding it."""

import asyncio
import os
import random

import aiohttp
import orjson
import pybase64
import pytest
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st

from load.bench.sink import Sink, audio_bytes, unmasked
from load.speech import BYTE_RATE
from stage.errors import StageError


@pytest.fixture
async def sink():
    found = Sink()
    await found.start()
    yield found
    found.stop()


def _speak(event_id: str, pcm: bytes) -> str:
    return orjson.dumps(
        {"type": "agent.speak", "event_id": event_id, "audio": pybase64.b64encode(pcm).decode()}
    ).decode()


async def _until(socket: websockets.ClientConnection, kind: str) -> dict:
    async with asyncio.timeout(5):
        async for text in socket:
            event = orjson.loads(text)
            if event["type"] == kind:
                return event
    raise AssertionError(kind)


async def test_a_session_is_minted_started_and_hears_every_byte(sink: Sink):
    async with aiohttp.ClientSession(sink.url) as http:
        async with http.post("/v1/sessions/token", json={"mode": "LITE"}) as answer:
            minted = (await answer.json())["data"]
        headers = {"Authorization": f"Bearer {minted['session_token']}"}
        async with http.post("/v1/sessions/start", headers=headers, json={}) as answer:
            started = (await answer.json())["data"]
        assert started["session_id"] == minted["session_id"]
    arrivals = []
    avatar = sink.avatar(minted["session_id"])
    avatar.on_packet = lambda size, first, _: arrivals.append((size, first))
    async with websockets.connect(started["ws_url"], compression=None) as socket:
        assert (await _until(socket, "session.state_updated"))["state"] == "connected"
        sizes = [19_200, 2, 100_001 * 2, 48]
        for size in sizes:
            await socket.send(_speak("u1", os.urandom(size)))
            assert (await _until(socket, "agent.audio_buffer_appended"))["source_event_id"] == "u1"
        assert (await _until(socket, "agent.speak_started"))["source_event_id"] == "u1"
        await socket.send(_speak("u2", b"ab"))
        await socket.ping()
    assert arrivals == [*((size, number == 0) for number, size in enumerate(sizes)), (2, True)]
    assert avatar.utterances == [sum(sizes), 2]


async def test_speech_ends_when_it_was_played(sink: Sink):
    loop = asyncio.get_running_loop()
    async with websockets.connect(sink.socket_url + "any", compression=None) as socket:
        began_s = loop.time()
        await socket.send(_speak("u1", bytes(BYTE_RATE // 5)))
        await socket.send('{"type":"agent.speak_end","event_id":"u1"}')
        await _until(socket, "agent.speak_ended")
        assert loop.time() - began_s >= 0.2


async def test_a_gap_in_speech_is_an_underrun(sink: Sink):
    async with websockets.connect(sink.socket_url + "any", compression=None) as socket:
        for _ in range(2):
            await socket.send(_speak("u1", bytes(480)))
            await _until(socket, "agent.audio_buffer_appended")
            await asyncio.sleep(0.15)
    assert sink.avatar("any").underruns == 1


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4), st.integers(0, 300))
def test_any_piece_of_a_payload_is_unmasked(payload, mask, offset):
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    assert unmasked(masked[offset:], mask, offset) == payload[offset:]


@given(st.integers(1, 2000))
def test_audio_is_counted_from_lengths_alone(size):
    text = _speak("u1", random.Random(size).randbytes(size)).encode()
    assert audio_bytes(len(text), text.find(b'"audio":"'), text[-4:]) == size


def test_audio_that_is_not_the_last_field_is_refused():
    with pytest.raises(StageError, match="not the last field"):
        audio_bytes(100, 10, b'":1}')
