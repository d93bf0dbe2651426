"""Events of a session, numbered without gaps and kept for callers that resume."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final

from liveavatar_gateway.core.errors import EventsCompacted, GatewayError, InvalidField
from liveavatar_gateway.core.room_events import DataReceived, RoomEvent
from liveavatar_gateway.core.states import ContinueCause, EndReason, Outcome, Pose, SessionState

MAX_PAYLOAD_BYTES: Final = 512 * 1024
"""Data of participants that the log of one session keeps. Events that came before it are compacted away."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The session changed its state."""

    state: SessionState
    previous: SessionState


@dataclass(frozen=True, slots=True)
class PoseChanged:
    """The avatar took another pose."""

    pose: Pose
    previous: Pose


@dataclass(frozen=True, slots=True)
class UtteranceStarted:
    """The first sound of an utterance is playing; `inferred` when LiveAvatar did not report it."""

    utterance_id: str
    inferred: bool = False


@dataclass(frozen=True, slots=True)
class UtteranceUnderrun:
    """The avatar ran out of audio inside an open utterance, after `played_s` seconds of it were played."""

    utterance_id: str
    played_s: float


@dataclass(frozen=True, slots=True)
class UtteranceEnded:
    """An utterance has ended, after `played_s` seconds of it were played."""

    utterance_id: str
    outcome: Outcome
    played_s: float
    error: GatewayError | None = None
    inferred: bool = False
    dropped_tail_bytes: int = 0
    """Bytes of an incomplete last sample; 0 when another process ended the utterance."""
    repeated_s: float = 0.0
    """Seconds that were heard a second time after pauses, besides `played_s`."""
    heard_text: str = field(default="", repr=False)
    """Text that was heard; empty without timings, or when another process had them."""


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """Speech is paused, and the avatar is silent."""

    utterance_id: str
    """Utterance that was being spoken; empty when none was."""
    played_s: float
    """Seconds of that utterance that were heard."""
    heard_text: str = field(default="", repr=False)
    """Text of that utterance that was heard; empty without timings."""


@dataclass(frozen=True, slots=True)
class SpeechContinued:
    """The pause of speech is over."""

    utterance_id: str
    """Utterance that was paused; empty when none was being spoken."""
    repeated_s: float
    """Length of the step back to the last silence: seconds that are heard a second time."""
    cause: ContinueCause = ContinueCause.COMMAND


@dataclass(frozen=True, slots=True)
class Expiring:
    """The session's limit is near, or the end of a session that nobody uses."""

    expires_at: datetime
    """Time of the end, as known at this event."""
    reason: EndReason = EndReason.MAX_DURATION
    """Reason that the end will have."""


@dataclass(frozen=True, slots=True)
class ExpiryCancelled:
    """The announced end of a session that nobody used will not come: somebody uses the session again."""

    reason: EndReason
    """Reason of the `Expiring` event that is void."""


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The command socket is ready again, or the socket of a new avatar is."""

    attempt_count: int
    """Attempts to connect."""
    gap_s: float
    """Seconds between the loss and this event."""
    resent_bytes: int
    """Unconfirmed PCM that is sent a second time."""
    replaced: bool = False
    """True when the socket is that of a new avatar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Room of an avatar, and the tokens to join it with."""

    url: str
    token: str = field(repr=False)
    """Token of a viewer."""
    agent_token: str = field(default="", repr=False)
    """Token of the caller's own agent; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """A standby avatar took over from an avatar whose limit was near."""

    upstream_session_id: str
    """LiveAvatar's id of the session of the new avatar."""
    expires_at: datetime | None
    """Time at which its limit ends the new avatar; None when LiveAvatar reported no limit."""
    room: Room | None
    """Room of the new avatar; None when the room cannot be joined."""
    inside: bool
    """True when the takeover is inside an utterance, because no utterance ended in time."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """Another process drives the session now, after `gap_s` seconds without an owner."""

    gap_s: float


@dataclass(frozen=True, slots=True)
class UpstreamNotice:
    """LiveAvatar reported an error or a warning that does not end the session."""

    error: bool
    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The session has ended."""

    error: GatewayError | None = None


Forwarded = UpstreamNotice
"""Events of LiveAvatar that change nothing here and reach callers as they are; `upstream/wire.py` decodes them."""

SessionEvent = (
    StateChanged
    | PoseChanged
    | UtteranceStarted
    | UtteranceUnderrun
    | UtteranceEnded
    | SpeechPaused
    | SpeechContinued
    | Expiring
    | ExpiryCancelled
    | Reconnected
    | Rotated
    | Adopted
    | Forwarded
    | RoomEvent
    | Ended
)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """Numbered event with its wall-clock time (UTC)."""

    sequence: int
    at: datetime
    event: SessionEvent


class EventLog:
    """Latest events of a session. Sequence numbers count from 1 without gaps."""

    __slots__ = ("_capacity", "_entries", "_payload_bytes", "last_sequence")

    def __init__(self, *, capacity: int, last_sequence: int = 0) -> None:
        """Keep at most `capacity` entries, and `MAX_PAYLOAD_BYTES` of data; the oldest are compacted away.

        Args:
            capacity: Number of entries that are kept.
            last_sequence: Sequence number of the last event that another process logged; its events are not kept
                here.
        """
        self._capacity = capacity
        self._payload_bytes = 0
        self._entries: deque[LogEntry] = deque()
        self.last_sequence = last_sequence

    def append(self, event: SessionEvent, at: datetime) -> LogEntry:
        """Append an event under the next sequence number."""
        self.last_sequence += 1
        entry = LogEntry(self.last_sequence, at, event)
        self._entries.append(entry)
        self._payload_bytes += _payload_bytes(event)
        while len(self._entries) > self._capacity or self._payload_bytes > MAX_PAYLOAD_BYTES:
            self._payload_bytes -= _payload_bytes(self._entries.popleft().event)
        return entry

    @property
    def compacted_through(self) -> int:
        """Sequence number of the latest entry that is no longer kept; 0 when all are kept."""
        return self.last_sequence - len(self._entries)

    def after(self, sequence: int) -> list[LogEntry]:
        """Return the entries later than `sequence`, oldest first.

        Raises:
            EventsCompacted: some of these entries are no longer kept.
            InvalidField: `sequence` is negative, or is later than the latest entry.
        """
        if not 0 <= sequence <= self.last_sequence:
            raise InvalidField(
                f"after_sequence {sequence} is not between 0 and {self.last_sequence}; send the last one received",
                field="resume.after_sequence",
                after_sequence=sequence,
                last_sequence=self.last_sequence,
            )
        missing = self.last_sequence - sequence
        if missing > len(self._entries):
            raise EventsCompacted(sequence, self.last_sequence - len(self._entries) + 1)
        return list(islice(self._entries, len(self._entries) - missing, None))


def _payload_bytes(event: SessionEvent) -> int:
    return len(event.payload) if isinstance(event, DataReceived) else 0
