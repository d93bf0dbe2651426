"""A session as the registry keeps it: what another process needs to go on with it, or to say how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

import structlog
from pydantic import TypeAdapter

from liveavatar_gateway.audio.formats import AudioFormat
from liveavatar_gateway.core.errors import CapacityExhausted, GatewayError, InternalError
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.messages import BYTE_RATE
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.snapshot import SessionSnapshot, UtteranceSnapshot
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import EndReason, Outcome
from liveavatar_gateway.registry.base import Payload, StoredSession
from liveavatar_gateway.sessions.audio_input import audio_input_of
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.upstream.model import Started

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a session has used."""

    utterance_count: int = 0
    received_bytes: int = 0
    dropped_bytes: int = 0
    upstream_bytes: int = 0
    played_s: float = 0.0
    interruption_count: int = 0
    reconnect_count: int = 0
    rotation_count: int = 0
    turn_count: int = 1
    """Avatars that were asked for, the one that speaks among them."""
    retired_s: float = 0.0
    """What the others were billed for."""

    @classmethod
    def of(cls, core: Session, *, turn_count: int, retired_s: float) -> "Usage":
        """What a living session has used by now; see the fields for what it does not know itself."""
        speech = core.speech
        return cls(
            utterance_count=speech.totals.utterance_count,
            received_bytes=speech.totals.received_bytes,
            dropped_bytes=speech.totals.dropped_bytes,
            upstream_bytes=speech.totals.upstream_bytes,
            played_s=speech.totals.played_s,
            interruption_count=speech.totals.interruption_count,
            reconnect_count=core.reconnect_count,
            rotation_count=core.rotation_count,
            turn_count=turn_count,
            retired_s=retired_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A session without its speech and its secrets."""

    spec: SessionSpec
    request_id: str = ""
    created_at: datetime
    started_at: datetime | None = None
    """Since when LiveAvatar bills."""
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    expires_in_s: float | None = None
    """Time from the save of this record to the session's limit; None without a limit, or without one yet."""
    detach_left_s: float | None = None
    """Time from the save of this record to the end of the detach grace; None while a stream is attached."""
    end_reason: EndReason | None = None
    error: tuple[str, str, Mapping[str, str]] | None = None
    """Reason, message and facts of what ended it, when that was an error."""
    upstream_reason: str = ""
    upstream_session_id: str = ""
    """LiveAvatar's id of the session that speaks for it, or spoke last."""
    usage: Usage = field(default_factory=Usage)

    def facts(self) -> Payload:
        """The same for the registry."""
        facts: Payload = _RECORD.dump_python(self, mode="json")
        return facts

    @classmethod
    def of(cls, facts: Payload) -> "Record":
        """Read what `facts` gave, here or in another version of the gateway.

        Raises:
            ValueError: it is none.
        """
        return _RECORD.validate_python(facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceRecord:
    """An utterance as LiveAvatar has it, or as it ended."""

    upstream_id: str = ""
    format: str = ""
    """Name of the caller's audio format."""
    taken_bytes: int = 0
    """How much of it was given to the operating system to send, bytes of the caller's format."""
    sent_s: float = 0.0
    """The same in seconds of audio."""
    started: bool = False
    end_sent: bool = False
    interrupted: bool = False
    """Whether somebody has cut it, and it is not known that LiveAvatar did."""
    outcome: Outcome | None = None
    """None while it goes on."""
    played_s: float = 0.0
    inferred: bool = False
    error: tuple[str, str, Mapping[str, str]] | None = None
    """Reason, message and facts of what made it fail."""

    def facts(self) -> Payload:
        """The same for the registry, by hand: this is done for each packet."""
        return {
            "upstream_id": self.upstream_id,
            "format": self.format,
            "taken_bytes": self.taken_bytes,
            "sent_s": self.sent_s,
            "started": self.started,
            "end_sent": self.end_sent,
            "interrupted": self.interrupted,
            "outcome": self.outcome.value if self.outcome else None,
            "played_s": self.played_s,
            "inferred": self.inferred,
            "error": self.error,
        }


def read_record(row: StoredSession) -> Record:
    """Read the record of a session.

    Raises:
        ValueError: it cannot be read, or says what cannot be.
    """
    if row.unreadable:
        raise ValueError(row.unreadable)
    _require_sane(row.payload, "facts")
    record = Record.of(row.payload)
    _require_counts({one.name: getattr(record.usage, one.name) for one in fields(record.usage)})
    for name in ("created_at", "started_at", "ready_at", "ended_at"):
        at = getattr(record, name)
        if at is not None and at.tzinfo is None:
            raise ValueError(f"{name} has no time zone")
        if at is not None and not _FIRST_YEAR <= at.year <= _LAST_YEAR:
            raise ValueError(f"{name} cannot be in the year {at.year}")
    return record


def _require_counts(counts: Mapping[str, object]) -> None:
    for name, value in counts.items():
        if isinstance(value, int | float) and value < 0:
            raise ValueError(f"{name} cannot be {value}")


def _require_sane(value: object, name: str, depth: int = 0) -> None:
    """Refuse numbers that no session comes to: they would overflow where they are used or shown.

    Raises:
        ValueError: there is one, and where.
    """
    if depth > _MOST_NESTED:
        raise ValueError(f"{name} is nested too deep")
    match value:
        case bool():
            pass
        case int() | float():
            most = _MOST_BYTES if name.endswith("_bytes") else _MOST
            if not -most <= value <= most:
                raise ValueError(f"{name} cannot be {value}")
        case Mapping():
            for key, one in value.items():
                _require_sane(one, f"{name}.{key}"[:_MOST_NAME], depth + 1)
        case list() | tuple():
            for one in value:
                _require_sane(one, name, depth + 1)
        case _:
            pass


def requested_end(reason: str) -> EndReason:
    """Why somebody else wants a session to end. Another version of the gateway may have reasons of its own."""
    try:
        return EndReason(reason)
    except ValueError:
        return EndReason.OPERATOR


def utterance_record(utterance: Utterance) -> UtteranceRecord:
    """How far an utterance is; what has to be sent again counts as not sent."""
    again_bytes = sum(len(packet.pcm) for packet in utterance.delivery.again)
    return UtteranceRecord(
        upstream_id=utterance.upstream_id,
        format=utterance.intake.format,
        taken_bytes=utterance.taken,
        sent_s=utterance.sent_s - again_bytes / BYTE_RATE,
        started=utterance.started,
        end_sent=utterance.end_sent,
        interrupted=utterance.interrupted,
        outcome=utterance.outcome,
        played_s=utterance.played_s,
    )


def ended_record(ended: UtteranceEnded) -> UtteranceRecord:
    """How an utterance ended."""
    return UtteranceRecord(
        outcome=ended.outcome,
        played_s=ended.played_s,
        inferred=ended.inferred,
        error=kept_error(ended.error),
    )


def how_it_ended(utterance_id: str, record: UtteranceRecord) -> UtteranceEnded | None:
    """The end of an utterance, as it was told or would have been; None when it goes on."""
    if record.outcome is None:
        return None
    error = None if record.error is None else restored_error(*record.error)
    return UtteranceEnded(utterance_id, record.outcome, record.played_s, error, record.inferred)


def kept_error(error: GatewayError | None) -> tuple[str, str, Mapping[str, str]] | None:
    """An error for the registry; `restored_error` reads it."""
    return None if error is None else (error.reason, error.message, dict(error.metadata))


def restored_error(reason: str, message: str, facts: Mapping[str, str]) -> GatewayError:
    """An error as another process raised it: the same class, words and facts."""
    kinds = [GatewayError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    known = next((kind for kind in reversed(kinds) if kind.reason == reason), InternalError)
    # Not through the class's own constructor, which makes message and facts from what is no longer there.
    error = known.__new__(known)
    GatewayError.__init__(error, message, facts=facts)
    if isinstance(error, CapacityExhausted):
        error.scope = facts.get("scope", "")
    return error


def read_utterances(kept: Sequence[tuple[str, Payload]]) -> Mapping[str, UtteranceRecord]:
    """Read utterances by their ids, in the order they were begun; one that cannot be read is left out."""
    found: dict[str, UtteranceRecord] = {}
    for utterance_id, facts in kept:
        try:
            _require_sane(facts, "utterance")
            record = _UTTERANCE.validate_python(facts)
            _require_counts(facts)
        except ValueError as error:
            _log.warning("utterance.unreadable", error=str(error))
            continue
        found[utterance_id] = record
    return found


def past_of(row: StoredSession, record: Record, *, max_chunk_bytes: int, now_mono_s: float) -> SessionSnapshot:
    """What the state machine needs to go on with a session.

    An utterance of which nothing went out, or nothing that is not to be sent again, is not known any more: its
    caller begins it anew. Unless it was cut: then it has ended.
    """
    going_on: list[UtteranceSnapshot] = []
    ended: list[UtteranceEnded] = []
    for utterance_id, kept in read_utterances(row.utterances).items():
        if (end := how_it_ended(utterance_id, kept)) is not None:
            ended.append(end)
        elif kept.interrupted and not kept.taken_bytes:
            ended.append(UtteranceEnded(utterance_id, Outcome.INTERRUPTED, 0.0))
        elif kept.taken_bytes:
            try:
                going_on.append(_past_utterance(utterance_id, kept, max_chunk_bytes))
            except ValueError as error:
                _log.warning("utterance.unreadable", session=row.session_id, error=str(error))
    usage = record.usage
    return SessionSnapshot(
        id=row.session_id,
        created_at=record.created_at,
        ready_at=record.ready_at,
        last_sequence=row.sequence,
        expires_in_s=left_s(row, record.expires_in_s, now_mono_s),
        utterances=going_on,
        ended_utterances=ended,
        utterance_count=usage.utterance_count,
        received_bytes=usage.received_bytes,
        dropped_bytes=usage.dropped_bytes,
        upstream_bytes=usage.upstream_bytes,
        played_s=usage.played_s,
        interruption_count=usage.interruption_count,
        reconnect_count=usage.reconnect_count,
        rotation_count=usage.rotation_count,
    )


def left_s(row: StoredSession, saved_s: float | None, now_mono_s: float) -> float | None:
    """Return what is left now of a duration in the record of a session; None when nobody can tell."""
    if saved_s is None or row.saved_mono_s is None:
        return None
    return row.saved_mono_s + saved_s - now_mono_s


def _past_utterance(utterance_id: str, kept: UtteranceRecord, max_chunk_bytes: int) -> UtteranceSnapshot:
    return UtteranceSnapshot(
        id=utterance_id,
        upstream_id=kept.upstream_id,
        intake=audio_input_of(AudioFormat.named(kept.format), max_chunk_bytes=max_chunk_bytes),
        taken_bytes=kept.taken_bytes,
        sent_s=kept.sent_s,
        started=kept.started,
        end_sent=kept.end_sent,
        interrupted=kept.interrupted,
    )


def access_facts(started: Started) -> Payload:
    """Addresses and tokens of a session at LiveAvatar; to be sealed."""
    facts: Payload = _STARTED.dump_python(started, mode="json")
    return facts


def read_access(facts: Payload) -> Started | None:
    """Read what `access_facts` gave; None when it cannot be read."""
    try:
        started: Started = _STARTED.validate_python(facts)
    except ValueError:
        return None
    return started


_MOST: Final = 1e11
"""Above any count, rate or time in seconds, and below what a `Duration` of the contract holds."""
_MOST_BYTES: Final = 1e15
_FIRST_YEAR: Final = 2000
_LAST_YEAR: Final = 9000
"""Dates near the borders of the calendar overflow where they are turned into UTC, or counted on from."""
_MOST_NESTED: Final = 16
_MOST_NAME: Final = 200

_RECORD: Final[TypeAdapter[Record]] = TypeAdapter(Record)
_UTTERANCE: Final[TypeAdapter[UtteranceRecord]] = TypeAdapter(UtteranceRecord)
_STARTED: Final[TypeAdapter[Any]] = TypeAdapter(Started)
