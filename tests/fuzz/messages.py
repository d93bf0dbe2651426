"""Requests of the contract, built field by field from their descriptors."""

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf import duration_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from fuzz.values import FLOATS, INTEGERS, NANOS, SECONDS, STRINGS, mutated
from liveavatar.gateway.v1 import session_service_pb2 as sessions

SESSION: Final = "5e551011-0000-4000-8000-000000000000"
"""Text that stands for the session of a case; as long as a real id, so it can be replaced in any bytes."""
HANDLE: Final = f"{SESSION}.{'h' * 32}"
"""Text that stands for a handle of that session."""
AVATAR: Final = "a7a7a700-0000-4000-8000-000000000000"
"""Text that stands for the avatar of a case, by which the upstream finds what it has to say."""
MAX_GRACE_S: Final = 1.0
"""Longest grace that a valid request has: the sessions of a run are over soon after it."""

_T: Final = FieldDescriptor
_RANGES: Final[Mapping[int, tuple[int, int]]] = {
    _T.TYPE_INT32: (-(2**31), 2**31 - 1),
    _T.TYPE_UINT32: (0, 2**32 - 1),
    _T.TYPE_INT64: (-(2**63), 2**63 - 1),
    _T.TYPE_UINT64: (0, 2**64 - 1),
}
_TAME: Final[Mapping[str, Callable[[random.Random], Any]]] = {
    "session_id": lambda rng: SESSION,
    "handle": lambda rng: HANDLE,
    "avatar_id": lambda rng: AVATAR,
    "request_id": lambda rng: f"r{rng.randrange(10**9)}",
    "utterance_id": lambda rng: rng.choice(("", "", f"u{rng.randrange(20)}")),
    "id": lambda rng: f"c{rng.randrange(1000)}",
    "audio": lambda rng: bytes(rng.choice((0, 1, 2, 3, 320, 960, 961))),
    "offset_bytes": lambda rng: rng.choice((0, 0, 1, 320, 960)),
    "page_size": lambda rng: rng.choice((0, 1, 2, 100)),
    "page_token": lambda rng: "",
    "after_sequence": lambda rng: rng.choice((0, 0, 1, 2)),
    "first_day": lambda rng: rng.choice(("", "2026-11-30")),
    "last_day": lambda rng: rng.choice(("", "2026-11-30")),
    "tenant": lambda rng: "",
    "sample_rate_hz": lambda rng: rng.choice((0, 8000, 16_000, 24_000, 44_100, 48_000)),
    "channel_count": lambda rng: rng.choice((0, 1, 2)),
    "name": lambda rng: rng.choice(("room-1", "room-2")),
    "avatar_identity": lambda rng: "",
    "secret_id": lambda rng: "7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22",
    "context_id": lambda rng: "",
    "temperature": lambda rng: rng.choice((0.0, 0.7, 1.0)),
    "service": lambda rng: "",
    "key": lambda rng: rng.choice(("team", "env")),
    "value": lambda rng: rng.choice(("a", "b")),
    "bytes": lambda rng: rng.choice((960, 9_600, 96_000)),
    "credit_bytes": lambda rng: rng.choice((0, 1, 960, 96_000)),
    "url": lambda rng: "",
    "avatar_token": lambda rng: "",
    "listener_token": lambda rng: "",
    "viewer_token": lambda rng: "",
    "identity": lambda rng: rng.choice(("ann", "bob")),
    "auto_rotate": lambda rng: False,
    "sandbox": lambda rng: False,
}
_DURATIONS_S: Final = {
    "detach_grace": (0.0, MAX_GRACE_S),
    "idle_timeout": (0.3, 2.0),
    "max_duration": (60.0, 600.0),
    "lifetime": (60.0, 600.0),
    "timeout": (0.1, 0.6),
    "hold": (5.0, 6.0),
}
_RARE: Final = frozenset(
    {
        "offset_bytes",
        "livekit_room",
        "agora_room",
        "viewers",
        "viewer_absence_timeout",
        "max_duration",
        "connector",
    }
)
_LASTING: Final = frozenset({"detach_grace", "hold"})
"""Durations for which something outlives its caller."""
_ALWAYS: Final = frozenset({"hold"})
"""Fields whose default would make something outlive the run."""
_MAX_DEPTH: Final = 6


def build(rng: random.Random, kind: type[Message], *, wild: float = 0.0) -> Any:
    """Return a message; `wild` is the chance of each field to be set without regard to the contract."""
    message = kind()
    _fill(rng, message, wild, 0)
    return message


def one_of(rng: random.Random, kind: type[Message], field: str, *, wild: float = 0.0) -> Any:
    """Return a message whose oneof has a certain kind."""
    message = kind()
    descriptor = kind.DESCRIPTOR.fields_by_name[field]
    _set(rng, message, descriptor, wild, 0)
    if descriptor.message_type is not None:
        getattr(message, field).SetInParent()
    return message


def serialized(rng: random.Random, message: Message, *, mutation: float) -> bytes:
    """Return the bytes of a message, changed by a chance of `mutation`; none that makes a session last long."""
    data: bytes = message.SerializeToString()
    if rng.random() < mutation:
        changed = mutated(rng, data)
        if not _lasts_long(changed, type(message)):
            return changed
    return data


def _fill(rng: random.Random, message: Message, wild: float, depth: int) -> None:
    descriptor: Descriptor = message.DESCRIPTOR
    if descriptor.full_name == duration_pb2.Duration.DESCRIPTOR.full_name:
        _fill_duration(rng, message, wild, "")
        return
    chosen = {}
    for oneof in descriptor.oneofs:
        real = [field for field in oneof.fields if depth < _MAX_DEPTH or field.message_type is None]
        # A oneof without a choice is a refusal of its own.
        unset = 0.9 if oneof.name in _RARE else 0.02 + wild / 4
        chosen[oneof.name] = None if not real or rng.random() < unset else rng.choice(real)
    for field in descriptor.fields:
        if field.containing_oneof is not None:
            if chosen[field.containing_oneof.name] is field:
                _set(rng, message, field, wild, depth)
                if field.message_type is not None:
                    getattr(message, field.name).SetInParent()
        elif field.name in _ALWAYS or rng.random() < (0.15 if field.name in _RARE else 0.8):
            _set(rng, message, field, wild, depth)


def _set(rng: random.Random, message: Any, field: FieldDescriptor, wild: float, depth: int) -> None:
    is_wild = rng.random() < wild
    name = field.name
    if field.is_repeated:
        count = rng.choice((0, 1, 17, 300)) if is_wild else rng.choice((0, 0, 1, 2))
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
            for _ in range(count):
                if value.message_type is not None:
                    _fill(rng, getattr(message, name)[_scalar(rng, key, is_wild=is_wild)], wild, depth + 1)
                    continue
                getattr(message, name)[_scalar(rng, key, is_wild=is_wild)] = _scalar(rng, value, is_wild=is_wild)
        elif entry is not None:
            for _ in range(min(count, 20)):
                _fill(rng, getattr(message, name).add(), wild, depth + 1)
        else:
            getattr(message, name).extend(_scalar(rng, field, is_wild=is_wild) for _ in range(count))
    elif field.message_type is not None:
        inner = getattr(message, name)
        if isinstance(inner, duration_pb2.Duration):
            _fill_duration(rng, inner, wild, name)
        elif depth < _MAX_DEPTH:
            inner.SetInParent()
            _fill(rng, inner, wild, depth + 1)
    else:
        setattr(message, name, _scalar(rng, field, is_wild=is_wild))


def _fill_duration(rng: random.Random, span: Any, wild: float, name: str) -> None:
    if rng.random() < wild:
        span.seconds = rng.choice(SECONDS)
        span.nanos = rng.choice(NANOS)
        if name in _LASTING and MAX_GRACE_S < span.seconds <= 600:
            span.seconds = 601
        return
    least_s, most_s = _DURATIONS_S.get(name, (0.0, 1.0))
    if name == "chunk_duration":
        span.FromMilliseconds(10 * rng.randint(1, 10))
        return
    span.FromMilliseconds(round(rng.uniform(least_s, most_s) * 1000))


def _scalar(rng: random.Random, field: FieldDescriptor, *, is_wild: bool) -> Any:
    if not is_wild and field.name in _TAME:
        return _TAME[field.name](rng)
    match field.type:
        case _T.TYPE_STRING:
            return rng.choice(STRINGS) if is_wild else "a"
        case _T.TYPE_BYTES:
            return rng.randbytes(rng.choice((0, 1, 3, 300, 5000)))
        case _T.TYPE_BOOL:
            return rng.random() < 0.5
        case _T.TYPE_DOUBLE | _T.TYPE_FLOAT:
            return rng.choice(FLOATS)
        case _T.TYPE_ENUM:
            known = [value.number for value in field.enum_type.values]
            return rng.choice((-1, 99, 2**31 - 1, *known)) if is_wild else rng.choice(known)
        case kind:
            least, most = _RANGES[kind]
            number = rng.choice(INTEGERS) if is_wild else rng.choice((0, 1, 2))
            return max(least, min(number, most))


def _lasts_long(data: bytes, kind: type[Message]) -> bool:
    """Return whether a request would leave something that outlives the run."""
    if kind not in (sessions.AttachRequest, sessions.CreateSessionRequest, sessions.PrepareSessionRequest):
        return False
    try:
        request: Any = kind.FromString(data)
    except DecodeError:
        return False
    if kind is sessions.PrepareSessionRequest:
        return not request.HasField("hold") or request.hold.seconds > 10
    spec = request.open.spec if kind is sessions.AttachRequest else request.spec
    return bool(spec.HasField("detach_grace") and spec.detach_grace.seconds > MAX_GRACE_S)


def class_of(descriptor: Descriptor) -> type[Message]:
    """Return the class of a message."""
    return message_factory.GetMessageClass(descriptor)
