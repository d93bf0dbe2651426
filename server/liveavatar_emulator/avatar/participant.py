"""One avatar in one room, through the LiveKit SDK: joins, publishes its two tracks, feeds them, and leaves.

Sound runs through a native queue that plays in real time however late this loop is, as long as it is not late
by more than `LEAD_S`. What is put into that queue is what the playback clock said `DELAY_S` before the moment at
which it is heard, so the session has that much less `LEAD_S` to tell of a change: a fixed delay instead of a
varying one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import structlog
from livekit import rtc

from liveavatar_emulator.avatar.face import SIZES, Expression, Face
from liveavatar_emulator.avatar.voice import RATE_HZ, Voice
from liveavatar_emulator.cues import Cue, Posed
from liveavatar_emulator.protocol import Pose
from liveavatar_emulator.rooms import Seat

FRAME_S = 0.02
"""Length of the pieces of sound handed over, and of this loop's beat."""
LEAD_S = 0.10
"""Sound kept in the native queue. More survives longer pauses of the loop, and makes every sound later."""
DELAY_S = 0.12
"""From a moment of the playback clock to when its sound leaves for the room."""
PICTURE_S = 0.04
"""25 pictures per second."""
JOIN_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 3.0
"""For one attempt of the SDK, which makes several. All of them must end before the join does: an attempt that is
abandoned may still succeed, and leave an avatar behind that nobody can put out."""
LEAVE_TIMEOUT_S = 3.0

VOICE_BIT_RATE = 64_000
"""Opus at a rate at which speech comes out as it went in; without pauses in sending (DTX)."""

VOICE_TRACK = "avatar-audio"
FACE_TRACK = "avatar"

_FRAME = round(FRAME_S * RATE_HZ)
_BIT_RATES = {"very_high": 4_000_000, "high": 2_000_000, "medium": 1_000_000, "low": 600_000}

_log = structlog.stdlib.get_logger()


class Rooms(Protocol):
    """Makes and removes rooms on the configured server."""

    async def create(self, name: str) -> None:
        """Make a room; one that exists already is fine."""

    async def delete(self, name: str) -> None:
        """Remove a room with everybody in it; one that is gone already is fine."""


class Participant:
    """An avatar. `run` is its whole life, in a task of its owner; `leave` ends it.

    `joined` is called once it is in the room with both tracks, `lost` when it could not join or was put out:
    one of them at most before `lost`, none after `leave`.
    """

    def __init__(
        self,
        *,
        session_id: str,
        seat: Seat,
        quality: str,
        encoding: str,
        rooms: Rooms,
        joined: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self.session_id = session_id
        self._seat = seat
        self._quality = quality
        self._encoding = encoding
        self._rooms = rooms
        self._joined = joined
        self._lost = lost
        self._over = asyncio.Event()
        self._left = False
        self._pose = Pose.IDLE
        self._status = "joining"
        self._stream: _Stream | None = None
        self._early: list[Cue] = []

    # -- what the session says
    # ----------------------------------------------------------------------------------------

    def follow(self, cue: Cue) -> None:
        """Take a cue."""
        if isinstance(cue, Posed):
            self._pose = cue.pose
        elif self._stream is not None:
            self._stream.voice.follow(cue)
        else:
            self._early.append(cue)

    def leave(self) -> None:
        """Leave the room for good."""
        self._left = True
        self._over.set()

    def row(self) -> dict[str, Any]:
        """What became of it, as JSON."""
        stream = self._stream
        return {
            "room": self._seat.room,
            "owned": self._seat.owned,
            "status": self._status,
            "joined": self._status == "in the room",
            "audio_frames": stream.audio_frames if stream else 0,
            "video_frames": stream.pictures if stream else 0,
            "video_frames_skipped": stream.pictures_skipped if stream else 0,
            "late_ticks": stream.late_ticks if stream else 0,
            "missed_audio_s": round(stream.missed / RATE_HZ, 6) if stream else 0.0,
            "late_speech_s": round(stream.voice.late_samples / RATE_HZ, 6) if stream else 0.0,
            "waiting_audio_s": round(stream.voice.waiting_bytes / 2 / RATE_HZ, 6) if stream else 0.0,
        }

    # -- its life
    # ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Join, perform until the session is over or the room is lost, and leave."""
        room = rtc.Room()
        room.on("disconnected", lambda _reason: self._over.set())
        try:
            stream = await self._enter(room)
            if stream is not None:
                await self._perform(stream)
        finally:
            await asyncio.shield(self._exit(room))

    async def _enter(self, room: rtc.Room) -> "_Stream | None":
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                if self._seat.owned:
                    await self._rooms.create(self._seat.room)
                options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=CONNECT_TIMEOUT_S)
                await room.connect(self._seat.url, self._seat.token, options)
                stream = _Stream(self._quality, lambda: self._pose)
                await stream.publish(room, self._quality, self._encoding)
        except Exception as error:  # noqa: BLE001 - the SDK's errors share no base
            self._status = "never joined"
            # Its text may hold the address with the token in it, so only the kind is told.
            _log.error(
                "avatar.refused",
                session=self.session_id,
                room=self._seat.room,
                error=type(error).__name__,
                hint="is the LiveKit server there, and does it take this room's token?",
            )
            if not self._left:
                self._lost()
            return None
        if self._left:
            return None
        for cue in self._early:
            stream.voice.follow(cue)
        self._early.clear()
        self._stream = stream
        self._status = "in the room"
        _log.info("avatar.joined", session=self.session_id, room=self._seat.room, owned=self._seat.owned)
        self._joined()
        return stream

    async def _perform(self, stream: "_Stream") -> None:
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(stream.feed(), name=f"session-{self.session_id}/feed")
            await self._over.wait()
            feeding.cancel()
        if not self._left:
            self._status = "lost"
            _log.error("avatar.lost", session=self.session_id, room=self._seat.room)
            self._lost()

    async def _exit(self, room: rtc.Room) -> None:
        if self._status == "in the room":
            self._status = "left"
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await room.disconnect()
        except TimeoutError:
            _log.warning("avatar.leave_timeout", session=self.session_id, room=self._seat.room)
        if self._stream is not None:
            await self._stream.close()
        if self._seat.owned:
            await self._rooms.delete(self._seat.room)


class _Stream:
    """The two tracks and what feeds them."""

    def __init__(self, quality: str, pose: Callable[[], Pose]) -> None:
        width, height = SIZES[quality]
        self._face = Face(width, height)
        self._pose = pose
        self._sound = rtc.AudioSource(RATE_HZ, 1, queue_size_ms=1000)
        self._picture = rtc.VideoSource(width, height)
        self._began_s = time.monotonic()
        self._ahead = 0.0
        self._ahead_at_s = self._began_s
        self.voice = Voice(epoch_s=self._began_s - DELAY_S)
        self._loudness: deque[tuple[int, float]] = deque(maxlen=100)
        self.audio_frames = 0
        self.pictures = 0
        self.pictures_skipped = 0
        self.late_ticks = 0
        self.missed = 0

    async def publish(self, room: rtc.Room, quality: str, encoding: str) -> None:
        """Publish both tracks."""
        voice = rtc.LocalAudioTrack.create_audio_track(VOICE_TRACK, self._sound)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False, red=False)
        options.audio_encoding.max_bitrate = VOICE_BIT_RATE
        await room.local_participant.publish_track(voice, options)
        face = rtc.LocalVideoTrack.create_video_track(FACE_TRACK, self._picture)
        codec = rtc.VideoCodec.VP8 if encoding == "VP8" else rtc.VideoCodec.H264
        await room.local_participant.publish_track(
            face,
            rtc.TrackPublishOptions(
                source=rtc.TrackSource.SOURCE_CAMERA,
                video_codec=codec,
                simulcast=False,
                video_encoding=rtc.VideoEncoding(max_framerate=25, max_bitrate=_BIT_RATES[quality]),
            ),
        )
        self._start_clock()

    def _start_clock(self) -> None:
        # From here on, not from before the tracks were published, or the queue would seem to have run dry.
        self._ahead_at_s = time.monotonic()
        self.voice = Voice(epoch_s=self._ahead_at_s - DELAY_S)
        self._began_s = self._ahead_at_s

    async def feed(self) -> None:
        """Keep both tracks fed, for ever."""
        beat_s = time.monotonic()
        pictures_due = 0
        while True:
            now_s = time.monotonic()
            if now_s - beat_s > FRAME_S:
                self.late_ticks += 1
            await self._feed_sound(now_s)
            due = int((now_s - self._began_s) / PICTURE_S)
            if due >= pictures_due:
                self.pictures_skipped += due - pictures_due
                pictures_due = due + 1
                self._feed_picture(now_s)
            beat_s = max(beat_s + FRAME_S, now_s - FRAME_S)
            await asyncio.sleep(max(0.0, beat_s - time.monotonic()))

    async def _feed_sound(self, now_s: float) -> None:
        self._ahead -= (now_s - self._ahead_at_s) * RATE_HZ
        self._ahead_at_s = now_s
        if self._ahead < 0:
            missed = round(-self._ahead)
            if self.audio_frames:
                self.missed += missed
                self.voice.skip(missed)
            self._ahead = 0.0
        while self._ahead + _FRAME <= LEAD_S * RATE_HZ:
            pcm = self.voice.render(_FRAME)
            samples = np.frombuffer(pcm, dtype=np.int16).astype(np.float32)
            self._loudness.append((self.voice.rendered, float(np.sqrt(np.mean(samples * samples)))))
            self._ahead += _FRAME
            self.audio_frames += 1
            await self._sound.capture_frame(rtc.AudioFrame(pcm, RATE_HZ, 1, _FRAME))

    def _feed_picture(self, now_s: float) -> None:
        heard = self.voice.rendered - self._ahead
        while len(self._loudness) > 1 and self._loudness[0][0] < heard:
            self._loudness.popleft()
        loudness = self._loudness[0][1] if self._loudness else 0.0
        face = self._face
        picture = face.draw(
            Expression(
                mouth=min(1.0, loudness / 6000),
                lean=1.0 if self._pose() is Pose.LISTENING else 0.0,
                at_s=now_s - self._began_s,
            )
        )
        frame = rtc.VideoFrame(face.width, face.height, rtc.VideoBufferType.I420, picture)
        self._picture.capture_frame(frame)
        self.pictures += 1

    async def close(self) -> None:
        """Release both sources."""
        await self._sound.aclose()
        await self._picture.aclose()
