"""What callers sent and were told, as plain values: what the invariants are checked against."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Said:
    """One utterance of one caller."""

    utterance_id: str
    pcm: bytes = field(repr=False)
    outcome: str = ""
    """How it ended, in the client's words; empty while it has not, "lost" when the caller got an error instead."""
    error: str = ""


@dataclass(slots=True)
class Talk:
    """One session of one caller."""

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
    """What `GetSession` says afterwards; empty when it could not be asked."""
    resumed: int = 0
    missed: int = 0
    """Events that the gateway said it keeps no more."""
    error: str = ""
    events_error: str = ""
    """What the stream of events broke off with, in place of the end."""
    hung: str = ""
    """What the caller waited for in vain."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What LiveAvatar got in one session."""

    packets: tuple[tuple[float, bytes], ...] = field(default=(), repr=False)
    """When each came, seconds, and its PCM; in order."""
    interrupts: tuple[float, ...] = ()
    """When interrupts came, on the same clock."""
    attached_s: tuple[float, ...] = ()
    """When each socket was attached, on the same clock."""
    commands: tuple[tuple[float, str], ...] = field(default=(), repr=False)
    """When each command came, on the same clock, and its type; packets too."""
    sockets: tuple[str, ...] = ()
    """From when to when each was attached, and why it was closed."""
