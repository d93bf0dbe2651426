"""Avatar in one room, through the LiveKit SDK: joins, publishes its two tracks, streams, and leaves."""

import asyncio
import zlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol

import structlog
from livekit import rtc

from liveavatar_emulator.avatar.ears import Ears
from liveavatar_emulator.avatar.face import SIZES, Face
from liveavatar_emulator.avatar.speech_renderer import RATE_HZ, SAMPLE_BYTES
from liveavatar_emulator.avatar.tracks import DELAY_S, AudioTrack, VideoTrack
from liveavatar_emulator.avatar_events import AvatarEvent, PoseChanged
from liveavatar_emulator.protocol import Pose
from liveavatar_emulator.rooms import RoomAccess
from liveavatar_emulator.states import AVATAR_STATES, AvatarState, State

JOIN_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 3.0
"""Timeout of one of the SDK's several attempts. All attempts must end before the join times out: an abandoned
attempt may still succeed, and leave an avatar in the room that the emulator cannot remove."""
LEAVE_TIMEOUT_S = 3.0

_log = structlog.stdlib.get_logger()


class Rooms(Protocol):
    """Rooms on the configured server."""

    async def create(self, name: str) -> None:
        """Create a room; an existing room is fine."""

    async def close(self, name: str, tokens_valid_s: float) -> None:
        """Delete a room with its participants, and keep it deleted while tokens for it may be valid.

        A deleted room is fine.
        """


class Participant:
    """An avatar. `run` is its whole life, in a task of its owner; `leave` ends it.

    `joined` is called once both tracks are in the room; `lost` is called if the avatar could not join or was
    disconnected, and is the last call. Neither is called after `leave`.
    """

    def __init__(
        self,
        *,
        session_id: str,
        access: RoomAccess,
        quality: str,
        encoding: str,
        has_video: bool,
        rooms: Rooms,
        drawing_executor: Executor,
        joined: Callable[[], None],
        lost: Callable[[], None],
        heard: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self.session_id = session_id
        self._access = access
        self._quality = quality
        self._encoding = encoding
        self._has_video = has_video
        self._rooms = rooms
        self._drawing_executor = drawing_executor
        self._joined = joined
        self._lost = lost
        self._ears = None if heard is None else Ears(heard)
        self._stop = asyncio.Event()
        self._leave_requested = False
        self._pose = Pose.IDLE
        self._state = State(AvatarState.JOINING, AVATAR_STATES)
        self._identity: str | None = None
        self._audio: AudioTrack | None = None
        self._video: VideoTrack | None = None
        self._final_counters: dict[str, float] = {}

    # -- called by the session's driver
    # ------------------------------------------------------------------------------------------------

    def handle(self, event: AvatarEvent) -> None:
        """Render an event. Before the avatar has joined, a waiting session sends only poses."""
        if isinstance(event, PoseChanged):
            self._pose = event.pose
        elif self._audio is not None:
            self._audio.handle(event)

    def leave(self) -> None:
        """Leave the room for good."""
        self._leave_requested = True
        self._stop.set()

    def row(self) -> dict[str, Any]:
        """Return state and counters as JSON."""
        return {
            "room": self._access.room,
            "owned": self._access.owned,
            "identity": self._identity,
            "status": self._state.value.value,
            "joined": self._state.value is AvatarState.JOINED,
            "delay_s": DELAY_S,
            **(self._final_counters or self._counters()),
        }

    def _counters(self) -> dict[str, float]:
        audio, video = self._audio, self._video
        return {
            "video_frames": video.frames if video else 0,
            "video_frames_skipped": video.skipped_frames if video else 0,
            "audio_frames": audio.frames if audio else 0,
            "audio_frames_late": audio.late_frames if audio else 0,
            "audio_missed_s": round(audio.missed_s, 6) if audio else 0.0,
            "audio_waiting_s": audio.renderer.waiting_bytes / SAMPLE_BYTES / RATE_HZ if audio else 0.0,
            "speech_begun_late_s": round(audio.renderer.late_samples / RATE_HZ, 6) if audio else 0.0,
        }

    # -- life
    # ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Join, stream until the session ends or the room is lost, and leave."""
        room = rtc.Room()
        room.on("disconnected", lambda _reason: self._stop.set())
        if self._ears is not None:
            self._ears.attach(room)
        try:
            if await self._enter(room):
                await self._stream()
        except Exception as error:  # noqa: BLE001 - the SDK's errors share no base
            self._give_up("avatar.failed", error=type(error).__name__)
        finally:
            await self._exit(room)

    async def _enter(self, room: rtc.Room) -> bool:
        """Join and publish; False if that failed, or if the session ended meanwhile."""
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S), asyncio.TaskGroup() as tasks:
                # Drawing the first face of a size takes about as long as joining.
                drawing = tasks.create_task(self._face())
                await self._connect(room)
                if (face := await drawing) is not None:
                    self._video = VideoTrack(face, seed=zlib.crc32(self.session_id.encode()))
                self._audio = AudioTrack()
                await self._audio.publish(room)
                if self._video is not None:
                    await self._video.publish(room, self._quality, self._encoding)
        except* Exception as group:  # noqa: BLE001 - the SDK's errors share no base
            # An error's text may contain an address with the token, so only the types are logged.
            kinds = ",".join(sorted({type(error).__name__ for error in _leaves(group)}))
            self._give_up(
                "avatar.refused",
                error=kinds,
                hint="check that the LiveKit server is reachable and accepts this room's token",
            )
        if self._leave_requested or self._state.value is AvatarState.LOST:
            return False
        self._identity = room.local_participant.identity
        self._state.move(AvatarState.JOINED)
        _log.info("avatar.joined", session=self.session_id, room=self._access.room, owned=self._access.owned)
        if self._ears is not None:
            self._ears.choose()
        self._joined()
        return True

    async def _face(self) -> Face | None:
        """Draw the first face; None for an avatar that only speaks."""
        return await asyncio.to_thread(Face, *SIZES[self._quality]) if self._has_video else None

    async def _connect(self, room: rtc.Room) -> None:
        if self._access.owned:
            await self._rooms.create(self._access.room)
        options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=CONNECT_TIMEOUT_S)
        await room.connect(self._access.url, self._access.token, options)

    async def _stream(self) -> None:
        audio, video = self._audio, self._video
        if audio is None:
            raise RuntimeError("streaming without having joined")
        name = f"session-{self.session_id}"
        async with asyncio.TaskGroup() as tasks:
            feeds = [tasks.create_task(audio.feed(), name=f"{name}/voice")]
            if video is not None:
                frames = video.feed(self._drawing_executor, lambda: self._pose, audio.mouth_now)
                feeds.append(tasks.create_task(frames, name=f"{name}/face"))
            await self._stop.wait()
            for feed in feeds:
                feed.cancel()
        self._give_up("avatar.lost")

    def _give_up(self, event: str, **details: str) -> None:
        """Report, once, that the avatar is out of the room against its session's will."""
        if self._leave_requested or self._state.value is AvatarState.LOST:
            return
        self._state.move(AvatarState.LOST)
        _log.error(event, session=self.session_id, room=self._access.room, **details)
        self._lost()

    async def _exit(self, room: rtc.Room) -> None:
        if self._state.value is not AvatarState.LOST:
            self._state.move(AvatarState.LEFT)
        if self._ears is not None:
            await self._ears.close()
        leaving = asyncio.ensure_future(_leave(room))
        # Not `asyncio.timeout`: before Python 3.11.3 it raises no TimeoutError in a task that was cancelled.
        done, _ = await asyncio.wait({leaving}, timeout=LEAVE_TIMEOUT_S)
        leaving.cancel()
        error = leaving.exception() if done else TimeoutError()
        if error is not None:  # the room is left either way
            _log.warning(
                "avatar.left_badly", session=self.session_id, room=self._access.room, error=type(error).__name__
            )
        for track in (self._audio, self._video):
            if track is not None:
                await track.close()
        # The session's record outlives the tracks, so only the counters are kept.
        self._final_counters = self._counters()
        self._audio = self._video = None
        if self._access.owned:
            await self._rooms.close(self._access.room, self._access.tokens_valid_s)


async def _leave(room: rtc.Room) -> None:
    # livekit 1.1.21 leaks threads and files of a room that was left with published tracks.
    if room.isconnected():
        for publication in list(room.local_participant.track_publications):
            await room.local_participant.unpublish_track(publication)
    await room.disconnect()


def _leaves(group: BaseExceptionGroup[Exception]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
