"""Participants of a LiveKit room and their data messages, as the SDK reports them.

Import this module where `listener` is imported: the SDK is large.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from livekit import rtc
from livekit.rtc._ffi_client import FfiClient, FfiHandle
from livekit.rtc.room import EventTypes

from liveavatar_gateway.core.errors import RoomUnreachable
from liveavatar_gateway.core.room_events import Microphone, ParticipantKind, RoomLossCause, RoomParticipant
from liveavatar_gateway.rooms.view import RoomFollower

MICROPHONES: Final = (rtc.TrackSource.SOURCE_MICROPHONE, rtc.TrackSource.SOURCE_UNKNOWN)
"""Sources that count as voices, the better first: programs often leave the source unset."""
PROGRAMS: Final = (
    rtc.ParticipantKind.PARTICIPANT_KIND_AGENT,
    rtc.ParticipantKind.PARTICIPANT_KIND_EGRESS,
    rtc.ParticipantKind.PARTICIPANT_KIND_INGRESS,
)
MAX_IDENTITY_CHARS: Final = 256
"""Longest identity that is reported, and length to which names are cut: LiveKit's own default limit."""
_CHANGES: Final[tuple[EventTypes, ...]] = (
    "participant_connected",
    "participant_disconnected",
    "participant_name_changed",
    "track_published",
    "track_unpublished",
    "track_muted",
    "track_unmuted",
)
_MAX_PER_S: Final = 200
"""Data messages of a room that reach the loop in a second; what a caller gets is less."""
_MAX_PER_S_OF_ONE: Final = 50
_OVERFLOW_S: Final = 1.0
"""Time after which data that was dropped in the thread of the SDK is counted."""
_REMOVED: Final = (
    rtc.DisconnectReason.DUPLICATE_IDENTITY,
    rtc.DisconnectReason.PARTICIPANT_REMOVED,
)
_CLOSED: Final = (rtc.DisconnectReason.ROOM_DELETED, rtc.DisconnectReason.ROOM_CLOSED)


class RoomObserver:
    """View of one connection to a room, and its way to send data."""

    def __init__(self, room: rtc.Room) -> None:
        """Prepare; the room may have been joined before."""
        self._room = room
        self._follower: RoomFollower | None = None
        self._gate: DataGate | None = None
        self._overflow_count = 0

    def follow(self, follower: RoomFollower) -> None:
        """Report to a follower from now on; once for each connection, after it has joined."""
        self._follower = follower
        room = self._room
        for change in _CHANGES:
            room.on(change, lambda *_: follower.room_changed())
        room.on("reconnecting", follower.room_interrupted)
        room.on("reconnected", follower.room_restored)
        room.on("data_received", self._on_data)
        loop = asyncio.get_running_loop()
        self._gate = gate_of(room, follower.wants, lambda: self._note_overflow(loop))

    def participants(self) -> list[RoomParticipant]:
        """Return the participants, the gateway left out."""
        return [
            self._participant(one)
            for one in self._room.remote_participants.values()
            if len(one.identity) <= MAX_IDENTITY_CHARS
        ]

    def has_viewer(self) -> bool:
        """Return True if a participant may see the avatar: neither an avatar, nor a program but egress."""
        return any(
            not self._is_avatar(one.identity)
            and (one.kind not in PROGRAMS or one.kind == rtc.ParticipantKind.PARTICIPANT_KIND_EGRESS)
            for one in self._room.remote_participants.values()
        )

    @property
    def may_send(self) -> bool:
        """True if the token allows data."""
        return bool(self._room.local_participant.permissions.can_publish_data)

    def absent(self, identities: Sequence[str]) -> str:
        """Return an identity that is not in the room; empty if all are."""
        present = self._room.remote_participants
        return next((identity for identity in identities if identity not in present), "")

    async def send(self, payload: bytes, topic: str, identities: Sequence[str], *, timeout_s: float) -> None:
        """Send data reliably, to everybody if `identities` is empty.

        Raises:
            RoomUnreachable: the SDK has not sent it, or not in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._room.local_participant.publish_data(
                    payload, reliable=True, destination_identities=list(identities), topic=topic
                )
        except TimeoutError:
            raise RoomUnreachable("data could not be sent in time") from None
        except Exception as error:  # noqa: BLE001 - the errors of the SDK share no base
            raise RoomUnreachable(type(error).__name__) from None

    def _participant(self, one: rtc.RemoteParticipant) -> RoomParticipant:
        kind = self._kind(one)
        microphone = _microphone(voice_of(one))
        has_video = kind is ParticipantKind.AVATAR and any(
            track.kind == rtc.TrackKind.KIND_VIDEO for track in one.track_publications.values()
        )
        return RoomParticipant(one.identity, one.name[:MAX_IDENTITY_CHARS], kind, microphone, has_video)

    def _kind(self, one: rtc.RemoteParticipant) -> ParticipantKind:
        if self._is_avatar(one.identity):
            return ParticipantKind.AVATAR
        if one.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT:
            return ParticipantKind.AGENT
        return ParticipantKind.OTHER if one.kind in PROGRAMS else ParticipantKind.USER

    def _is_avatar(self, identity: str) -> bool:
        return self._follower is not None and self._follower.is_avatar(identity)

    def _on_data(self, packet: rtc.DataPacket) -> None:
        topic = packet.topic or ""
        if self._follower is not None and self._follower.wants(topic):
            identity = "" if packet.participant is None else packet.participant.identity
            self._follower.data_received(identity[:MAX_IDENTITY_CHARS], topic, packet.data)

    def _note_overflow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count what is dropped in this second; called in the thread of the SDK."""
        # A loop that is closed has nobody left to be told.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.call_later, _OVERFLOW_S, self._report_overflow)

    def _report_overflow(self) -> None:
        if self._gate is not None and self._follower is not None:
            total = self._gate.overflow_count
            count, self._overflow_count = total - self._overflow_count, total
            self._follower.data_dropped(count)


def _microphone(voice: rtc.RemoteTrackPublication | None) -> Microphone:
    if voice is None:
        return Microphone.NONE
    return Microphone.MUTED if voice.muted else Microphone.LIVE


def voice_of(participant: rtc.RemoteParticipant) -> rtc.RemoteTrackPublication | None:
    """Return the track of a participant's microphone; None without one."""
    tracks = [
        publication
        for publication in participant.track_publications.values()
        if publication.kind == rtc.TrackKind.KIND_AUDIO and publication.source in MICROPHONES
    ]
    return min(tracks, key=lambda one: (MICROPHONES.index(one.source), one.sid), default=None)


def loss_cause(reason: Any) -> RoomLossCause:
    """Return the cause of a lost connection from the SDK's reason."""
    if reason in _REMOVED:
        return RoomLossCause.REMOVED
    return RoomLossCause.CLOSED if reason in _CLOSED else RoomLossCause.LOST


class DataGate:
    """Filter of one room's events in the SDK's thread, before they reach the loop.

    livekit 1.1.21 passes the events of all rooms of the process through the event loop to each room, so that a
    participant who floods one room with data would slow all others. Drop when its `Room` filters by its handle.
    """

    def __init__(self, handle: int, wants: Callable[[str], bool], on_overflow: Callable[[], None]) -> None:
        """Prepare.

        Args:
            handle: The SDK's handle of the room.
            wants: Returns True if data of a topic is wanted.
            on_overflow: Called in the SDK's thread at most once a second, when too much data begins to be dropped.
        """
        self._handle = handle
        self._wants = wants
        self._on_overflow = on_overflow
        self._second_s = 0.0
        self._counts: Counter[str] = Counter()
        """Messages in the present second, by sender."""
        self._has_overflowed = False
        self.overflow_count = 0
        """Messages of wanted topics that were dropped because there were too many; only this thread changes it."""

    def passes(self, event: Any) -> bool:
        """Return True if an event is for the room, and not data that nobody wants or too much data."""
        kind = event.WhichOneof("message")
        if kind in ("audio_stream_event", "video_stream_event"):
            return False
        if kind != "room_event":
            return True
        if event.room_event.room_handle != self._handle:
            return False
        if event.room_event.WhichOneof("message") != "data_packet_received":
            return True
        packet = event.room_event.data_packet_received
        is_data = packet.HasField("user")
        if not is_data or (self._wants(packet.user.topic) and self._has_room(packet.participant_identity)):
            return True
        # The payload is in the native library's memory until its handle is dropped.
        FfiHandle(packet.user.data.handle.id).dispose()
        return False

    def _has_room(self, sender: str) -> bool:
        now_s = time.monotonic()
        if now_s - self._second_s >= 1.0:
            self._second_s, self._has_overflowed = now_s, False
            self._counts.clear()
        if self._counts[sender] < _MAX_PER_S_OF_ONE and self._counts.total() < _MAX_PER_S:
            self._counts[sender] += 1
            return True
        self.overflow_count += 1
        if not self._has_overflowed:
            self._has_overflowed = True
            self._on_overflow()
        return False


def _do_nothing() -> None:
    """Report no overflow where no data is wanted."""


def _nothing(_topic: str) -> bool:
    return False


def gate_of(
    room: rtc.Room, wants: Callable[[str], bool] = _nothing, on_overflow: Callable[[], None] = _do_nothing
) -> DataGate | None:
    """Filter the events of a room that was joined, and return the filter; None if the room is not joined.

    Args:
        room: The room.
        wants: Returns True if data of a topic is wanted; by default, none is.
        on_overflow: See `DataGate`.
    """
    own = room._ffi_handle  # noqa: SLF001 - see `DataGate`
    if own is None:
        return None
    gate, queue = DataGate(own.handle, wants, on_overflow), FfiClient.instance.queue
    with queue._lock:  # noqa: SLF001
        subscribers = queue._subscribers  # noqa: SLF001
        for position, (found, loop, _) in enumerate(subscribers):
            if found is room._ffi_queue:  # noqa: SLF001
                subscribers[position] = found, loop, gate.passes
    return gate
