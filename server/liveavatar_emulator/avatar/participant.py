"""One avatar in one room, through the LiveKit SDK: joins, publishes its two tracks, performs, and leaves."""

import asyncio
import zlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol

import structlog
from livekit import rtc

from liveavatar_emulator.avatar.face import SIZES, Face
from liveavatar_emulator.avatar.tracks import DELAY_S, FaceTrack, VoiceTrack
from liveavatar_emulator.avatar.voice import RATE_HZ, SAMPLE_BYTES
from liveavatar_emulator.cues import Cue, Posed
from liveavatar_emulator.protocol import Pose
from liveavatar_emulator.rooms import RoomParticipant

JOIN_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 3.0
"""For one attempt of the SDK, which makes several. All of them must end before the join does: an attempt that is
abandoned may still succeed, and leave an avatar behind that nobody can put out."""
LEAVE_TIMEOUT_S = 3.0

_log = structlog.stdlib.get_logger()


class Rooms(Protocol):
    """Makes and removes rooms on the configured server."""

    async def create(self, name: str) -> None:
        """Make a room; one that exists already is fine."""

    async def close(self, name: str, tokens_valid_s: float) -> None:
        """Remove a room with everybody in it, and keep it removed while tokens for it may be valid.

        A room that is gone already is fine.
        """


class Participant:
    """An avatar. `run` is its whole life, in a task of its owner; `leave` ends it.

    `joined` is called once it is in the room with both tracks; `lost` when it could not join or was put out,
    and then nothing else. Neither is called after `leave`.
    """

    def __init__(
        self,
        *,
        session_id: str,
        seat: RoomParticipant,
        quality: str,
        encoding: str,
        rooms: Rooms,
        draughtsman: Executor,
        joined: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self.session_id = session_id
        self._seat = seat
        self._quality = quality
        self._encoding = encoding
        self._rooms = rooms
        self._draughtsman = draughtsman
        self._joined = joined
        self._lost = lost
        self._over = asyncio.Event()
        self._left = False
        self._pose = Pose.IDLE
        self._status = "joining"
        self._identity: str | None = None
        self._voice: VoiceTrack | None = None
        self._face: FaceTrack | None = None
        self._figures: dict[str, float] = {}

    # -- what the session says
    # ------------------------------------------------------------------------------------------------

    def follow(self, cue: Cue) -> None:
        """Take a cue. A session that waits for its avatar has none but poses before that has joined."""
        if isinstance(cue, Posed):
            self._pose = cue.pose
        elif self._voice is not None:
            self._voice.follow(cue)

    def leave(self) -> None:
        """Leave the room for good."""
        self._left = True
        self._over.set()

    def row(self) -> dict[str, Any]:
        """What became of it, as JSON."""
        return {
            "room": self._seat.room,
            "owned": self._seat.owned,
            "identity": self._identity,
            "status": self._status,
            "joined": self._status == "in the room",
            "delay_s": DELAY_S,
            **(self._figures or self._count()),
        }

    def _count(self) -> dict[str, float]:
        voice, face = self._voice, self._face
        return {
            "video_frames": face.pictures if face else 0,
            "video_frames_skipped": face.skipped if face else 0,
            "audio_frames": voice.frames if voice else 0,
            "audio_frames_late": voice.late_frames if voice else 0,
            "audio_missed_s": round(voice.missed_s, 6) if voice else 0.0,
            "audio_waiting_s": voice.voice.waiting_bytes / SAMPLE_BYTES / RATE_HZ if voice else 0.0,
            "speech_begun_late_s": round(voice.voice.late_samples / RATE_HZ, 6) if voice else 0.0,
        }

    # -- its life
    # ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Join, perform until the session is over or the room is lost, and leave."""
        room = rtc.Room()
        room.on("disconnected", lambda _reason: self._over.set())
        try:
            if await self._enter(room):
                await self._perform()
        except Exception as error:  # noqa: BLE001 - the SDK's errors share no base
            self._give_up("avatar.failed", error=type(error).__name__)
        finally:
            await self._exit(room)

    async def _enter(self, room: rtc.Room) -> bool:
        """Join and publish; False when that failed, or the session ended meanwhile."""
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S), asyncio.TaskGroup() as tasks:
                # The first face of a size takes a while to draw, about as long as it takes to join.
                drawing = tasks.create_task(asyncio.to_thread(Face, *SIZES[self._quality]))
                await self._connect(room)
                self._face = FaceTrack(await drawing, seed=zlib.crc32(self.session_id.encode()))
                self._voice = VoiceTrack()
                await self._voice.publish(room)
                await self._face.publish(room, self._quality, self._encoding)
        except* Exception as group:  # noqa: BLE001 - the SDK's errors share no base
            # The errors' text may hold an address with the token in it, so only their kinds are told.
            kinds = ",".join(sorted({type(error).__name__ for error in _leaves(group)}))
            self._give_up(
                "avatar.refused",
                error=kinds,
                hint="is the LiveKit server there, and does it take this room's token?",
            )
        if self._left or self._status != "joining":
            return False
        self._identity = room.local_participant.identity
        self._status = "in the room"
        _log.info("avatar.joined", session=self.session_id, room=self._seat.room, owned=self._seat.owned)
        self._joined()
        return True

    async def _connect(self, room: rtc.Room) -> None:
        if self._seat.owned:
            await self._rooms.create(self._seat.room)
        options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=CONNECT_TIMEOUT_S)
        await room.connect(self._seat.url, self._seat.token, options)

    async def _perform(self) -> None:
        voice, face = self._voice, self._face
        if voice is None or face is None:
            raise RuntimeError("performing without having joined")
        name = f"session-{self.session_id}"
        async with asyncio.TaskGroup() as tasks:
            speaking = tasks.create_task(voice.feed(), name=f"{name}/voice")
            showing = face.feed(self._draughtsman, lambda: self._pose, voice.mouth_now)
            drawing = tasks.create_task(showing, name=f"{name}/face")
            await self._over.wait()
            speaking.cancel()
            drawing.cancel()
        self._give_up("avatar.lost")

    def _give_up(self, event: str, **details: str) -> None:
        """Say once that it is out of the room against its session's will."""
        if self._left or self._status == "lost":
            return
        self._status = "lost"
        _log.error(event, session=self.session_id, room=self._seat.room, **details)
        self._lost()

    async def _exit(self, room: rtc.Room) -> None:
        if self._status != "lost":
            self._status = "left"
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await _leave(room)
        except Exception as error:  # noqa: BLE001 - the SDK's errors share no base, and it is gone either way
            _log.warning(
                "avatar.left_badly", session=self.session_id, room=self._seat.room, error=type(error).__name__
            )
        for track in (self._voice, self._face):
            if track is not None:
                await track.close()
        # Its session is remembered for long, pictures and sound need not be.
        self._figures = self._count()
        self._voice = self._face = None
        if self._seat.owned:
            await self._rooms.close(self._seat.room, self._seat.tokens_valid_s)


async def _leave(room: rtc.Room) -> None:
    # livekit 1.1.21 keeps threads and files of a room whose tracks were still published when it was left.
    if room.isconnected():
        for publication in list(room.local_participant.track_publications):
            await room.local_participant.unpublish_track(publication)
    await room.disconnect()


def _leaves(group: BaseExceptionGroup[Exception]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
