"""Ears of an avatar that a hosted agent drives: the microphones of the users in its room."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from livekit import rtc

from liveavatar_emulator.hosted_agent import RATE_HZ

_FRAME_MS: Final = 20
_MAX_HEARD: Final = 16
"""Users that are heard at once."""
_CLOSE_TIMEOUT_S: Final = 2.0
_PROGRAMS: Final = frozenset(
    {
        rtc.ParticipantKind.PARTICIPANT_KIND_AGENT,
        rtc.ParticipantKind.PARTICIPANT_KIND_INGRESS,
        rtc.ParticipantKind.PARTICIPANT_KIND_EGRESS,
    }
)

_log = structlog.stdlib.get_logger()


class Ears:
    """Subscriptions to the audio of users, passed on in frames of 20 ms. Closed by the avatar."""

    def __init__(self, heard: Callable[[str, bytes], None]) -> None:
        """Prepare; `heard` is called with name and audio of a user, and with empty audio when no more comes."""
        self._heard = heard
        self._room: rtc.Room | None = None
        self._readers: dict[str, asyncio.Task[None]] = {}
        """Readers of tracks, by the id of the track."""
        self._closed = False

    def attach(self, room: rtc.Room) -> None:
        """Follow the tracks of a room that is about to be joined."""
        self._room = room
        for change in ("track_published", "participant_connected", "reconnected"):
            room.on(change, lambda *_: self.choose())
        room.on("track_subscribed", self._on_subscribed)
        room.on("track_unsubscribed", self._on_unsubscribed)

    def choose(self) -> None:
        """Subscribe to the microphones of all users, as far as there are few enough."""
        if self._closed or self._room is None:
            return
        chosen = 0
        for participant in self._room.remote_participants.values():
            if participant.kind in _PROGRAMS:
                continue
            for publication in participant.track_publications.values():
                if publication.kind == rtc.TrackKind.KIND_AUDIO and chosen < _MAX_HEARD:
                    chosen += 1
                    if not publication.subscribed:
                        publication.set_subscribed(True)

    def _on_subscribed(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        if self._closed or publication.kind != rtc.TrackKind.KIND_AUDIO:
            return
        self._on_unsubscribed(track, publication)
        name = f"avatar/hear-{participant.identity}"
        self._readers[publication.sid] = asyncio.create_task(self._read(participant.identity, track), name=name)

    def _on_unsubscribed(self, _track: object, publication: rtc.RemoteTrackPublication, *_: object) -> None:
        reader = self._readers.pop(publication.sid, None)
        if reader is not None:
            reader.cancel()

    async def _read(self, identity: str, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE_HZ, num_channels=1, frame_size_ms=_FRAME_MS)
        try:
            async for event in stream:
                self._heard(identity, event.frame.data.tobytes())
        except Exception as error:  # noqa: BLE001 - root of its task: the errors of the SDK share no base
            _log.warning("avatar.deaf", error=type(error).__name__)
        finally:
            if not self._closed:
                self._heard(identity, b"")
            await stream.aclose()

    async def close(self) -> None:
        """Stop to listen. Idempotent."""
        self._closed = True
        readers = list(self._readers.values())
        self._readers.clear()
        for reader in readers:
            reader.cancel()
        if readers:
            await asyncio.wait(readers, timeout=_CLOSE_TIMEOUT_S)
