"""Record of a session in the registry, from which another process continues it or reports its end."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter

from liveavatar_gateway.core.errors import GatewayError, InternalError
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.snapshot import PauseSnapshot
from liveavatar_gateway.core.states import EndReason, PauseState, TimeoutAction
from liveavatar_gateway.registry.base import Payload, StoredSession
from liveavatar_gateway.sessions.plausibility import require_counts, require_plausible, require_time
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.upstream.model import Started

StoredError = tuple[str, str, Mapping[str, str]]
"""Reason, message and metadata of an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Usage of a session."""

    utterance_count: int = 0
    received_bytes: int = 0
    dropped_bytes: int = 0
    upstream_bytes: int = 0
    played_s: float = 0.0
    interruption_count: int = 0
    reconnect_count: int = 0
    rotation_count: int = 0
    avatar_count: int = 1
    """Number of avatars started, the present avatar included."""
    retired_s: float = 0.0
    """Billed time of the avatars before the present avatar."""
    repeated_s: float = 0.0
    """Speech that was heard a second time after pauses."""

    @classmethod
    def of(cls, core: Session, *, avatar_count: int, retired_s: float) -> "Usage":
        """Return the usage of a living session; see the fields for the arguments."""
        totals = core.speech.totals
        return cls(
            utterance_count=totals.utterance_count,
            received_bytes=totals.received_bytes,
            dropped_bytes=totals.dropped_bytes,
            upstream_bytes=totals.upstream_bytes,
            played_s=totals.played_s,
            interruption_count=totals.interruption_count,
            reconnect_count=core.reconnect_count,
            rotation_count=core.rotation_count,
            avatar_count=avatar_count,
            retired_s=retired_s,
            repeated_s=totals.repeated_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPause:
    """Pause of a session's speech."""

    state: PauseState
    utterance_id: str = ""
    """Utterance that is paused; empty without one."""
    repeated_s: float = 0.0
    """Length of the step back, seconds."""
    left_s: float | None = None
    """Time from the save of the record to the timeout; None without a timeout."""
    at_timeout: TimeoutAction = TimeoutAction.CONTINUE

    @classmethod
    def of(cls, pause: PauseSnapshot | None) -> "StoredPause | None":
        """Return a pause for the registry; None without one."""
        if pause is None:
            return None
        return cls(
            state=pause.state,
            utterance_id=pause.utterance_id,
            repeated_s=pause.repeated_s,
            left_s=pause.left_s,
            at_timeout=pause.at_timeout,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A session without its speech and its secrets."""

    spec: SessionSpec
    request_id: str = ""
    created_at: datetime
    started_at: datetime | None = None
    """Begin of LiveAvatar's billing."""
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    expires_in_s: float | None = None
    """Time from the save of this record to the session's limit; None without a limit, or without one yet."""
    detach_left_s: float | None = None
    """Time from the save of this record to the end of the detach grace; None while a stream is attached."""
    end_reason: EndReason | None = None
    error: StoredError | None = None
    """Error that ended the session; None without an error."""
    upstream_reason: str = ""
    upstream_session_id: str = ""
    """LiveAvatar's id of the avatar that speaks, or spoke last."""
    usage: Usage = field(default_factory=Usage)
    removed_viewers: Mapping[str, datetime] = field(default_factory=dict)
    """Identities that are kept out of the room, and until when."""
    pause: StoredPause | None = None
    """Pause of the speech; None while speech is not paused."""

    def payload(self) -> Payload:
        """Return the record for the registry."""
        stored = replace(self, spec=self.spec.without_secrets)
        payload: Payload = _RECORD.dump_python(stored, mode="json")
        return payload

    @classmethod
    def of(cls, payload: Payload) -> "Record":
        """Return the record that this or another version of the gateway saved.

        Raises:
            ValueError: the payload is not a record.
        """
        return _RECORD.validate_python(payload)


def read_record(stored: StoredSession) -> Record:
    """Return the record of a session.

    Raises:
        ValueError: the record cannot be read, or holds impossible values.
    """
    if stored.unreadable:
        raise ValueError(stored.unreadable)
    require_plausible(stored.payload, "record")
    record = Record.of(stored.payload)
    require_counts({column.name: getattr(record.usage, column.name) for column in fields(record.usage)})
    for name in ("created_at", "started_at", "ready_at", "ended_at"):
        require_time(getattr(record, name), name)
    for until in record.removed_viewers.values():
        require_time(until, "removed_viewers")
    return record


def left_s(stored: StoredSession, saved_s: float | None, now_mono_s: float) -> float | None:
    """Return the rest of a duration in the record of a session; None if it is unknown."""
    if saved_s is None or stored.saved_mono_s is None:
        return None
    return stored.saved_mono_s + saved_s - now_mono_s


def requested_end(reason: str) -> EndReason:
    """Return the reason of a request to end a session; another version of the gateway may have other reasons."""
    try:
        return EndReason(reason)
    except ValueError:
        return EndReason.OPERATOR


def store_error(error: GatewayError | None) -> StoredError | None:
    """Return an error for the registry, as `restore_error` reads it."""
    return None if error is None else (error.reason, error.message, dict(error.metadata))


def restore_error(stored: StoredError | None) -> GatewayError | None:
    """Return an error as another process raised it: with the same class, message and metadata."""
    if stored is None:
        return None
    reason, message, metadata = stored
    kinds = [GatewayError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    known = next((kind for kind in reversed(kinds) if kind.reason == reason), InternalError)
    # The class's own constructor would build message and metadata from values that are not stored.
    error = known.__new__(known)
    GatewayError.__init__(error, message, values=metadata)
    return error


def access_payload(started: Started) -> Payload:
    """Return addresses and tokens of a LiveAvatar session; to be sealed."""
    payload: Payload = _STARTED.dump_python(started, mode="json")
    return payload


def read_access(payload: Payload) -> Started | None:
    """Return what `access_payload` saved; None when it cannot be read."""
    try:
        started: Started = _STARTED.validate_python(payload)
    except ValueError:
        return None
    return started


_RECORD: Final[TypeAdapter[Record]] = TypeAdapter(Record)
_STARTED: Final[TypeAdapter[Any]] = TypeAdapter(Started)
