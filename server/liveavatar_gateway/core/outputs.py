"""Outputs of a session's state machine, which the driver carries out in order."""

from collections.abc import Sequence
from dataclasses import dataclass

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


Report = Emit | Answer
Output = Report | PrepareStandby | HandOver | CheckSocket | Send | Deadline
