"""Somebody in the room who may only listen, and keeps what the avatar says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
from livekit import api, rtc

from liveavatar_demo.livekit_server import LiveKitServer
from testkit.pitch import FRAME_S, Scale, heard_until_s, pitches

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

    def heard_until_s(self, scale: Scale) -> float:
        """Return the second up to which a scale was heard."""
        return heard_until_s(scale, pitches(self.pcm, RATE_HZ))

    async def until_heard(self, scale: Scale, until_s: float) -> None:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while self.heard_until_s(scale) < until_s:
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
    """Join a room, before the avatar does, and listen to the track of a name."""
    grants = api.VideoGrants(room_join=True, room=room_name, can_publish=False, can_publish_data=False)
    token = api.AccessToken(server.api_key, server.api_secret).with_identity("listener").with_grants(grants)
    room, found = rtc.Room(), Listener()
    tasks: list[asyncio.Task[None]] = []

    # Only this track is asked for: a picture that nobody looks at costs a busy machine a lot.
    def published(publication: rtc.RemoteTrackPublication, _: object) -> None:
        publication.set_subscribed(publication.name == track_name)

    def subscribed(track: rtc.Track, *_: object) -> None:
        tasks.append(asyncio.create_task(found.listen(track), name=f"listener/{track_name}"))

    room.on("track_published", published)
    room.on("track_subscribed", subscribed)
    room.on("participant_disconnected", lambda participant: found.left.append(participant.identity))
    await room.connect(server.url, token.to_jwt(), rtc.RoomOptions(auto_subscribe=False))
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await room.disconnect()
