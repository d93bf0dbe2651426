"""Messages of the command socket: text frames to typed commands, and events to text frames.

Source: LiveAvatar API reference, command WebSocket: commands, events, and what official clients rely on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson
import pybase64

from liveavatar_emulator.config import Profile


@dataclass(frozen=True, slots=True)
class Speak:
    """`agent.speak`: audio for the open utterance, or the first of a new one."""

    event_id: str | None
    pcm: bytes


@dataclass(frozen=True, slots=True)
class SpeakEnd:
    """`agent.speak_end`: seals the utterance. The newer specification allows a last chunk of audio."""

    event_id: str | None
    pcm: bytes | None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """`agent.interrupt`: drops queued audio and returns to idle."""

    event_id: str | None


@dataclass(frozen=True, slots=True)
class StartListening:
    """`agent.start_listening`: idle to listening."""

    event_id: str | None


@dataclass(frozen=True, slots=True)
class StopListening:
    """`agent.stop_listening`: listening to idle."""

    event_id: str | None


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """`session.keep_alive`: resets the idle timer."""

    event_id: str | None


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """`start`: an undocumented frame of one official client, ignored."""

    event_id: str | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """An object whose `type` is not a command."""

    event_id: str | None
    type: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """A frame that cannot be a command; `type` is empty if the frame had none."""

    event_id: str | None
    type: str
    problem: str


Command = (
    Speak | SpeakEnd | Interrupt | StartListening | StopListening | KeepAlive | StreamFormat | Unknown | Invalid
)

_PLAIN: dict[str, Callable[[str | None], Command]] = {
    "agent.interrupt": Interrupt,
    "agent.start_listening": StartListening,
    "agent.stop_listening": StopListening,
    "session.keep_alive": KeepAlive,
    "start": StreamFormat,
}

TYPE_OF: dict[type, str] = {
    Speak: "agent.speak",
    SpeakEnd: "agent.speak_end",
    Interrupt: "agent.interrupt",
    StartListening: "agent.start_listening",
    StopListening: "agent.stop_listening",
    KeepAlive: "session.keep_alive",
    StreamFormat: "start",
}


def type_of(command: Command) -> str:
    """Return the `type` of the command's frame."""
    if isinstance(command, Unknown | Invalid):
        return command.type
    return TYPE_OF[type(command)]


def parse(frame: str | bytes) -> Command:
    """Parse one text frame. Never raises: other frames become `Invalid` or `Unknown`."""
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return Invalid(None, "", "message is not valid JSON")
    if not isinstance(message, dict):
        return Invalid(None, "", "message is not a JSON object")
    event_id = message.get("event_id")
    if event_id is not None and not isinstance(event_id, str):
        event_id = str(event_id)
    kind = message.get("type")
    if kind in ("agent.speak", "agent.speak_end"):
        return _speech(kind, event_id, message.get("audio"))
    if not isinstance(kind, str):
        return Invalid(event_id, "", "type is missing")
    plain = _PLAIN.get(kind)
    return plain(event_id) if plain is not None else Unknown(event_id, kind)


def _speech(kind: str, event_id: str | None, audio: object) -> Command:
    if kind == "agent.speak_end" and audio is None:
        return SpeakEnd(event_id, None)
    if not isinstance(audio, str):
        return Invalid(event_id, kind, "audio is missing")
    try:
        pcm = pybase64.b64decode(audio, validate=True)
    except ValueError:
        return Invalid(event_id, kind, "invalid base64 audio data")
    if not pcm:
        return Invalid(event_id, kind, "audio is empty")
    return Speak(event_id, pcm) if kind == "agent.speak" else SpeakEnd(event_id, pcm)


class Pose(StrEnum):
    """Visible pose of the avatar."""

    IDLE = "idle"
    LISTENING = "listening"
    TALKING = "talking"


class Events:
    """Writer of events in one profile's dialect; an event that the profile does not have is None.

    modern and acks_only assign a new id to every event and put the client's id into `source_event_id`; classic
    echoes the client's id as `event_id`. `fresh_id` returns the new ids.
    """

    def __init__(self, profile: Profile, fresh_id: Callable[[], str]) -> None:
        self.profile = profile
        self._fresh_id = fresh_id

    def attached(self) -> bytes:
        """Write the first state of a session that is not ready."""
        return self._state("connecting" if self.profile == "classic" else "new")

    def connected(self) -> bytes:
        """Write that the session accepts commands."""
        return self._state("connected")

    def session_ended(self, end_reason: str, *, announce: bool) -> list[bytes]:
        """Write that the session is ending; `announce` adds `session.stopped`."""
        if self.profile == "classic":
            return [self._state("closing"), self._state("closed")]
        stopped = [self._write("session.stopped", end_reason=end_reason)] if announce else []
        return [*stopped, self._state("disconnected")]

    def appended(self, source_id: str | None, task_id: str) -> bytes | None:
        """Write the ack of one `agent.speak`."""
        return self._ack("agent.audio_buffer_appended", source_id, task={"id": task_id})

    def committed(self, source_id: str | None) -> bytes | None:
        """Write the ack of `agent.speak_end`."""
        return self._ack("agent.audio_buffer_committed", source_id)

    def cleared(self, source_id: str | None) -> bytes | None:
        """Write the ack of `agent.interrupt`."""
        return self._ack("agent.audio_buffer_cleared", source_id)

    def pose(self, previous: Pose, new: Pose) -> bytes | None:
        """Write a change of the avatar's pose."""
        if self.profile == "classic":
            return None
        return self._write(
            "agent.state_updated", source_event_id=None, previous_state=previous.value, new_state=new.value
        )

    def speak_started(self, source_id: str | None, task_id: str) -> bytes | None:
        """Write that the first frame of an utterance was played."""
        return self._speech("agent.speak_started", source_id, task_id)

    def speak_ended(self, source_id: str | None, task_id: str) -> bytes | None:
        """Write that an utterance was played to its end."""
        return self._speech("agent.speak_ended", source_id, task_id)

    def speak_interrupted(self, source_id: str | None, task_id: str) -> bytes | None:
        """Write that an utterance was cut."""
        return self._speech("agent.speak_interrupted", source_id, task_id)

    def idle(self, task_id: str, *, started: bool) -> bytes:
        """Write the idle events of older builds."""
        return self._write("agent.idle_started" if started else "agent.idle_ended", task={"id": task_id})

    def error(self, kind: str, message: str, source_id: str | None) -> bytes:
        """Write the refusal of a command; the socket stays open."""
        return self._write("error", error={"type": kind, "message": message, "event_id": source_id})

    def warning(self, kind: str, message: str) -> bytes:
        """Write a warning about a harmless anomaly."""
        return self._write("warning", warning={"type": kind, "message": message})

    def _state(self, state: str) -> bytes:
        return self._write("session.state_updated", state=state)

    def _ack(self, kind: str, source_id: str | None, **fields: Any) -> bytes | None:
        if self.profile == "classic":
            return None
        return self._write(kind, source_event_id=source_id, **fields)

    def _speech(self, kind: str, source_id: str | None, task_id: str) -> bytes | None:
        if self.profile == "acks_only":
            return None
        if self.profile == "classic":
            event_id = source_id if source_id is not None else self._fresh_id()
            return orjson.dumps({"type": kind, "event_id": event_id, "task": {"id": task_id}})
        return self._write(kind, source_event_id=source_id, task={"id": task_id})

    def _write(self, kind: str, **fields: Any) -> bytes:
        return orjson.dumps({"type": kind, "event_id": self._fresh_id(), **fields})
