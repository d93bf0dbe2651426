"""Events of a session, numbered without gaps and kept for callers that resume."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from liveavatar_gateway.core.errors import EventsCompacted, GatewayError, InvalidField
from liveavatar_gateway.core.states import Outcome, Pose, SessionState


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The session moved on in its life."""

    state: SessionState
    previous: SessionState


@dataclass(frozen=True, slots=True)
class PoseChanged:
    """The avatar took another pose."""

    pose: Pose
    previous: Pose


@dataclass(frozen=True, slots=True)
class UtteranceStarted:
    """The first sound of an utterance is out; `inferred` when LiveAvatar did not say so."""

    utterance_id: str
    inferred: bool = False


@dataclass(frozen=True, slots=True)
class UtteranceUnderrun:
    """The avatar ran dry inside an utterance whose audio has not all come; `played_s` of it were heard before."""

    utterance_id: str
    played_s: float


@dataclass(frozen=True, slots=True)
class UtteranceEnded:
    """An utterance is over; `played_s` of it were heard."""

    utterance_id: str
    outcome: Outcome
    played_s: float
    error: GatewayError | None = None
    inferred: bool = False
    dropped_tail_bytes: int = 0
    """Bytes of a last sample that never came whole; 0 when another process ended it."""


@dataclass(frozen=True, slots=True)
class Expiring:
    """The session's limit is near."""

    expires_at: datetime
    """Time at which the limit ends the session, as known at this event."""


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The command socket is there again, or a fresh avatar's instead."""

    attempt_count: int
    """Tries it took."""
    gap_s: float
    """From the loss to now."""
    resent_bytes: int
    """PCM that goes up a second time, since LiveAvatar had not confirmed it."""
    replaced: bool = False
    """True when the socket is that of a new avatar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Room of an avatar, and a token to join it with."""

    url: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """A fresh avatar took over from the one whose limit was near."""

    upstream_session_id: str
    """LiveAvatar's id of its session."""
    expires_at: datetime | None
    """Time at which its limit ends it; None when LiveAvatar reported none."""
    room: Room | None
    """Its room; None when the room cannot be joined."""
    inside: bool
    """True when it takes over inside an utterance, because no utterance ended in time."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """Another process drives the session now; `gap_s` nobody did."""

    gap_s: float


@dataclass(frozen=True, slots=True)
class UpstreamNotice:
    """LiveAvatar reported something that does not end the session."""

    error: bool
    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over."""

    error: GatewayError | None = None


SessionEvent = (
    StateChanged
    | PoseChanged
    | UtteranceStarted
    | UtteranceUnderrun
    | UtteranceEnded
    | Expiring
    | Reconnected
    | Rotated
    | Adopted
    | UpstreamNotice
    | Ended
)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """Numbered event with its wall-clock time (UTC)."""

    sequence: int
    at: datetime
    happening: SessionEvent


class EventLog:
    """Latest events of a session. Sequences count from 1 without holes."""

    __slots__ = ("_entries", "last_sequence")

    def __init__(self, *, capacity: int, last_sequence: int = 0) -> None:
        """Keep at most `capacity` entries; the oldest are compacted away.

        Args:
            capacity: How many are kept.
            last_sequence: Where to go on counting: what another process numbered is compacted away here.
        """
        self._entries: deque[LogEntry] = deque(maxlen=capacity)
        self.last_sequence = last_sequence

    def append(self, happening: SessionEvent, at: datetime) -> LogEntry:
        """Append an event under the next sequence number."""
        self.last_sequence += 1
        entry = LogEntry(self.last_sequence, at, happening)
        self._entries.append(entry)
        return entry

    @property
    def compacted_through(self) -> int:
        """The last sequence that is no longer kept; 0 when all are."""
        return self.last_sequence - len(self._entries)

    def after(self, sequence: int) -> list[LogEntry]:
        """Entries later than `sequence`, oldest first.

        Raises:
            EventsCompacted: some of them are no longer kept.
            InvalidField: `sequence` is negative, or was never given out.
        """
        if not 0 <= sequence <= self.last_sequence:
            raise InvalidField(
                f"after_sequence {sequence} is not between 0 and {self.last_sequence}",
                field="resume.after_sequence",
                after_sequence=sequence,
                last_sequence=self.last_sequence,
            )
        missing = self.last_sequence - sequence
        if missing > len(self._entries):
            raise EventsCompacted(sequence, self.last_sequence - len(self._entries) + 1)
        return list(islice(self._entries, len(self._entries) - missing, None))
