"""Cases: inputs of one kind, as data that can be kept, replayed and made shorter."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from grpc_health.v1 import health_pb2

from fuzz.events import body, frames
from fuzz.messages import build, class_of, one_of, serialized
from liveavatar.gateway.v1 import admin_service_pb2, audio_service_pb2, session_service_pb2

_BYTES: Final = frozenset({"data", "message", "messages", "body", "chunks"})
"""Fields of steps that hold bytes."""

_ATTACH: Final = session_service_pb2.AttachRequest
_AUDIO: Final = audio_service_pb2.StreamAudioRequest
_LISTEN: Final = audio_service_pb2.ListenAudioRequest
_WATCH: Final = session_service_pb2.WatchSessionsRequest
STREAMS: Final = {
    "Attach": "/liveavatar.gateway.v1.SessionService/Attach",
    "StreamAudio": "/liveavatar.gateway.v1.AudioService/StreamAudio",
    "ListenAudio": "/liveavatar.gateway.v1.AudioService/ListenAudio",
    "WatchSessions": "/liveavatar.gateway.v1.SessionService/WatchSessions",
}
_SERVICES: Final = (
    session_service_pb2.DESCRIPTOR.services_by_name["SessionService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
)
UNARY: Final = {
    f"/{method.full_name.rpartition('.')[0]}/{method.name}": class_of(method.input_type)
    for service in _SERVICES
    for method in service.methods
    if not method.client_streaming and not method.server_streaming
}
"""Classes of the requests of all unary calls, by path."""
_HEALTH_WATCH: Final = "/grpc.health.v1.Health/Watch"
_RARE_CALLS: Final = frozenset(
    name for name in UNARY if name.endswith(("/Drain", "/CreateSession", "/EndSession", "/EjectSession"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Inputs that are given to a gateway one after the other."""

    kind: str
    steps: tuple[Mapping[str, Any], ...]
    name: str = ""
    """Place in a run, or the file."""
    polite: bool = True
    """True if the upstream confirms each command."""
    note: str = field(default="", compare=False)
    """Reason for which it is kept."""

    @property
    def size(self) -> int:
        """Number of inputs."""
        return sum(len(step["messages"]) if "messages" in step else 1 for step in self.steps)

    def with_steps(self, steps: tuple[Mapping[str, Any], ...]) -> Self:
        """Return the same case with other inputs."""
        return replace(self, steps=steps)

    def dumps(self) -> str:
        """Return JSON; bytes are hexadecimal."""
        steps = [{name: _hex(value) for name, value in step.items()} for step in self.steps]
        lines = ",\n  ".join(json.dumps(step) for step in steps)
        head = json.dumps({"note": self.note, "kind": self.kind, "polite": self.polite})[:-1]
        return f'{head}, "steps": [\n  {lines}\n]}}\n'

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `dumps` made."""
        values = json.loads(path.read_text(encoding="utf-8"))
        steps = tuple(
            {name: _unhex(value) if name in _BYTES else value for name, value in step.items()}
            for step in values["steps"]
        )
        return cls(kind=values["kind"], polite=values["polite"], note=values["note"], steps=steps, name=path.stem)


def _hex(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return [_hex(one) for one in value] if isinstance(value, list) else value


def _unhex(value: Any) -> Any:
    return [_unhex(one) for one in value] if isinstance(value, list) else bytes.fromhex(value)


def make(seed: int, kind: str, number: int) -> Case:
    """Return a case; the same for the same arguments."""
    rng = random.Random(f"{seed}/{kind}/{number}")
    steps = KINDS[kind](rng)
    return Case(kind=kind, steps=tuple(steps), name=f"{seed}/{kind}/{number}", polite=rng.random() < 0.7)


# --- streams

_WILD: Final = (0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.3, 0.8)


def _streams(rng: random.Random) -> list[Mapping[str, Any]]:
    makers = {"Attach": _attach, "StreamAudio": _audio, "ListenAudio": _listen, "WatchSessions": _watch}
    chosen = rng.choices(tuple(makers), (2, 5, 1, 3), k=rng.randint(4, 20))
    steps: list[Mapping[str, Any]] = [{"stream": STREAMS[name], "messages": makers[name](rng)} for name in chosen]
    # A method of one request, called with none or several, and one that answers until it is left.
    path = rng.choice((_HEALTH_WATCH, *(name for name in UNARY if name not in _RARE_CALLS)))
    kind = UNARY.get(path, health_pb2.HealthCheckRequest)
    messages = [serialized(rng, build(rng, kind), mutation=0.1) for _ in range(rng.choice((0, 1, 2, 5)))]
    return [*steps, {"stream": path, "messages": messages}]


def _attach(rng: random.Random) -> list[bytes]:
    first = rng.choices(("resume", "open", "command", "heartbeat"), (14, 4, 1, 1))[0]
    messages = [serialized(rng, one_of(rng, _ATTACH, first, wild=rng.choice(_WILD)), mutation=0.1)]
    for _ in range(rng.choice((1, 10, 60))):
        # Not often an end: it would leave nothing for the streams that follow.
        kind = rng.choices(("command", "heartbeat", "resume"), (90, 20, 1))[0]
        message = one_of(rng, _ATTACH, kind, wild=0.0 if rng.random() < 0.97 else 0.3)
        if message.command.HasField("end") and rng.random() < 0.97:
            message.command.interrupt.SetInParent()
        messages.append(serialized(rng, message, mutation=0.02))
    return messages


def _time(rng: random.Random, text: Any) -> None:
    """Give each text a start, and mostly an end."""
    count = len(text.texts)
    text.ClearField("first_item")
    text.start_ms[:] = sorted(rng.randrange(3000) for _ in range(count))
    text.end_ms[:] = [start + rng.randrange(300) for start in text.start_ms] if rng.random() < 0.7 else []


def _audio(rng: random.Random) -> list[bytes]:
    header = one_of(rng, _AUDIO, "header", wild=rng.choice(_WILD) / 4)
    messages = [serialized(rng, header, mutation=0.05)]
    kinds = ("begin", "chunk", "end", "cancel", "heartbeat", "timings", "header")
    weights = (20, 60, 20, 6, 10, 12, 0.3)
    is_open = False
    for _ in range(rng.choice((4, 30, 120))):
        kind = rng.choices(kinds, weights)[0]
        if rng.random() < 0.97:
            # What the grammar of the stream refuses would be the last message.
            kind = "begin" if kind in ("chunk", "end", "cancel", "timings") and not is_open else kind
            kind = "end" if kind == "begin" and is_open else kind
        is_open = kind == "begin" or (is_open and kind not in ("end", "cancel"))
        message = one_of(rng, _AUDIO, kind, wild=0.0 if rng.random() < 0.95 else 0.3)
        if kind in ("begin", "timings") and rng.random() < 0.7:
            _time(rng, getattr(message, kind).text)
        if kind in ("chunk", "end", "cancel", "timings") and rng.random() < 0.9:
            getattr(message, kind).ClearField("utterance_id")
        messages.append(serialized(rng, message, mutation=0.02))
    return messages


def _listen(rng: random.Random) -> list[bytes]:
    header = one_of(rng, _LISTEN, "header", wild=rng.choice(_WILD) / 4)
    messages = [serialized(rng, header, mutation=0.05)]
    for _ in range(rng.choice((1, 10, 60))):
        kind = rng.choices(("credit", "heartbeat", "header"), (80, 20, 1))[0]
        message = one_of(rng, _LISTEN, kind, wild=0.0 if rng.random() < 0.95 else 0.3)
        messages.append(serialized(rng, message, mutation=0.02))
    return messages


def _watch(rng: random.Random) -> list[bytes]:
    messages = []
    for _ in range(rng.choice((1, 10, 60))):
        kind = rng.choices(("add", "remove", "progress", "filter"), (40, 30, 30, 1))[0]
        message = one_of(rng, _WATCH, kind, wild=rng.choice(_WILD) / 8)
        messages.append(serialized(rng, message, mutation=0.02))
    return messages


# --- the others


def _unary(rng: random.Random) -> list[Mapping[str, Any]]:
    weights = [0.1 if name in _RARE_CALLS else 1 for name in UNARY]
    steps = []
    for path in rng.choices(tuple(UNARY), weights, k=120):
        message = build(rng, UNARY[path], wild=rng.choice(_WILD))
        steps.append({"method": path, "message": serialized(rng, message, mutation=0.35)})
    return steps


def _events(rng: random.Random) -> list[Mapping[str, Any]]:
    steps: list[Mapping[str, Any]] = []
    for _ in range(rng.choice((50, 600, 1500))):
        steps += frames(rng)
    return steps


_SESSION_ANSWERS: Final[Mapping[str, Any]] = {
    "token": {"session_id": "{id}", "session_token": "{token}"},
    "start": {
        "session_id": "{id}",
        "ws_url": "{ws}",
        "livekit_url": "wss://rooms.example.com",
        "livekit_client_token": "v",
        "livekit_agent_token": "a",
        "max_session_duration": 600,
    },
    "stop": None,
    "status": {"id": "{id}", "duration": 250, "end_at": None, "end_reason": "USER_CLOSED"},
}
_CLIENT_ANSWERS: Final[Mapping[str, Any]] = {
    **_SESSION_ANSWERS,
    "credits": {"credits_left": "999.00"},
    "active": {"count": 1, "next": None, "previous": None, "results": [{"id": "{id}", "mode": "LITE"}]},
    "avatars": {
        "count": 1,
        "next": None,
        "results": [
            {
                "id": "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11",
                "name": "Ann",
                "status": "ACTIVE",
                "type": "VIDEO",
                "is_expired": False,
                "preview_url": "https://example.com/a.png",
                "is_1080p": True,
            }
        ],
    },
}
_ADDRESSES: Final = (
    *(
        "",
        "ws://",
        "ws://[",
        "ws://127.0.0.1:99999/",
        "ws://127.0.0.1:1/",
        "ws://127.0.0.1/ x",
        "http://127.0.0.1:1/",
    ),
    *("ws://user:word@127.0.0.1:1/", "wss://127.0.0.1:1/" + "a" * 5000, "ws://127.0.0.1:0/", "\0", "ws:127.0.0.1"),
)
_STATUSES: Final = (
    *(400, 401, 402, 403, 404, 408, 409, 418, 422, 429, 499, 500, 502, 503, 504),
    *(202, 204, 226, 299, 300, 301, 302, 304, 307, 308, 599, 600, 999),
)
_HEADERS: Final = (
    *("Retry-After: 0", "Retry-After: 0.01", "Retry-After: -1", "Retry-After: nan", "Retry-After: 1e400"),
    *("Retry-After: 99999999", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", "Content-Type: text/html; charset=x"),
    *("Location: http://127.0.0.1:1/", "Content-Encoding: gzip", "Content-Encoding: br", "Set-Cookie: a=b"),
    *("X-Broken", "X: " + "y" * 9000, "Transfer-Encoding: chunked", "Content-Length: 5", "\xff: \xff"),
)


def _rest(rng: random.Random) -> list[Mapping[str, Any]]:
    is_direct = rng.random() < 0.6
    kinds = _CLIENT_ANSWERS if is_direct else _SESSION_ANSWERS
    steps: list[Mapping[str, Any]] = [{"through": "client" if is_direct else "gateway"}]
    for _ in range(20 if is_direct else 5):
        endpoint = rng.choice(tuple(kinds))
        steps.append(_answer(rng, endpoint, kinds[endpoint]))
    return steps


def _answer(rng: random.Random, endpoint: str, data: Any) -> dict[str, Any]:
    if endpoint == "start" and rng.random() < 0.3:
        data = {**data, "ws_url": rng.choice(_ADDRESSES)}
    envelope: Any = {"code": rng.choice((1000, 100, 4000, 4030, 4032, 4033)), "data": data, "message": "Success"}
    if rng.random() < 0.1:
        envelope = {"detail": [{"type": "missing", "loc": ["body", "avatar_id"], "msg": "Field required"}]}
    # A stop that is put off for a minute would keep the run waiting for its permit.
    header = rng.choice(_HEADERS if endpoint != "stop" else _HEADERS[:5])
    step = {
        "endpoint": endpoint,
        "status": rng.choice((200, 201)) if rng.random() < 0.6 else rng.choice(_STATUSES),
        "headers": [header] if rng.random() < 0.25 else [],
        "body": body(rng, envelope),
    }
    if rng.random() < 0.08:
        step["ending"] = rng.choice(("close", "short", "nothing"))
    return step


_HEADS: Final = (
    *(
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"RIFX\x00\x00\x00\x24WAVE",
        b"RF64\xff\xff\xff\xffWAVE",
        b"FORM\0\0\0\0AIFF",
    ),
    *(
        b"FORM\0\0\0\0AIFC",
        b"OggS\0\x02",
        b"OpusHead\x01",
        b"fLaC\0\0\0\x22",
        b".snd\0\0\0\x18",
        b"caff\0\x01\0\0",
    ),
    *(b"\x1aE\xdf\xa3", b"riff\x2e\x91\xcf\x11", b"0&\xb2u\x8ef\xcf\x11", b"ADIF", b"#!AMR\n", b"wvpk", b"MAC "),
    *(b"TTA1", b"FLV\x01", b"MThd", b"ID3\x04\0\0\0\0\0\0", b"ID3\x03", b"\0\0\0\x20ftypM4A ", b"\0\0\0\x08wide"),
    *(
        b"\xff\xfb\x90\x64",
        b"\xff\xf3\x40\xc4",
        b"\xff\xf1\x50\x80\x02\x1f\xfc",
        b"\xff\xf9",
        b"\xff",
        b"\xff" * 64,
    ),
    *(b"", b"\0", b"\0\0", b"\0" * 16, b"R", b"RIF", b"Og", b"\x1aE", b"I", b"ID", b"\0\0\0", b"\0\0\0\x20ft"),
)


def _files(rng: random.Random) -> list[Mapping[str, Any]]:
    return [{"chunks": _cut(rng, _head(rng))} for _ in range(40)]


def _head(rng: random.Random) -> bytes:
    head = rng.choice(_HEADS)
    if rng.random() < 0.5:
        changed = bytearray(head or b"\0")
        changed[rng.randrange(len(changed))] = rng.randrange(256)
        head = bytes(changed)
    tail = rng.choice((b"", head * 3, bytes(40), rng.randbytes(60)))
    if head[:1] == b"\xff" and rng.random() < 0.5:
        # Frames of one size one after the other, as files have them.
        size = rng.choice((96, 104, 144, 417, 418, 576))
        tail = bytes(max(0, size - len(head))) + head + bytes(size) + head
    return head + tail


def _cut(rng: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 1, 3))))
    return [data[start:end] for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True)]


KINDS: Final[Mapping[str, Callable[[random.Random], list[Mapping[str, Any]]]]] = {
    "streams": _streams,
    "unary": _unary,
    "events": _events,
    "rest": _rest,
    "files": _files,
}
SHARES: Final[Mapping[str, float]] = {"streams": 0.3, "unary": 0.1, "events": 0.53, "rest": 0.02, "files": 0.05}
"""Parts of the inputs of a run; events are cheap, and answers of REST dear."""
