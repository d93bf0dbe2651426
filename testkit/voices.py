"""Users in LiveKit rooms, who speak recordings, and know when each sample left their mouth."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from livekit import rtc

RATE_HZ: Final = 48_000
_QUEUE_MS: Final = 1000
_LEAD_S: Final = 0.06
"""Sound in the native queue beyond the newest frame. More survives longer pauses of the event loop."""
_LEAVE_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Spoken:
    """Times at which something was said."""

    frames_s: tuple[float, ...]
    """Time, on `time.monotonic()`, at which each frame began to leave."""
    frame_s: float
    """Duration of a frame."""

    def at(self, second: float) -> float:
        """Return the time at which the sample at a second of the sound left."""
        number = min(int(second / self.frame_s), len(self.frames_s) - 1)
        return self.frames_s[number] + second - number * self.frame_s


class Voice:
    """Microphone of a user: silence, but for what the user is to say. Closed by `speaking`."""

    def __init__(self, *, frame_s: float = 0.02) -> None:
        """Prepare.

        Args:
            frame_s: Duration of the frames; longer ones cost less.
        """
        self._frame_s = frame_s
        self._silence = np.zeros(round(frame_s * RATE_HZ), "<i2")
        self._source = rtc.AudioSource(RATE_HZ, 1, queue_size_ms=_QUEUE_MS)
        self._frames: deque[tuple[np.ndarray, asyncio.Future[float]]] = deque()

    async def publish(self, room: rtc.Room) -> rtc.LocalTrackPublication:
        """Publish the track; from then on `speak` must run."""
        track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False, red=False)
        options.audio_encoding.max_bitrate = 64_000
        return await room.local_participant.publish_track(track, options)

    async def speak(self) -> None:
        """Feed the track until cancelled."""
        while True:
            # A full queue would make the SDK wake every waiting voice of the process for each frame of another.
            await asyncio.sleep(max(0.0, self._source.queued_duration - _LEAD_S))
            samples, leaving = self._frames.popleft() if self._frames else (self._silence, None)
            leaves_s = time.monotonic() + self._source.queued_duration
            await self._source.capture_frame(rtc.AudioFrame(samples.tobytes(), RATE_HZ, 1, len(samples)))
            if leaving is not None:
                leaving.set_result(leaves_s)

    async def say(self, samples: np.ndarray) -> Spoken:
        """Say 16-bit samples of 48 kHz; return when they left, as soon as the last has."""
        loop, size = asyncio.get_running_loop(), len(self._silence)
        padded = np.append(np.clip(samples, -32_768, 32_767), np.zeros(-len(samples) % size))
        frames = [(frame, loop.create_future()) for frame in padded.astype("<i2").reshape(-1, size)]
        self._frames.extend(frames)
        times = [await leaving for _, leaving in frames]
        await asyncio.sleep(max(0.0, times[-1] + self._frame_s - time.monotonic()))
        return Spoken(tuple(times), self._frame_s)

    async def close(self) -> None:
        """Release the native source."""
        await self._source.aclose()


@contextlib.asynccontextmanager
async def speaking(room: rtc.Room, *, frame_s: float = 0.02) -> AsyncIterator[Voice]:
    """Let a participant of a room have a voice for a block."""
    voice = Voice(frame_s=frame_s)
    publication = await voice.publish(room)
    feeding = asyncio.create_task(voice.speak(), name="voice")
    try:
        yield voice
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])
        # The SDK waits forever for the answer of a room that is gone.
        with contextlib.suppress(TimeoutError, rtc.participant.UnpublishTrackError):
            async with asyncio.timeout(_LEAVE_TIMEOUT_S):
                await room.local_participant.unpublish_track(publication.sid)
        await voice.close()
