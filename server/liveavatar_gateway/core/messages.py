"""Commands and events of LiveAvatar's command socket; `upstream/wire.py` encodes and decodes them.

Source of all names: docs.liveavatar.com/docs/lite-mode/events and the official LiveKit plugin.
"""

from dataclasses import dataclass

from liveavatar_gateway.core.states import Pose

BYTE_RATE = 48_000
"""Bytes per second of what LiveAvatar takes: PCM s16le, 24 000 Hz, mono."""


@dataclass(frozen=True, slots=True)
class Speak:
    """Append one packet to the utterance `event_id`, opening it when it is new."""

    event_id: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class SpeakEnd:
    """Seal the utterance `event_id`; its tail is rendered and the avatar goes idle when it is played."""

    event_id: str


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Drop all queued audio upstream. `event_id` is the interrupt's own, to match its acknowledgement."""

    event_id: str


@dataclass(frozen=True, slots=True)
class ListenStart:
    """Idle to listening pose."""

    event_id: str


@dataclass(frozen=True, slots=True)
class ListenStop:
    """Listening to idle pose."""

    event_id: str


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Reset LiveAvatar's five-minute idle timer."""

    event_id: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask again whether all up to here was read: no command of LiveAvatar's, but the ping behind each of them."""


Frame = Speak | SpeakEnd | Interrupt | ListenStart | ListenStop | KeepAlive
Command = Frame | Probe


@dataclass(frozen=True, slots=True)
class Refs:
    """References of an event, best first: `source_event_id`, then `event_id` as older builds echoed it."""

    ids: tuple[str, ...] = ()
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class StateUpdated:
    """LiveAvatar's session machine moved: new, connecting, connected, closing, closed, disconnected."""

    state: str


@dataclass(frozen=True, slots=True)
class Appended:
    """Acceptance of an `agent.speak`."""

    refs: Refs


@dataclass(frozen=True, slots=True)
class PongReceived:
    """LiveAvatar's end of the socket has read all up to the `number`-th packet, end or interrupt, counted from 1.

    No event of LiveAvatar's, but the pong to a ping that went out right behind those. It proves that they arrived,
    not that the avatar took them.
    """

    number: int


@dataclass(frozen=True, slots=True)
class Committed:
    """`agent.speak_end` was accepted; the avatar may still talk."""

    refs: Refs


@dataclass(frozen=True, slots=True)
class Cleared:
    """`agent.interrupt` was carried out."""

    refs: Refs


@dataclass(frozen=True, slots=True)
class SpeakStarted:
    """The first frame of an utterance is out."""

    refs: Refs


@dataclass(frozen=True, slots=True)
class SpeakEnded:
    """An utterance was played to its end."""

    refs: Refs


@dataclass(frozen=True, slots=True)
class SpeakInterrupted:
    """An utterance was cut."""

    refs: Refs


@dataclass(frozen=True, slots=True)
class PoseUpdated:
    """The avatar took another pose."""

    pose: Pose


@dataclass(frozen=True, slots=True)
class Stopped:
    """LiveAvatar ended the session, with its own word for why."""

    end_reason: str


@dataclass(frozen=True, slots=True)
class Notice:
    """An error or a warning that does not end the session."""

    error: bool
    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event this version does not know: ignored and counted."""

    type: str


Event = (
    StateUpdated
    | Appended
    | PongReceived
    | Committed
    | Cleared
    | SpeakStarted
    | SpeakEnded
    | SpeakInterrupted
    | PoseUpdated
    | Stopped
    | Notice
    | Unknown
)
