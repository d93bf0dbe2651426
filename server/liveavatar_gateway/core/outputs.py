"""Outputs of a session's state machine, which the driver carries out in order."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from liveavatar_gateway.core.events import LogEntry, UtteranceEnded
from liveavatar_gateway.core.messages import Command


@dataclass(frozen=True, slots=True)
class Emit:
    """Publish an event to the session's callers."""

    entry: LogEntry


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a caller's interrupt: LiveAvatar carried it out, or did not confirm it in time."""

    interrupt_id: int
    """Return value of `Session.interrupt`."""
    ended: Sequence[UtteranceEnded]


@dataclass(frozen=True, slots=True)
class PauseAnswer:
    """Answer to a caller's pause: the avatar is silent, or LiveAvatar did not confirm it in time."""

    call_id: int
    """Return value of `Session.pause`."""
    utterance_id: str = ""
    """Utterance that is paused; empty when none was being spoken."""
    played_s: float = 0.0
    """Seconds of the utterance that were heard."""
    paused: bool = False
    """True while speech is paused."""
    heard_text: str = field(default="", repr=False)
    """Text of the utterance that was heard; empty without timings."""


@dataclass(frozen=True, slots=True)
class ContinueAnswer:
    """Answer to a caller's request to continue."""

    call_id: int
    """Return value of `Session.continue_speech`."""
    utterance_id: str = ""
    """Utterance that continues; empty when none was paused."""
    repeated_s: float = 0.0
    """Length of the step back, seconds."""
    was_paused: bool = False
    """True when speech was paused before."""


@dataclass(frozen=True, slots=True)
class PrepareStandby:
    """Start a standby avatar, and keep trying until it is ready."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """Let the standby avatar take over now, with `Session.take_over`."""


@dataclass(frozen=True, slots=True)
class CheckSocket:
    """Read all data that has arrived and call `tick` again; if this output follows again, the socket is dead."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a command, then drain again."""

    command: Command
    number: int
    """Number of the ping after the command: that of the latest packet, end or interrupt."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """Wait until an input arrives or until a time, then call `tick`."""

    at_s: float | None
    """Monotonic seconds; None to wait for an input alone."""


SpeechAnswer = Answer | PauseAnswer | ContinueAnswer
Report = Emit | SpeechAnswer
Output = Report | PrepareStandby | HandOver | CheckSocket | Send | Deadline
