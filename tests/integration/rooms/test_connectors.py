"""A hosted agent in a real room: the user speaks, and the avatar answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from livekit import rtc

from liveavatar.gateway.v1 import connector_pb2, session_pb2
from liveavatar_emulator.hosted_agent import PITCHES_HZ
from testkit import processes
from testkit.caller import caller as connect
from testkit.users import RATE_HZ, pitch_of

VIDEO = session_pb2.VideoSettings(quality=session_pb2.VIDEO_QUALITY_LOW, encoding=session_pb2.VIDEO_ENCODING_VP8)
AGENT = connector_pb2.ElevenLabsAgent(secret_id="7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22", agent_id="agent-7")
PIECE = RATE_HZ // 100
_WINDOW = 9_600
"""Bytes of a fifth of a second of the avatar."""

pytestmark = pytest.mark.timeout(180)


class Conversation:
    """A user in the avatar's room, with a voice and an ear for the avatar."""

    def __init__(self, room: rtc.Room, voice: rtc.AudioSource) -> None:
        self._room = room
        self._voice = voice
        self.heard = bytearray()
        """Audio of the avatar, mono 24 kHz."""
        self._reading: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Hear the avatar once it is in the room."""
        async with asyncio.timeout(60):
            while (track := self._track()) is None:
                await asyncio.sleep(0.05)
        self._reading = asyncio.create_task(self._read(track))

    def _track(self) -> rtc.Track | None:
        avatar = self._room.remote_participants.get("heygen")
        tracks = [] if avatar is None else list(avatar.track_publications.values())
        found = [one.track for one in tracks if one.kind == rtc.TrackKind.KIND_AUDIO and one.track is not None]
        return found[0] if found else None

    async def _read(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=24_000, num_channels=1)
        try:
            async for event in stream:
                self.heard += event.frame.data.tobytes()
        finally:
            await stream.aclose()

    async def say(self, seconds: float, pitch_hz: float = 500) -> None:
        """Speak, and then be silent for a second."""
        count = round(seconds * 100)
        for number in range(count + 100):
            times = np.arange(number * PIECE, (number + 1) * PIECE) / RATE_HZ
            loudness = 10_000 if number < count else 0
            samples = (np.sin(2 * np.pi * pitch_hz * times) * loudness).astype("<i2")
            await self._voice.capture_frame(rtc.AudioFrame(samples.tobytes(), RATE_HZ, 1, PIECE))

    async def until_heard(self, *pitches_hz: float) -> None:
        """Wait until the avatar has sung some notes in this order, and forget all up to the last of them."""
        async with asyncio.timeout(90):
            while (end := self._end_of(pitches_hz)) is None:
                await asyncio.sleep(0.1)
        del self.heard[:end]

    def _end_of(self, pitches_hz: Sequence[float]) -> int | None:
        missing = list(pitches_hz)
        for start in range(0, len(self.heard) - _WINDOW, _WINDOW // 2):
            if abs(pitch_of(bytes(self.heard[start : start + _WINDOW]), 24_000) - missing[0]) < 10:
                missing.pop(0)
            if not missing:
                return start + _WINDOW
        return None

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])


@contextlib.asynccontextmanager
async def conversation(url: str, token: str) -> AsyncIterator[Conversation]:
    """Join the avatar's room as its user, with the viewer's token."""
    room = rtc.Room()
    await room.connect(url, token)
    voice = rtc.AudioSource(RATE_HZ, 1, queue_size_ms=100)
    track = rtc.LocalAudioTrack.create_audio_track("voice", voice)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False, red=False)
    publication = await room.local_participant.publish_track(track, options)
    found = Conversation(room, voice)
    try:
        await found.listen()
        yield found
    finally:
        await found.close()
        with contextlib.suppress(TimeoutError, rtc.participant.UnpublishTrackError):
            async with asyncio.timeout(3):
                await room.local_participant.unpublish_track(publication.sid)
        await room.disconnect()
        await voice.aclose()


async def test_the_user_speaks_and_the_agents_avatar_answers(rooms):
    with processes.gateway(rooms.url, detach_grace_s=300) as gateway:
        async with connect(gateway.address) as caller:
            made = await caller.create(elevenlabs_agent=AGENT, video=VIDEO)
            upstream_id = made.session.upstream_session_id
            async with conversation(made.room.url, made.room.viewer_token) as user:
                for turn in (1, 2):
                    await asyncio.gather(user.say(0.6), user.until_heard(*PITCHES_HZ))
                    assert len(rooms.session(upstream_id)["utterances"]) == turn
                    # The answer is over before the next turn, which would cut it.
                    async with asyncio.timeout(30):
                        while rooms.session(upstream_id)["pose"] != "idle":
                            await asyncio.sleep(0.05)
            ended = await caller.end(made.session.id)
            assert ended.end_reason == session_pb2.END_REASON_CALLER_ENDED


async def test_a_user_who_speaks_up_cuts_the_answer(rooms):
    with processes.gateway(rooms.url, detach_grace_s=300) as gateway:
        async with connect(gateway.address) as caller:
            made = await caller.create(elevenlabs_agent=AGENT, video=VIDEO)
            upstream_id = made.session.upstream_session_id
            async with conversation(made.room.url, made.room.viewer_token) as user:
                await asyncio.gather(user.say(0.6), user.until_heard(PITCHES_HZ[0]))
                await user.say(0.6)
                async with asyncio.timeout(30):
                    while len(rooms.session(upstream_id)["utterances"]) < 2:
                        await asyncio.sleep(0.05)
                assert len(rooms.session(upstream_id)["interrupts"]) >= 1
            await caller.end(made.session.id)
