"""Frames and bodies of LiveAvatar's, true ones and what becomes of them."""

import json
import random
from typing import Any, Final

from fuzz.values import changed_json, json_value, mutated

SPEECH: Final = "{speech}"
"""Text that the upstream replaces by the id of the last `agent.speak`."""
INTERRUPT: Final = "{interrupt}"
"""Text that the upstream replaces by the id of the last `agent.interrupt`."""

_TASK: Final = {"id": "t-1"}
EVENTS: Final = (
    {"type": "session.state_updated", "event_id": "s-1", "state": "connected"},
    {"type": "session.state_updated", "event_id": "s-1", "state": "connecting"},
    {"type": "agent.audio_buffer_appended", "event_id": "s-2", "source_event_id": SPEECH, "task": _TASK},
    {"type": "agent.audio_buffer_committed", "event_id": "s-6", "source_event_id": SPEECH},
    {"type": "agent.audio_buffer_cleared", "event_id": "s-20", "source_event_id": INTERRUPT},
    {
        "type": "agent.state_updated",
        "event_id": "s-3",
        "source_event_id": None,
        "previous_state": "idle",
        "new_state": "talking",
    },
    {"type": "agent.state_updated", "event_id": "s-8", "previous_state": "talking", "new_state": "idle"},
    {"type": "agent.state_updated", "event_id": "s-8", "previous_state": "idle", "new_state": "listening"},
    {"type": "agent.speak_started", "event_id": "s-4", "source_event_id": SPEECH, "task": _TASK},
    {"type": "agent.speak_ended", "event_id": "s-7", "source_event_id": SPEECH, "task": _TASK},
    {"type": "agent.speak_interrupted", "event_id": "s-21", "source_event_id": SPEECH, "task": _TASK},
    {"type": "agent.idle_started", "event_id": "s-9", "task": _TASK},
    {"type": "agent.idle_ended", "event_id": "s-9", "task": _TASK},
    {"type": "error", "error": {"type": "video_starvation", "message": "too slow", "event_id": SPEECH}},
    {"type": "error", "error": {"type": "server_error", "message": "failed", "event_id": None}},
    {"type": "warning", "warning": {"type": "late", "message": "audio is late"}},
    {"type": "agent.unknown_event", "event_id": "s-10"},
)
_LAST_EVENTS: Final = (
    {"type": "session.stopped", "event_id": "s-30", "end_reason": "MAX_DURATION_REACHED"},
    {"type": "session.stopped", "stop_reason": "ZOMBIE_SESSION_REAP"},
    {"type": "session.state_updated", "event_id": "s-1", "state": "disconnected"},
    {"type": "session.state_updated", "event_id": "s-1", "state": "closing"},
)
TEXT: Final = 1
BINARY: Final = 2
CONTINUATION: Final = 0
_PING: Final = 9
_PONG: Final = 10


def frames(rng: random.Random) -> list[dict[str, Any]]:
    """Return the frames of one event: one, several fragments, or none that WebSockets allow."""
    data = _text(rng)
    chance = rng.random()
    if chance < 0.9:
        return [frame(TEXT, data)]
    if chance < 0.94:
        return [frame(BINARY, data)]
    if chance < 0.98:
        at = rng.randrange(len(data) + 1)
        between = [frame(rng.choice((_PING, _PONG)), b"p" + str(rng.choice((0, 1, 7, 10**30))).encode())]
        return [
            frame(TEXT, data[:at], fin=False),
            *(between if rng.random() < 0.5 else []),
            frame(CONTINUATION, data[at:]),
        ]
    if chance < 0.992:
        return [frame(_PONG, rng.choice((b"", b"p", b"p0", b"p1", b"p-1", b"p" + b"9" * 100, b"p\xc2\xb2")))]
    return [_forbidden(rng, data)]


def frame(opcode: int, data: bytes, *, fin: bool = True, rsv: int = 0) -> dict[str, Any]:
    """Return a frame as a step of a case."""
    return {"opcode": opcode, "fin": fin, "rsv": rsv, "data": data}


def body(rng: random.Random, true: Any) -> bytes:
    """Return the JSON of a REST answer, more or less as it should be."""
    chance = rng.random()
    if chance < 0.25:
        return _dumped(true)
    if chance < 0.8:
        for _ in range(rng.choice((1, 1, 2, 3))):
            true = changed_json(rng, true)
        return _dumped(true)
    if chance < 0.92:
        return mutated(rng, _dumped(true))
    return rng.choice(
        (b"", b"null", b"[]", b"<html>no</html>", b"\xff\xfe", b'{"code":1,"code":2}', b"[" * 5000, b"{" * 100)
    )


def _text(rng: random.Random) -> bytes:
    event: Any = rng.choice(_LAST_EVENTS if rng.random() < 0.004 else EVENTS)
    chance = rng.random()
    if chance < 0.35:
        return _dumped(event)
    if chance < 0.9:
        for _ in range(rng.choice((1, 1, 2, 4))):
            event = changed_json(rng, event)
        return _dumped(event)
    if chance < 0.97:
        return mutated(rng, _dumped(event)).decode(errors="replace").encode()
    if chance < 0.98:
        return rng.choice((b"[", b'{"payload":')) * rng.choice((10, 500, 2000, 20_000))
    if chance < 0.985:
        return b'{"type":"error","error":"' + b"x" * rng.choice((1000, 60_000)) + b'"}'
    return _dumped(json_value(rng))


def _forbidden(rng: random.Random, data: bytes) -> dict[str, Any]:
    """Return a frame that ends the connection."""
    match rng.randrange(5):
        case 0:
            return frame(TEXT, b'{"type":"\xff\xfe"}')
        case 1:
            return frame(TEXT, data, rsv=rng.randrange(1, 8))
        case 2:
            return frame(rng.choice((3, 7, 11, 15)), data)
        case 3:
            return frame(CONTINUATION, data)
        case _:
            return frame(8, rng.choice((b"", b"\x03", b"\x03\xe8", b"\x03\xf3bye", b"\x00\x01", b"\xff\xff\xff")))


def _dumped(value: Any) -> bytes:
    # Lone surrogates stay escapes, and infinities become words that JSON does not have.
    return json.dumps(value).encode()
