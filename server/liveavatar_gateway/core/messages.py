"""Commands and events of LiveAvatar's command socket; `upstream/wire.py` encodes and decodes them.

Source of all names: docs.liveavatar.com/docs/lite-mode/events and the official LiveKit plugin.
"""

from dataclasses import dataclass

from liveavatar_gateway.core.events import Forwarded
from liveavatar_gateway.core.states import Pose

BYTE_RATE = 48_000
"""Bytes per second of the audio that LiveAvatar accepts: PCM s16le, 24 000 Hz, mono."""


@dataclass(frozen=True, slots=True)
class Speak:
    """Append a packet to the utterance `event_id`, which is opened when the id is new."""

    event_id: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class SpeakEnd:
    """Seal the utterance `event_id`; LiveAvatar renders its tail, and the avatar goes idle after it was played."""

    event_id: str


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Drop all queued audio upstream. `event_id` names the interrupt itself, to match its acknowledgement."""

    event_id: str


@dataclass(frozen=True, slots=True)
class ListenStart:
    """Change from the idle to the listening pose."""

    event_id: str


@dataclass(frozen=True, slots=True)
class ListenStop:
    """Change from the listening to the idle pose."""

    event_id: str


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Reset LiveAvatar's five-minute idle timer."""

    event_id: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Repeat the ping that follows each command, without a command of LiveAvatar before it."""


Frame = Speak | SpeakEnd | Interrupt | ListenStart | ListenStop | KeepAlive
Command = Frame | Probe


@dataclass(frozen=True, slots=True)
class Refs:
    """References of an event, best first: `source_event_id`, then the `event_id` that older builds echo."""

    ids: tuple[str, ...] = ()
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class StateUpdated:
    """LiveAvatar's session changed its state: new, connecting, connected, closing, closed, disconnected."""

    state: str


@dataclass(frozen=True, slots=True)
class Appended:
    """Acceptance of an `agent.speak`."""

    refs: Refs


@dataclass(frozen=True, slots=True)
class PongReceived:
    """Pong that proves the `number`-th packet, end or interrupt, counted from 1, and all before it, were read.

    The pong answers a ping that was sent right after that command. The pong proves that LiveAvatar's end of the
    socket read the command, not that the avatar accepted it.
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
    """The first frame of an utterance was rendered."""

    refs: Refs


@dataclass(frozen=True, slots=True)
class SpeakEnded:
    """An utterance was played to its end."""

    refs: Refs


@dataclass(frozen=True, slots=True)
class SpeakInterrupted:
    """An utterance was interrupted."""

    refs: Refs


@dataclass(frozen=True, slots=True)
class PoseUpdated:
    """The avatar took another pose."""

    pose: Pose


@dataclass(frozen=True, slots=True)
class Stopped:
    """LiveAvatar ended the session, with its own end reason."""

    end_reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Event that this version does not know: ignored and counted."""

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
    | Unknown
    | Forwarded
)
