"""The avatar's two tracks, fed in real time.

Audio passes through a native queue that plays in real time however late the event loop is. A sample enters the
queue `DELAY_S` after its time on the playback clock: a fixed delay instead of a varying one, as long as avatar
events arrive within that time. The queue is filled far ahead, so that long pauses of the loop are not heard.
Samples that a newer event overtakes are taken back: speech behind a cut, or silence where speech is due. See
docs/decisions/0008.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

from livekit import rtc

from liveavatar_emulator.avatar.animation import Animation, opening, spread
from liveavatar_emulator.avatar.face import Face
from liveavatar_emulator.avatar.speech_renderer import RATE_HZ, SAMPLE_BYTES, SpeechRenderer
from liveavatar_emulator.avatar_events import AvatarEvent, SpeechAudio, SpeechCut, SpeechStarted
from liveavatar_emulator.protocol import Pose

AUDIO_TRACK_NAME = "avatar-audio"
VIDEO_TRACK_NAME = "avatar"

AUDIO_FRAME_S = 0.02
"""Duration of the audio frames handed to the queue."""
LEAD_S = 0.40
"""Audio kept in the native queue. More survives longer pauses of the event loop."""
SHORT_LEAD_S = 0.06
"""The same for silence right behind speech: less than `DELAY_S`, so that samples are never taken back while speech
is in the queue, whose position is known to 10 ms only."""
DELAY_S = 0.10
"""Delay between a time of the playback clock and the sending of its audio."""
AUDIO_BIT_RATE = 64_000
"""Opus bit rate that does not audibly change speech; without discontinuous transmission (DTX)."""

VIDEO_FRAME_S = 0.04
"""25 frames per second."""
VIDEO_BIT_RATES = {"very_high": 4_000_000, "high": 2_000_000, "medium": 1_000_000, "low": 600_000}
"""Upper limits per quality; a drawn face needs a fraction of them."""

_FRAME = round(AUDIO_FRAME_S * RATE_HZ)
_LEAD = round(LEAD_S * RATE_HZ)
_SHORT_LEAD = round(SHORT_LEAD_S * RATE_HZ)
_SILENCE = bytes(SAMPLE_BYTES * _FRAME)


class AudioTrack:
    """The track `avatar-audio`: silence from its publication on, and speech as rendered. Closed by its owner."""

    def __init__(self) -> None:
        self._source = rtc.AudioSource(RATE_HZ, 1, queue_size_ms=1000)
        self.renderer = SpeechRenderer(epoch_s=time.monotonic() - DELAY_S)
        self._ahead = 0.0
        """Samples in the native queue, computed from the clock."""
        self._queued: deque[bytes] = deque()
        """Latest frames of the native queue, as many as it may still hold."""
        self._changed = asyncio.Event()
        self._shapes: deque[tuple[int, float, float]] = deque()
        """End of each audio frame, with the shape of the mouth that makes its sound."""
        self.frames = 0
        self.late_frames = 0
        self.missed_s = 0.0

    async def publish(self, room: rtc.Room) -> None:
        """Publish the track; from then on `feed` must run."""
        track = rtc.LocalAudioTrack.create_audio_track(AUDIO_TRACK_NAME, self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False, red=False)
        options.audio_encoding.max_bitrate = AUDIO_BIT_RATE
        await room.local_participant.publish_track(track, options)

    def handle(self, event: AvatarEvent) -> None:
        """Take an avatar event."""
        self.renderer.handle(event)
        if isinstance(event, SpeechCut | SpeechStarted) or (
            isinstance(event, SpeechAudio) and event.resumes_at_s is not None
        ):
            self._changed.set()

    async def feed(self) -> None:
        """Keep the native queue filled until cancelled."""
        now_s = time.monotonic()
        self.renderer.skip(round((now_s - self.renderer.epoch_s - DELAY_S) * RATE_HZ))
        beat_s = filled_s = now_s
        while True:
            now_s = time.monotonic()
            self._account_played(now_s - filled_s)
            filled_s = now_s
            await self._fill()
            if now_s - beat_s > AUDIO_FRAME_S:
                self.late_frames += 1
                beat_s = now_s
            beat_s += AUDIO_FRAME_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, beat_s - time.monotonic())):
                    await self._changed.wait()

    async def _fill(self) -> None:
        while True:
            # Retracting precedes rendering, because the renderer forgets events once it has rendered past them.
            if self._changed.is_set():
                self._changed.clear()
                await self._retract()
            elif self._needs_more():
                await self._push(self._next_frame())
            else:
                return

    def _needs_more(self) -> bool:
        heard = self.renderer.rendered - self._ahead
        far = self.renderer.speaks_on(_FRAME) or heard >= self.renderer.spoken
        return self._ahead + _FRAME <= (_LEAD if far else _SHORT_LEAD)

    async def _push(self, pcm: bytes) -> None:
        samples = len(pcm) // SAMPLE_BYTES
        self._ahead += samples
        self._queued.append(pcm)
        while len(self._queued) > _LEAD // _FRAME + 2:
            self._queued.popleft()
        await self._source.capture_frame(rtc.AudioFrame(pcm, RATE_HZ, 1, samples))

    async def _retract(self) -> None:
        """Remove overtaken samples from the native queue, and put back the samples before them."""
        rendered = self.renderer.rendered
        heard = rendered - int(self._ahead)
        until = self.renderer.retract(heard)
        if until is None:
            return
        tail = b"".join(self._queued)
        kept = tail[len(tail) - (rendered - heard) * SAMPLE_BYTES : len(tail) - (rendered - until) * SAMPLE_BYTES]
        self._source.clear_queue()
        self._queued.clear()
        self._ahead = 0.0
        while self._shapes and self._shapes[-1][0] > until:
            self._shapes.pop()
        if kept:
            await self._push(kept)

    def _account_played(self, passed_s: float) -> None:
        """Account for the samples that the native queue has played in `passed_s`."""
        self._ahead -= passed_s * RATE_HZ
        if self._ahead >= 0:
            return
        if self.renderer.speaks_on(1):
            # The queue ran dry within speech: listeners heard a gap, and the rest of the speech is delayed.
            self.missed_s -= self._ahead / RATE_HZ
        self.renderer.skip(round(-self._ahead))
        self._ahead = 0.0

    def _next_frame(self) -> bytes:
        self._forget_shapes()
        pcm = self.renderer.render(_FRAME)
        mouth = (0.0, 0.5) if pcm == _SILENCE else (opening(pcm), spread(pcm))
        self._shapes.append((self.renderer.rendered, *mouth))
        self.frames += 1
        return pcm

    def mouth_now(self) -> tuple[float, float]:
        """Return opening and spread of the mouth for the audio that is sent now."""
        self._forget_shapes()
        return self._shapes[0][1:] if self._shapes else (0.0, 0.5)

    def _forget_shapes(self) -> None:
        """Forget what the mouth has done. An avatar without a picture asks for no shape."""
        heard = self.renderer.rendered - self._ahead
        while len(self._shapes) > 1 and self._shapes[0][0] <= heard:
            self._shapes.popleft()

    async def close(self) -> None:
        """Release the native source."""
        await self._source.aclose()


class VideoTrack:
    """The track `avatar`: the face, 25 times per second. Closed by its owner."""

    def __init__(self, face: Face, seed: int) -> None:
        self._face = face
        self._animation = Animation(seed)
        self._source = rtc.VideoSource(face.width, face.height)
        self.frames = 0
        self.skipped_frames = 0

    async def publish(self, room: rtc.Room, quality: str, encoding: str) -> None:
        """Publish the track in the requested codec."""
        track = rtc.LocalVideoTrack.create_video_track(VIDEO_TRACK_NAME, self._source)
        options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA,
            video_codec=rtc.VideoCodec.VP8 if encoding == "VP8" else rtc.VideoCodec.H264,
            simulcast=False,
            video_encoding=rtc.VideoEncoding(
                max_framerate=1 / VIDEO_FRAME_S, max_bitrate=VIDEO_BIT_RATES[quality]
            ),
        )
        await room.local_participant.publish_track(track, options)

    async def feed(
        self, drawing_executor: Executor, pose: Callable[[], Pose], mouth: Callable[[], tuple[float, float]]
    ) -> None:
        """Draw frames until cancelled; frames that would be late are skipped."""
        loop = asyncio.get_running_loop()
        began_s = time.monotonic()
        number = 0
        while True:
            await loop.run_in_executor(drawing_executor, self._draw, number * VIDEO_FRAME_S, pose(), *mouth())
            self.frames += 1
            due = max(number + 1, int((time.monotonic() - began_s) / VIDEO_FRAME_S))
            self.skipped_frames += due - number - 1
            number = due
            await asyncio.sleep(max(0.0, began_s + number * VIDEO_FRAME_S - time.monotonic()))

    def _draw(self, at_s: float, pose: Pose, opening: float, spread: float) -> None:
        expression = self._animation.at(at_s, pose=pose, opening=opening, spread=spread)
        picture = self._face.draw(expression)
        # The native source copies the frame before it returns, so the next frame may overwrite the buffer.
        self._source.capture_frame(
            rtc.VideoFrame(self._face.width, self._face.height, rtc.VideoBufferType.I420, picture)
        )

    async def close(self) -> None:
        """Release the native source."""
        await self._source.aclose()
