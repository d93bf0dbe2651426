"""Record of the callers' requests and responses, as plain values; input of the invariants."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Said:
    """Utterance of a caller."""

    utterance_id: str
    pcm: bytes = field(repr=False)
    outcome: str = ""
    """Outcome, in the client's words; empty before the end, "lost" after an error in its place."""
    error: str = ""


@dataclass(slots=True)
class Talk:
    """Session of a caller."""

    caller: int
    session_id: str = ""
    upstream_id: str = ""
    said: list[Said] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    """Numbers of the events, as they came."""
    ends: list[str] = field(default_factory=list)
    """Reasons of the end events."""
    answered_end: str = ""
    """The reason in the answer to the caller's own request to end it; empty when there was none."""
    record_end: str = ""
    """End reason from `GetSession` afterwards; empty when the call failed."""
    resumed: int = 0
    missed: int = 0
    """Events that the gateway said it keeps no more."""
    error: str = ""
    events_error: str = ""
    """Error that ended the stream of events in place of the end event."""
    pauses: int = 0
    """Pauses that the caller asked for, whether or not it was answered."""
    hung: str = ""
    """Response for which the caller waited in vain."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Commands that LiveAvatar received in one session."""

    packets: tuple[tuple[float, bytes], ...] = field(default=(), repr=False)
    """Arrival of each, seconds, and its PCM; in order."""
    interrupts: tuple[float, ...] = ()
    """Arrivals of interrupts, on the same clock."""
    attached_s: tuple[float, ...] = ()
    """Attachments of sockets, on the same clock."""
    commands: tuple[tuple[float, str], ...] = field(default=(), repr=False)
    """Arrival of each command on the same clock, and its type; packets included."""
    sockets: tuple[str, ...] = ()
    """From when to when each was attached, and why it was closed."""
