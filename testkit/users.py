"""Users in a LiveKit room, who sing one note each."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
from livekit import api, rtc

RATE_HZ = 48_000
_PIECE = RATE_HZ // 100
_LEAVE_TIMEOUT_S = 3.0


def user_token(server, room: str, identity: str, *, kind: str = "standard") -> str:
    """Return a token with which a participant may publish in a room."""
    grants = api.VideoGrants(room_join=True, room=room)
    token = api.AccessToken(server.api_key, server.api_secret).with_identity(identity).with_grants(grants)
    return token.with_kind(kind).to_jwt()


@contextlib.asynccontextmanager
async def singing(
    url: str,
    token: str,
    pitch_hz: float,
    *,
    source: int = rtc.TrackSource.SOURCE_MICROPHONE,
) -> AsyncIterator[rtc.Room]:
    """Join a room, and sing there until the end of the block."""
    room = rtc.Room()
    await room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
    voice = rtc.AudioSource(RATE_HZ, 1, queue_size_ms=100)
    track = rtc.LocalAudioTrack.create_audio_track("voice", voice)
    options = rtc.TrackPublishOptions(source=source, dtx=False, red=False)
    publication = await room.local_participant.publish_track(track, options)
    singer = asyncio.create_task(_sing(voice, pitch_hz))
    try:
        yield room
    finally:
        singer.cancel()
        await asyncio.wait([singer])
        # The SDK waits forever for the answer of a room that is gone.
        with contextlib.suppress(TimeoutError, rtc.participant.UnpublishTrackError):
            async with asyncio.timeout(_LEAVE_TIMEOUT_S):
                await room.local_participant.unpublish_track(publication.sid)
        await room.disconnect()
        await voice.aclose()


async def _sing(voice: rtc.AudioSource, pitch_hz: float) -> None:
    at = 0
    while True:
        times = np.arange(at, at + _PIECE) / RATE_HZ
        samples = (np.sin(2 * np.pi * pitch_hz * times) * 10_000).astype("<i2")
        await voice.capture_frame(rtc.AudioFrame(samples.tobytes(), RATE_HZ, 1, _PIECE))
        at += _PIECE


def pitch_of(pcm: bytes, rate_hz: int) -> float:
    """Return the strongest frequency of mono 16-bit samples; 0 for silence."""
    samples = np.frombuffer(pcm, "<i2").astype(float)
    if not len(samples) or float(np.abs(samples).max()) < 300:
        return 0.0
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate_hz / len(samples)
