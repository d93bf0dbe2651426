"""User in a room who speaks when a test says so, and hears how loud the avatar is."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

import numpy as np
from livekit import rtc

RATE_HZ = 48_000
_PIECE = RATE_HZ // 100
_LOUD = 500
_PATIENCE_S = 60.0
_LEAVE_TIMEOUT_S = 3.0


class Talker:
    """User with a microphone that is always on, silent between sentences."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, np.ndarray]] = []
        """Audio of the avatar at 24 kHz, each piece with its time of arrival by `time.monotonic()`."""
        self._queue: deque[tuple[np.ndarray, asyncio.Future[float]]] = deque()

    async def say(self, samples: np.ndarray) -> float:
        """Speak at once; return the time at which the first sample was handed in, before the rest was."""
        began: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._queue.append((samples, began))
        return await began

    @property
    def pcm(self) -> np.ndarray:
        """All that was heard of the avatar, at 24 kHz."""
        return np.concatenate([piece for _, piece in self.heard]) if self.heard else np.zeros(0, np.int16)

    def loud_after(self, at_mono_s: float) -> list[float]:
        """Return the times after `at_mono_s` at which the avatar was loud."""
        return [at for at, piece in self.heard if at > at_mono_s and loudness(piece) > _LOUD]

    async def until_loud(self) -> float:
        """Wait for the avatar's voice."""
        since_s = time.monotonic()
        async with asyncio.timeout(_PATIENCE_S):
            while not (loud := self.loud_after(since_s)):
                await asyncio.sleep(0.01)
        return loud[0]

    async def until_silent(self, seconds: float = 0.3) -> float:
        """Wait until the avatar was silent for some time; return when its last sound came."""
        began_s = time.monotonic()
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                newest = self.heard[-1][0] if self.heard else began_s
                loud = self.loud_after(began_s - 1.0)
                last = loud[-1] if loud else began_s
                if newest - last >= seconds and time.monotonic() - began_s >= seconds:
                    return last
                await asyncio.sleep(0.01)

    async def hear(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=24_000, num_channels=1)
        try:
            async for event in stream:
                self.heard.append((time.monotonic(), np.frombuffer(event.frame.data, np.int16).copy()))
        finally:
            await stream.aclose()

    async def talk(self, microphone: rtc.AudioSource) -> None:
        while True:
            samples, began = self._queue.popleft() if self._queue else (np.zeros(_PIECE, np.int16), None)
            if began is not None and not began.done():
                began.set_result(time.monotonic())
            for first in range(0, len(samples), _PIECE):
                piece = np.zeros(_PIECE, np.int16)
                piece[: len(samples[first : first + _PIECE])] = samples[first : first + _PIECE]
                await microphone.capture_frame(rtc.AudioFrame(piece.tobytes(), RATE_HZ, 1, _PIECE))


def loudness(samples: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(samples.astype(float) ** 2))) if len(samples) else 0.0


@contextlib.asynccontextmanager
async def talking(url: str, token: str) -> AsyncIterator[Talker]:
    """Join a room with a microphone, and hear those who publish, until the end of the block."""
    room, found = rtc.Room(), Talker()
    tasks: list[asyncio.Task[None]] = []

    def published(publication: rtc.RemoteTrackPublication, _: object) -> None:
        # A picture that nobody looks at costs a busy machine a lot.
        if publication.kind == rtc.TrackKind.KIND_AUDIO:
            publication.set_subscribed(True)

    def subscribed(track: rtc.Track, *_: object) -> None:
        tasks.append(asyncio.create_task(found.hear(track), name="talker/hear"))

    room.on("track_published", published)
    room.on("track_subscribed", subscribed)
    await room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
    for participant in room.remote_participants.values():
        for publication in participant.track_publications.values():
            published(publication, participant)
    microphone = rtc.AudioSource(RATE_HZ, 1, queue_size_ms=50)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", microphone)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False, red=False)
    publication = await room.local_participant.publish_track(track, options)
    tasks.append(asyncio.create_task(found.talk(microphone), name="talker/talk"))
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        # The SDK waits forever for the answer of a room that is gone.
        with contextlib.suppress(TimeoutError, rtc.participant.UnpublishTrackError):
            async with asyncio.timeout(_LEAVE_TIMEOUT_S):
                await room.local_participant.unpublish_track(publication.sid)
        await room.disconnect()
        await microphone.aclose()
