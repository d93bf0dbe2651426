"""Participant of a LiveKit room that hears its users and publishes nothing.

Import this module, and call `load`, in a thread: the SDK has a large native library. Both together take 15 MB.
"""

import asyncio
import time
from collections.abc import Collection
from typing import Any, Final, Protocol

import structlog
from livekit import rtc
from livekit.rtc._ffi_client import FfiClient
from livekit.rtc.room import EventTypes

from liveavatar_gateway.core.errors import RoomUnreachable
from liveavatar_gateway.core.room_events import RoomLossCause
from liveavatar_gateway.rooms.access import LiveKitAccess
from liveavatar_gateway.rooms.observer import PROGRAMS, RoomObserver, gate_of, loss_cause, voice_of

_log = structlog.get_logger(__name__)

MAX_HEARD: Final = 16
"""Users heard at once. Each takes a decoder in the SDK, and 50 pieces of audio a second."""
_PIECE_MS: Final = 20
"""Audio of one piece from the SDK, whose costs are for each piece."""
_CONNECT_TIMEOUT_S: Final = 3.0
"""Time-out of one of the SDK's several attempts."""
_JOIN_TIMEOUT_S: Final = 15.0
"""Longest wait for all attempts together."""
_LEAVE_TIMEOUT_S: Final = 3.0
_CHANGES: Final[tuple[EventTypes, ...]] = (
    "participant_connected",
    "participant_disconnected",
    "track_published",
    "track_unpublished",
)

_unfinished: set[asyncio.Task[None]] = set()
"""Connections that are being left; some are to leave once the SDK has joined the room after all."""


def load() -> None:
    """Load the native library of the SDK, which takes longer than the import; also on the first use otherwise."""
    _ = FfiClient.instance


class UserAudioSink(Protocol):
    """Receiver of the users' audio, which says whom it wants to hear."""

    def rates_hz(self) -> Collection[int]:
        """Return the sample rates that are wanted."""

    def hears(self, participant: str) -> bool:
        """Return True if the audio of a participant is wanted."""

    def take(self, participant: str, rate_hz: int, pcm: bytes, captured_s: float) -> None:
        """Take mono 16-bit samples; the first arrived at `captured_s` of the wall clock."""

    def fell_silent(self, participant: str, rate_hz: int) -> None:
        """Take note that no more audio of a participant is coming for now."""

    def room_lost(self) -> None:
        """Take note that the connection to the room is lost."""


class RoomListener:
    """Connection to one room: `join` once, then `leave` once.

    Invariant: it is subscribed to at most one track of a user and to no other track.
    """

    def __init__(self, sink: UserAudioSink, avatars: Collection[str]) -> None:
        """Prepare in the running loop.

        Args:
            sink: Receiver of the audio.
            avatars: Identities of avatars, which are never heard.
        """
        self._sink = sink
        self._avatars = avatars
        self._room = rtc.Room()
        self.observer = RoomObserver(self._room)
        """View of participants and data."""
        self.loss_cause = RoomLossCause.LOST
        """Cause of the loss, once `is_lost`."""
        self._chosen: dict[str, tuple[str, rtc.RemoteTrackPublication]] = {}
        """Identity and publication of each track that is wanted, by its id."""
        self._tracks: dict[str, rtc.Track] = {}
        """Tracks whose audio arrives, by id."""
        self._readers: dict[tuple[str, int], asyncio.Task[None]] = {}
        """Readers of tracks at a sample rate."""
        self._is_lost = False
        self._is_leaving = False
        room = self._room
        for change in _CHANGES:
            room.on(change, lambda *_: self.choose())
        room.on("reconnected", self._on_reconnected)
        room.on("track_subscribed", self._on_subscribed)
        room.on("track_unsubscribed", self._on_unsubscribed)
        room.on("track_subscription_failed", self._on_failed)
        room.on("disconnected", self._on_disconnected)

    @property
    def is_lost(self) -> bool:
        """True once the connection is lost, and the SDK has given it up."""
        return self._is_lost

    async def join(self, access: LiveKitAccess) -> None:
        """Join the room. After a failure, `leave` is to be called nevertheless.

        Raises:
            RoomUnreachable: the server cannot be reached, refuses the token, or does not answer in time.
        """
        options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=_CONNECT_TIMEOUT_S)
        connecting = asyncio.ensure_future(self._room.connect(access.url, access.token, options))
        try:
            await asyncio.wait([connecting], timeout=_JOIN_TIMEOUT_S)
        finally:
            if not connecting.done():
                # The SDK cannot be stopped: an attempt may still succeed, and leave a participant in the room.
                late = asyncio.create_task(_leave_later(self._room, connecting), name="rooms/leave-late")
                _keep(late)
        if not connecting.done():
            raise RoomUnreachable("no answer in time")
        error = connecting.exception()
        if error is not None:
            # Its text may have the address with the token.
            raise RoomUnreachable(type(error).__name__) from None
        gate_of(self._room)
        self.choose()

    def choose(self) -> None:
        """Subscribe to the tracks that are wanted now, and leave all others."""
        if self._is_leaving or not self._room.isconnected():
            return
        wanted = self._wanted()
        for track_id in self._chosen.keys() - wanted.keys():
            _, publication = self._chosen.pop(track_id)
            self._drop(track_id)
            publication.set_subscribed(False)
        for track_id, (identity, publication) in wanted.items():
            if track_id not in self._chosen:
                self._chosen[track_id] = identity, publication
                publication.set_subscribed(True)
        self._read_tracks()

    async def leave(self) -> None:
        """Leave the room. Idempotent, and bounded in time."""
        self._is_leaving = True
        readers = list(self._readers.values())
        for track_id in list(self._tracks):
            self._drop(track_id)
        leaving = asyncio.create_task(self._room.disconnect(), name="rooms/leave")
        # To its end, also if the caller is cancelled meanwhile.
        _keep(leaving)
        _, open_ = await asyncio.wait([leaving, *readers], timeout=_LEAVE_TIMEOUT_S)
        for task in open_:
            task.cancel()
        if open_ or leaving.exception() is not None:
            _log.warning("rooms.left_badly", open=len(open_))

    def _wanted(self) -> dict[str, tuple[str, rtc.RemoteTrackPublication]]:
        heard = {identity for identity, _ in self._chosen.values()}
        # Whoever is heard already keeps the place.
        participants = sorted(self._room.remote_participants.values(), key=lambda one: one.identity not in heard)
        wanted: dict[str, tuple[str, rtc.RemoteTrackPublication]] = {}
        for participant in participants:
            if len(wanted) == MAX_HEARD:
                break
            if self._is_user(participant) and self._sink.hears(participant.identity):
                publication = voice_of(participant)
                if publication is not None:
                    wanted[publication.sid] = participant.identity, publication
        return wanted

    def _is_user(self, participant: rtc.RemoteParticipant) -> bool:
        return participant.kind not in PROGRAMS and participant.identity not in self._avatars

    # --- events of the SDK, on the loop

    def _on_reconnected(self) -> None:
        # The SDK may have made a new connection, in which nothing is subscribed to.
        for _, publication in self._chosen.values():
            publication.set_subscribed(True)
        self.choose()

    def _on_subscribed(self, track: rtc.Track, publication: rtc.RemoteTrackPublication) -> None:
        self._drop(publication.sid)
        if publication.sid in self._chosen:
            self._tracks[publication.sid] = track
            self._read_tracks()

    def _on_unsubscribed(self, _track: object, publication: rtc.RemoteTrackPublication) -> None:
        self._drop(publication.sid)

    def _on_failed(self, _participant: object, track_id: str) -> None:
        _log.warning("rooms.subscription_failed")
        # Tried again with the next change in the room.
        self._chosen.pop(track_id, None)

    def _on_disconnected(self, reason: object = None) -> None:
        if not self._is_leaving and not self._is_lost:
            self._is_lost = True
            self.loss_cause = loss_cause(reason)
            _log.warning("rooms.lost", reason=_name(reason))
            self._sink.room_lost()

    # --- audio

    def _read_tracks(self) -> None:
        rates_hz = frozenset(self._sink.rates_hz())
        for track_id, rate_hz in list(self._readers):
            if rate_hz not in rates_hz:
                self._readers.pop((track_id, rate_hz)).cancel()
        for track_id, track in self._tracks.items():
            identity = self._chosen[track_id][0]
            for rate_hz in rates_hz:
                if (track_id, rate_hz) not in self._readers:
                    reading = asyncio.create_task(self._read(identity, rate_hz, track), name="rooms/read")
                    self._readers[track_id, rate_hz] = reading

    def _drop(self, track_id: str) -> None:
        self._tracks.pop(track_id, None)
        for key in [key for key in self._readers if key[0] == track_id]:
            self._readers.pop(key).cancel()

    async def _read(self, identity: str, rate_hz: int, track: rtc.Track) -> None:
        """Pass on the audio of a track, resampled by the SDK."""
        stream = rtc.AudioStream(track, sample_rate=rate_hz, num_channels=1, frame_size_ms=_PIECE_MS)
        _filter_by_handle(stream)
        try:
            async for event in stream:
                frame = event.frame
                self._sink.take(identity, rate_hz, frame.data.tobytes(), time.time() - frame.duration)
        except Exception:  # noqa: BLE001 - root of its task: the errors of the SDK share no base
            _log.exception("rooms.read_failed")
        finally:
            self._sink.fell_silent(identity, rate_hz)
            await stream.aclose()


def _filter_by_handle(stream: rtc.AudioStream) -> None:
    """Let a stream of the SDK get its own audio alone.

    livekit 1.1.21 passes the audio of all streams of the process through the event loop to each stream, so that
    the cost of users grows with their square. Drop when its `AudioStream` filters by its handle.
    """
    queue, handle = FfiClient.instance.queue, stream._ffi_handle.handle  # noqa: SLF001 - see above
    with queue._lock:  # noqa: SLF001
        subscribers = queue._subscribers  # noqa: SLF001
        for position, (own, loop, _) in enumerate(subscribers):
            if own is stream._ffi_queue:  # noqa: SLF001
                subscribers[position] = own, loop, lambda event: _handle_of(event) == handle
                return


def _handle_of(event: Any) -> int:
    """Return the handle of the stream whose audio an event has; 0 for another event."""
    handle: int = event.audio_stream_event.stream_handle
    return handle


def _name(reason: Any) -> str:
    try:
        return rtc.DisconnectReason.Name(reason)
    except (TypeError, ValueError):
        return ""


def _keep(task: asyncio.Task[None]) -> None:
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)


async def _leave_later(room: rtc.Room, connecting: "asyncio.Future[None]") -> None:
    await asyncio.wait([connecting])
    if connecting.exception() is None:
        await room.disconnect()
