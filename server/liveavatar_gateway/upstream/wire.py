"""Text frames of LiveAvatar's command socket: encodes typed commands, decodes typed events. Pure.

Source of all field names: docs.liveavatar.com/docs/lite-mode/events, and the official LiveKit plugin where that
page lags behind the server. Server builds differ: old builds echo our `event_id`, new builds create their own and
put ours into `source_event_id`; some nest the fields under `payload`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
import pybase64

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.events import UpstreamNotice
from liveavatar_gateway.core.states import Pose
from liveavatar_gateway.escaping import escaped
from liveavatar_gateway.upstream.bounds import (
    MAX_ID_CHARS,
    MAX_KIND_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_REASON_BYTES,
    bounded,
)

MAX_PACKET_BYTES: Final = 700_000
"""Largest PCM payload of one packet: base64 adds a third, and LiveAvatar's limit is 1 MB per message."""

_POSES: Final[Mapping[str, Pose]] = {
    "idle": Pose.IDLE,
    "listening": Pose.LISTENING,
    "talking": Pose.TALKING,
}

_COMMAND_TYPES: Final[Mapping[type[m.Frame], bytes]] = {
    m.SpeakEnd: b"agent.speak_end",
    m.Interrupt: b"agent.interrupt",
    m.ListenStart: b"agent.start_listening",
    m.ListenStop: b"agent.stop_listening",
    m.KeepAlive: b"session.keep_alive",
}


class PacketTooLarge(ValueError):
    """Bug in the gateway: LiveAvatar silently drops packets above its limit."""


def encode(command: m.Frame) -> bytes:
    """Return the text frame of a command, UTF-8.

    Audio frames are concatenated, because json.dumps of 64 kB costs twenty times as much as their base64.
    """
    event_id = command.event_id.encode()
    if isinstance(command, m.Speak):
        if len(command.pcm) > MAX_PACKET_BYTES:
            raise PacketTooLarge(f"{len(command.pcm)} bytes of PCM in one packet, at most {MAX_PACKET_BYTES}")
        audio = pybase64.b64encode(command.pcm)
        return b'{"type":"agent.speak","event_id":"%b","audio":"%b"}' % (event_id, audio)
    return b'{"type":"%b","event_id":"%b"}' % (_COMMAND_TYPES[type(command)], event_id)


def decode(frame: str | bytes) -> m.Event:
    """Return the event of a text frame; `Unknown` for an unreadable frame.

    Never raises: an unknown event must not end a paid session, as one did with the official plugin.
    """
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return m.Unknown("not JSON")
    if not isinstance(message, dict):
        return m.Unknown("not an object")
    kind = message.get("type")
    if not isinstance(kind, str):
        return m.Unknown("no type")
    reader = _READERS.get(kind)
    payload = message.get("payload")
    fields = {**message, **payload} if isinstance(payload, dict) else message
    return reader(fields) if reader else m.Unknown(bounded(kind, MAX_KIND_BYTES))


def _text(fields: Mapping[str, Any], *names: str) -> str:
    """Return the first of the named fields that is a non-empty string; empty if none is."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _refs(fields: Mapping[str, Any]) -> m.Refs:
    ids = tuple(value[:MAX_ID_CHARS] for name in ("source_event_id", "event_id") if (value := _text(fields, name)))
    task = fields.get("task")
    return m.Refs(ids, _text(task, "id")[:MAX_ID_CHARS] if isinstance(task, dict) else "")


def _read_pose(fields: Mapping[str, Any]) -> m.Event:
    name = _text(fields, "new_state", "state")
    pose = _POSES.get(name)
    return m.PoseUpdated(pose) if pose else m.Unknown(bounded(f"agent.state_updated {name}", MAX_KIND_BYTES))


def _read_notice(fields: Mapping[str, Any], name: str) -> UpstreamNotice:
    inner = fields.get(name)
    body = inner if isinstance(inner, dict) else fields
    text = inner if isinstance(inner, str) else _text(body, "message")
    kind = _text(body, "type")
    return UpstreamNotice(
        error=name == "error",
        type=bounded(kind, MAX_KIND_BYTES) if kind != name else "",
        message=bounded(escaped(text), MAX_MESSAGE_BYTES),
    )


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], m.Event]]] = {
    "session.state_updated": lambda fields: m.StateUpdated(bounded(_text(fields, "state"), MAX_KIND_BYTES)),
    "session.stopped": lambda fields: m.Stopped(
        bounded(_text(fields, "end_reason", "stop_reason"), MAX_REASON_BYTES)
    ),
    "agent.audio_buffer_appended": lambda fields: m.Appended(_refs(fields)),
    "agent.audio_buffer_committed": lambda fields: m.Committed(_refs(fields)),
    "agent.audio_buffer_cleared": lambda fields: m.Cleared(_refs(fields)),
    "agent.state_updated": _read_pose,
    "agent.speak_started": lambda fields: m.SpeakStarted(_refs(fields)),
    "agent.speak_ended": lambda fields: m.SpeakEnded(_refs(fields)),
    "agent.speak_interrupted": lambda fields: m.SpeakInterrupted(_refs(fields)),
    # Sent by older builds; idle also appears between sentences when the buffer runs dry.
    "agent.idle_started": lambda _: m.PoseUpdated(Pose.IDLE),
    "agent.idle_ended": lambda _: m.PoseUpdated(Pose.TALKING),
    "error": lambda fields: _read_notice(fields, "error"),
    "warning": lambda fields: _read_notice(fields, "warning"),
}
