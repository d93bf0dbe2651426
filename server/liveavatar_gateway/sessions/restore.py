"""Restoration of a session from the registry: for display, to report its end, or to continue it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from liveavatar_gateway.audio.formats import AudioFormat
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.events import Ended, EventLog, UtteranceEnded
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.snapshot import PauseSnapshot, SessionSnapshot, UtteranceSnapshot
from liveavatar_gateway.core.states import Outcome, Pose, SessionState
from liveavatar_gateway.registry.base import Fence, HandleHash, StoredSession, Upstream
from liveavatar_gateway.sessions.audio_input import audio_input_of
from liveavatar_gateway.sessions.record import Record, left_s, read_access, read_record, restore_error
from liveavatar_gateway.sessions.utterance_record import UtteranceRecord, read_utterances
from liveavatar_gateway.sessions.view import SessionView
from liveavatar_gateway.upstream.model import Started

_log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredSession:
    """State of a session that another process drove."""

    core: Session
    fence: Fence | None = None
    """Right to continue the session; None after its end."""
    started: Started | None
    """Access to its LiveAvatar session, also after the end."""
    account: str = ""
    """Account of its LiveAvatar session."""
    started_at: datetime | None
    avatar_count: int = 1
    retired_s: float = 0.0
    handles: Sequence[HandleHash] = ()
    removed_viewers: Mapping[str, datetime] = field(default_factory=dict)
    """Identities that are kept out of the room, and until when."""
    grace_s: float = 0.0
    """Time that its callers have to come back."""


def is_readable(stored: StoredSession) -> bool:
    """Return whether the record of a session can be read; logs the reason if it cannot."""
    if not stored.payload:
        # The content of an unreadable session is in quarantine.
        return False
    try:
        read_record(stored)
    except ValueError as error:
        _log.warning("session.unreadable", session=stored.session_id, error=str(error))
        return False
    return True


def view_of(stored: StoredSession, *, utc_now: Clock) -> SessionView:
    """Return a session for display, in the state that its owner saved last.

    Raises:
        ValueError: the record cannot be read.
    """
    record = read_record(stored)
    running = None if record.started_at is None else (record.ended_at or utc_now()) - record.started_at
    return SessionView(
        id=stored.session_id,
        tenant=stored.tenant,
        spec=record.spec,
        state=_state(stored, record),
        pose=Pose.UNKNOWN,
        attached=False,
        upstream_session_id=record.upstream_session_id,
        created_at=record.created_at,
        ready_at=record.ready_at,
        ended_at=record.ended_at,
        expires_at=None,
        max_duration_s=None,
        end_reason=record.end_reason,
        upstream_reason=record.upstream_reason,
        error=restore_error(record.error),
        billed_s=record.usage.retired_s + (0.0 if running is None else running.total_seconds()),
        usage=record.usage,
        last_sequence=stored.sequence,
        paused=record.pause is not None and not stored.ended,
    )


def _state(stored: StoredSession, record: Record) -> SessionState:
    if stored.ended:
        return SessionState.ENDED
    if record.end_reason is not None:
        return SessionState.ENDING
    return SessionState.READY if record.ready_at is not None else SessionState.CONNECTING


def restore_ended(
    stored: StoredSession, config: SessionConfig, *, new_id: Callable[[], str], utc_now: Clock
) -> tuple[Record, RestoredSession]:
    """Return a session that ended under another process, for callers that come back to it.

    Raises:
        ValueError: the record cannot be read.
    """
    record = read_record(stored)
    core = Session(stored.session_id, config, new_id=new_id, utc_now=utc_now)
    core.state = SessionState.ENDED
    core.created_at, core.ready_at, core.ended_at = record.created_at, record.ready_at, record.ended_at
    core.end_reason, core.upstream_reason = record.end_reason, record.upstream_reason
    core.error = restore_error(record.error)
    # The event log holds the last event, for callers that come back.
    core.log = EventLog(capacity=config.event_log_size, last_sequence=max(stored.sequence - 1, 0))
    if stored.sequence:
        core.log.append(Ended(core.error), record.ended_at or utc_now())
    core.speech.restore(snapshot_of(stored, record, max_chunk_bytes=0, now_mono_s=0.0), 0.0)
    core.reconnect_count = record.usage.reconnect_count
    core.rotation_count = record.usage.rotation_count
    upstream_id = record.upstream_session_id
    started = Started(session_id=upstream_id, ws_url="", room_url="", viewer_token="", max_duration_s=None)
    return record, RestoredSession(
        core=core,
        started=started if upstream_id else None,
        started_at=record.started_at,
        retired_s=record.usage.retired_s,
    )


def current_upstream(stored: StoredSession, record: Record) -> Upstream | None:
    """Return the LiveAvatar session with which a session continues; None when none can be reached.

    During a handover there are two: the avatar that spoke last goes before a newer avatar.
    """
    reachable = [upstream for upstream in stored.upstreams if upstream.access is not None]
    spoke = [upstream for upstream in reachable if upstream.upstream_session_id == record.upstream_session_id]
    return next(iter(spoke or reachable[::-1]), None)


def account_of(stored: StoredSession, upstream: Upstream) -> str:
    """Return the account of a LiveAvatar session; sessions of earlier versions have one account for all."""
    return upstream.account or stored.account


def restore(
    stored: StoredSession,
    record: Record,
    fence: Fence,
    config: SessionConfig,
    *,
    grace_s: float,
    max_chunk_bytes: int,
    new_id: Callable[[], str],
    utc_now: Clock,
    now_mono_s: float,
) -> RestoredSession | None:
    """Return the state from which a claimed session continues; None when LiveAvatar cannot be reached for it.

    Raises:
        ValueError: a stored value cannot be read.
    """
    upstream = current_upstream(stored, record)
    if upstream is None or upstream.access is None or (started := read_access(upstream.access)) is None:
        return None
    core = Session.restored(
        snapshot_of(
            stored,
            record,
            max_chunk_bytes=max_chunk_bytes,
            now_mono_s=now_mono_s,
            expires_at=None if record.started_at is None else started.expires_at(record.started_at),
        ),
        config,
        new_id=new_id,
        utc_now=utc_now,
        now_s=now_mono_s,
        gap_s=0.0 if stored.seen_mono_s is None else max(0.0, now_mono_s - stored.seen_mono_s),
        auto_rotate=record.spec.auto_rotate,
        abandonment=record.spec.abandonment,
        watches_room=record.spec.room_events is not None,
        has_socket=record.spec.connector is None,
    )
    return RestoredSession(
        core=core,
        fence=fence,
        started=started,
        account=account_of(stored, upstream),
        started_at=record.started_at,
        avatar_count=record.usage.avatar_count,
        retired_s=record.usage.retired_s,
        handles=stored.handles,
        removed_viewers=record.removed_viewers,
        grace_s=grace_s,
    )


def snapshot_of(
    stored: StoredSession,
    record: Record,
    *,
    max_chunk_bytes: int,
    now_mono_s: float,
    expires_at: datetime | None = None,
) -> SessionSnapshot:
    """Return the snapshot from which the state machine continues a session.

    An utterance of which no byte counts as sent is left out, and its caller begins it anew; after an interrupt it
    counts as ended.
    """
    unfinished: list[UtteranceSnapshot] = []
    ended: list[UtteranceEnded] = []
    for utterance_id, utterance in read_utterances(stored.utterances).items():
        if (end := utterance.end(utterance_id)) is not None:
            ended.append(end)
        elif utterance.interrupted and not utterance.taken_bytes:
            ended.append(UtteranceEnded(utterance_id, Outcome.INTERRUPTED, 0.0))
        elif utterance.taken_bytes or (utterance.waits and utterance.started):
            try:
                unfinished.append(_utterance_snapshot(utterance_id, utterance, max_chunk_bytes))
            except ValueError as error:
                _log.warning("utterance.unreadable", session=stored.session_id, error=str(error))
    usage = record.usage
    return SessionSnapshot(
        id=stored.session_id,
        created_at=record.created_at,
        ready_at=record.ready_at,
        last_sequence=stored.sequence,
        expires_in_s=left_s(stored, record.expires_in_s, now_mono_s),
        expires_at=expires_at,
        utterances=unfinished,
        ended_utterances=ended,
        utterance_count=usage.utterance_count,
        received_bytes=usage.received_bytes,
        dropped_bytes=usage.dropped_bytes,
        upstream_bytes=usage.upstream_bytes,
        played_s=usage.played_s,
        interruption_count=usage.interruption_count,
        reconnect_count=usage.reconnect_count,
        rotation_count=usage.rotation_count,
        repeated_s=usage.repeated_s,
        pause=_pause_snapshot(stored, record, now_mono_s),
    )


def _pause_snapshot(stored: StoredSession, record: Record, now_mono_s: float) -> PauseSnapshot | None:
    pause = record.pause
    if pause is None:
        return None
    return PauseSnapshot(
        state=pause.state,
        utterance_id=pause.utterance_id,
        repeated_s=pause.repeated_s,
        left_s=left_s(stored, pause.left_s, now_mono_s),
        at_timeout=pause.at_timeout,
    )


def _utterance_snapshot(utterance_id: str, utterance: UtteranceRecord, max_chunk_bytes: int) -> UtteranceSnapshot:
    return UtteranceSnapshot(
        id=utterance_id,
        upstream_id=utterance.upstream_id,
        audio_input=audio_input_of(AudioFormat.named(utterance.format), max_chunk_bytes=max_chunk_bytes),
        taken_bytes=utterance.taken_bytes,
        sent_s=utterance.sent_s,
        started=utterance.started,
        end_sent=utterance.end_sent,
        interrupted=utterance.interrupted,
        waits=utterance.waits,
        played_s=utterance.played_s,
        repeated_s=utterance.repeated_s,
    )
