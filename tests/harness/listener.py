"""Somebody in the room who may only listen, and keeps what the avatar says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
from livekit import api, rtc

from harness.livekit import LiveKitServer
from harness.pitch import FRAME_S, pitches, seconds_of

RATE_HZ = 24_000
STEP_TIMEOUT_S = 30.0


class Listener:
    """Hears one audio track from the moment it is there."""

    def __init__(self) -> None:
        self._pieces: list[np.ndarray] = []
        self.left: list[str] = []
        """Identities of those who have left the room."""

    @property
    def pcm(self) -> np.ndarray:
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)

    def seconds_of(self, pitch_hz: int) -> float:
        """How much of a tone was heard."""
        return seconds_of(pitch_hz, pitches(self.pcm, RATE_HZ))

    async def until_heard(self, pitch_hz: int, seconds: float) -> None:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while self.seconds_of(pitch_hz) < seconds:
                await asyncio.sleep(FRAME_S)

    async def until_silent(self, seconds: float = 0.5) -> None:
        """Wait until the last that came is silence of some length."""
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while True:
                latest = pitches(self.pcm, RATE_HZ)[-round(seconds / FRAME_S) :]
                if len(latest) and not latest.any():
                    return
                await asyncio.sleep(FRAME_S)

    async def until_gone(self, identity: str) -> None:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while identity not in self.left:
                await asyncio.sleep(FRAME_S)

    async def listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE_HZ, num_channels=1)
        try:
            async for event in stream:
                self._pieces.append(np.frombuffer(event.frame.data, np.int16).copy())
        finally:
            await stream.aclose()


@contextlib.asynccontextmanager
async def listening(server: LiveKitServer, room_name: str, track_name: str) -> AsyncIterator[Listener]:
    """Join a room and listen to the track of a name, whoever publishes it."""
    grants = api.VideoGrants(room_join=True, room=room_name, can_publish=False, can_publish_data=False)
    token = api.AccessToken(server.api_key, server.api_secret).with_identity("listener").with_grants(grants)
    room, found = rtc.Room(), Listener()
    tasks: list[asyncio.Task[None]] = []

    def subscribed(track: rtc.Track, publication: rtc.RemoteTrackPublication, _: object) -> None:
        if publication.name == track_name:
            tasks.append(asyncio.create_task(found.listen(track), name=f"listener/{track_name}"))

    room.on("track_subscribed", subscribed)
    room.on("participant_disconnected", lambda participant: found.left.append(participant.identity))
    await room.connect(server.url, token.to_jwt())
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await room.disconnect()
