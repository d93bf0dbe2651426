"""What a process left of a session: enough for another to make it live again, or to tell how it ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.events import Ended, EventLog
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.states import SessionState
from liveavatar_gateway.registry.base import Fence, HandleHash, StoredSession, Upstream
from liveavatar_gateway.sessions.record import Record, past_of, read_access, read_record, restored_error
from liveavatar_gateway.upstream.model import Started


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredSession:
    """A session that another process drove."""

    core: Session
    fence: Fence | None = None
    """The right to go on with it; None when it has ended."""
    started: Started | None
    """How it is reached at LiveAvatar, or was."""
    started_at: datetime | None
    turn_count: int = 1
    retired_s: float = 0.0
    handles: Sequence[HandleHash] = ()
    grace_s: float = 0.0
    """How long it waits for somebody to come back."""


Clock = Callable[[], datetime]


def view(
    row: StoredSession, config: SessionConfig, *, new_id: Callable[[], str], utc_now: Clock
) -> tuple[Record, RestoredSession]:
    """Return a session to be looked at: as its final record tells, or as its owner has it about now.

    Raises:
        ValueError: it cannot be read.
    """
    record = read_record(row)
    core = Session(row.session_id, config, new_id=new_id, utc_now=utc_now)
    core.state = _state(row, record)
    core.created_at, core.ready_at, core.ended_at = record.created_at, record.ready_at, record.ended_at
    core.end_reason, core.upstream_reason = record.end_reason, record.upstream_reason
    core.error = None if record.error is None else restored_error(*record.error)
    core.log = EventLog(capacity=config.event_log_size, last_sequence=row.sequence)
    if row.ended and row.sequence:
        # Its last event: whoever comes back to it here is owed that.
        core.log = EventLog(capacity=config.event_log_size, last_sequence=row.sequence - 1)
        core.log.append(Ended(core.error), record.ended_at or utc_now())
    core.speech.restore(past_of(row, record, max_chunk_bytes=0, now_mono_s=0.0), 0.0)
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


def current_upstream(row: StoredSession, record: Record) -> Upstream | None:
    """Which of a session's upstream sessions to go on with; None when none of them can be reached.

    There are two while a fresh one takes over: the one that spoke last goes before a newer one.
    """
    reachable = [one for one in row.upstreams if one.access is not None]
    spoke = [one for one in reachable if one.upstream_session_id == record.upstream_session_id]
    return next(iter(spoke or reachable[::-1]), None)


def _state(row: StoredSession, record: Record) -> SessionState:
    if row.ended:
        return SessionState.ENDED
    if record.end_reason is not None:
        return SessionState.ENDING
    return SessionState.READY if record.ready_at is not None else SessionState.CONNECTING


def restore(
    row: StoredSession,
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
    """Return what is needed to go on with a claimed session; None when LiveAvatar cannot be reached for it.

    Raises:
        ValueError: what is kept of it cannot be read.
    """
    upstream = current_upstream(row, record)
    started = None if upstream is None or upstream.access is None else read_access(upstream.access)
    if started is None:
        return None
    core = Session.restored(
        past_of(row, record, max_chunk_bytes=max_chunk_bytes, now_mono_s=now_mono_s),
        config,
        new_id=new_id,
        utc_now=utc_now,
        now_s=now_mono_s,
        gap_s=0.0 if row.seen_mono_s is None else max(0.0, now_mono_s - row.seen_mono_s),
        auto_rotate=record.spec.auto_rotate,
    )
    return RestoredSession(
        core=core,
        fence=fence,
        started=started,
        started_at=record.started_at,
        turn_count=record.usage.turn_count,
        retired_s=record.usage.retired_s,
        handles=row.handles,
        grace_s=grace_s,
    )
