"""The socket's language: text frames to typed commands, and what happened to text frames.

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
    """`agent.speak_end`: seals the utterance. The newer specification allows a last piece of audio."""

    event_id: str | None
    pcm: bytes | None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """`agent.interrupt`: drop what is queued and return to idle."""

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
    """An object whose `type` is no command."""

    event_id: str | None
    type: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """A frame that cannot be a command; `type` is empty when it had none."""

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
    """The `type` the command came with."""
    if isinstance(command, Unknown | Invalid):
        return command.type
    return TYPE_OF[type(command)]


def parse(frame: str | bytes) -> Command:
    """One text frame as a command. Never raises: what cannot be understood is `Invalid` or `Unknown`."""
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
    """What the avatar is seen doing."""

    IDLE = "idle"
    LISTENING = "listening"
    TALKING = "talking"


class Events:
    """Writes events in one profile's dialect; an event the profile does not have becomes None.

    modern and acks_only mint an id for every event and put the client's into `source_event_id`; classic
    echoes the client's id as `event_id`. `fresh_id` supplies the minted ones.
    """

    def __init__(self, profile: Profile, fresh_id: Callable[[], str]) -> None:
        self.profile = profile
        self._fresh_id = fresh_id

    def attached(self) -> bytes:
        """First state of a session that is not ready."""
        return self._state("connecting" if self.profile == "classic" else "new")

    def connected(self) -> bytes:
        """The session takes commands now."""
        return self._state("connected")

    def session_ended(self, end_reason: str, *, announce: bool) -> list[bytes]:
        """The session is ending; `announce` adds `session.stopped`."""
        if self.profile == "classic":
            return [self._state("closing"), self._state("closed")]
        stopped = [self._write("session.stopped", end_reason=end_reason)] if announce else []
        return [*stopped, self._state("disconnected")]

    def appended(self, source_id: str | None, task_id: str) -> bytes | None:
        """Ack of one `agent.speak`."""
        return self._ack("agent.audio_buffer_appended", source_id, task={"id": task_id})

    def committed(self, source_id: str | None) -> bytes | None:
        """Ack of `agent.speak_end`."""
        return self._ack("agent.audio_buffer_committed", source_id)

    def cleared(self, source_id: str | None) -> bytes | None:
        """Ack of `agent.interrupt`."""
        return self._ack("agent.audio_buffer_cleared", source_id)

    def pose(self, previous: Pose, new: Pose) -> bytes | None:
        """The avatar changed its pose."""
        if self.profile == "classic":
            return None
        return self._write(
            "agent.state_updated", source_event_id=None, previous_state=previous.value, new_state=new.value
        )

    def speak_started(self, source_id: str | None, task_id: str) -> bytes | None:
        """First frame of an utterance is out."""
        return self._speech("agent.speak_started", source_id, task_id)

    def speak_ended(self, source_id: str | None, task_id: str) -> bytes | None:
        """Playback of an utterance really finished."""
        return self._speech("agent.speak_ended", source_id, task_id)

    def speak_interrupted(self, source_id: str | None, task_id: str) -> bytes | None:
        """An utterance was cut."""
        return self._speech("agent.speak_interrupted", source_id, task_id)

    def idle(self, task_id: str, *, started: bool) -> bytes:
        """Older builds' idle events."""
        return self._write("agent.idle_started" if started else "agent.idle_ended", task={"id": task_id})

    def error(self, kind: str, message: str, source_id: str | None) -> bytes:
        """A command was refused; the socket stays open."""
        return self._write("error", error={"type": kind, "message": message, "event_id": source_id})

    def warning(self, kind: str, message: str) -> bytes:
        """Something harmless was odd."""
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
