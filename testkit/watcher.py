"""Somebody in the room who keeps what is seen and heard, and when it came."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import numpy as np
from livekit import rtc

RATE_HZ = 24_000
PATIENCE_S = 30.0


@dataclass(slots=True)
class Picture:
    """Decoded picture, with `luma` on request."""

    at_s: float
    width: int
    height: int
    luma: np.ndarray | None


@dataclass(slots=True, eq=False)
class Watcher:
    """Pictures and sound of the avatar's two tracks; times are `time.monotonic()`."""

    room: rtc.Room
    tracks: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    """Per track name its publisher, source and codec."""
    pieces: list[tuple[float, np.ndarray]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    keep_luma: bool = False
    sound: rtc.Track | None = None
    left: list[str] = field(default_factory=list)

    @property
    def heard(self) -> np.ndarray:
        """All sound, from the first sample that came."""
        return np.concatenate([piece for _, piece in self.pieces]).astype(float)

    def delay_s(self, sample: int, at_s: float) -> float:
        """Return how long after `at_s` a sample of `heard` arrived, by the median arrival of all samples."""
        ends = np.cumsum([len(piece) for _, piece in self.pieces]) / RATE_HZ
        offset_s = float(np.median([came_s for came_s, _ in self.pieces] - ends))
        return offset_s + sample / RATE_HZ - at_s

    async def stretched(self) -> int:
        """Return the number of samples that this side's jitter buffer has synthesised, added or dropped.

        It does so when packets come late, as on a machine that has no time. What is heard then is its doing.
        """
        if self.sound is None:
            return 0
        count = 0
        for stats in await self.sound.get_stats():
            if stats.HasField("inbound_rtp"):
                inbound = stats.inbound_rtp.inbound
                count += inbound.concealed_samples - inbound.silent_concealed_samples
                count += inbound.inserted_samples_for_deceleration + inbound.removed_samples_for_acceleration
        return count

    async def until(self, so: Callable[["Watcher"], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not so(self):
                await asyncio.sleep(0.02)

    async def hear(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE_HZ, num_channels=1)
        try:
            async for event in stream:
                self.pieces.append((time.monotonic(), np.frombuffer(event.frame.data, np.int16).copy()))
        finally:
            await stream.aclose()

    async def see(self, track: rtc.Track) -> None:
        stream = rtc.VideoStream(track, format=rtc.VideoBufferType.I420)
        try:
            async for event in stream:
                frame = event.frame
                luma = None
                if self.keep_luma:
                    size = frame.width * frame.height
                    luma = np.frombuffer(frame.data, np.uint8)[:size].reshape(frame.height, frame.width).copy()
                self.pictures.append(Picture(time.monotonic(), frame.width, frame.height, luma))
        finally:
            await stream.aclose()


@contextlib.asynccontextmanager
async def watching(url: str, token: str, *, video: bool = True) -> AsyncIterator[Watcher]:
    """Join with a token and take in what is published, until the end of the block."""
    room = rtc.Room()
    found = Watcher(room)
    tasks: list[asyncio.Task[None]] = []

    def subscribed(track: rtc.Track, publication: rtc.RemoteTrackPublication, publisher: rtc.Participant) -> None:
        found.tracks[publication.name] = (publisher.identity, publication.source, publication.mime_type)
        sound = track.kind == rtc.TrackKind.KIND_AUDIO
        found.sound = track if sound else found.sound
        tasks.append(asyncio.create_task(found.hear(track) if sound else found.see(track), name=publication.name))

    def published(publication: rtc.RemoteTrackPublication, _publisher: object) -> None:
        if video or publication.kind == rtc.TrackKind.KIND_AUDIO:
            publication.set_subscribed(True)

    room.on("track_subscribed", subscribed)
    room.on("track_published", published)
    room.on("participant_disconnected", lambda participant: found.left.append(participant.identity))
    await room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
    for participant in room.remote_participants.values():
        for publication in participant.track_publications.values():
            published(publication, participant)
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await room.disconnect()


def best_match(heard: np.ndarray, said: np.ndarray) -> tuple[int, float]:
    """Find where in `heard` the sound `said` begins, with the normalised correlation (1 is the same sound)."""
    size = 1 << (len(heard) + len(said)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size)), size)
    at = int(np.argmax(product[: len(heard) - len(said) + 1]))
    part = heard[at : at + len(said)]
    norm = float(np.linalg.norm(part) * np.linalg.norm(said))
    return at, float(part @ said) / norm if norm else 0.0
