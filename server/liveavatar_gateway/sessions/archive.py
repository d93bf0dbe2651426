"""Sessions that ended under another process, as their final records tell."""

from liveavatar_gateway.core.session import Session, SessionConfig
from liveavatar_gateway.core.states import EndReason, SessionState
from liveavatar_gateway.registry.base import Row
from liveavatar_gateway.sessions.books import Books
from liveavatar_gateway.sessions.live import LiveSession
from liveavatar_gateway.sessions.record import Record
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.model import Started
from liveavatar_gateway.upstream.pool import Pool


def archived(row: Row, config: SessionConfig, pool: Pool, books: Books, metrics: Metrics) -> LiveSession:
    """Return the ended session of a row, to be read.

    Raises:
        ValueError: its record cannot be read.
    """
    record = Record.of(row.facts)
    session = LiveSession(
        record.spec, config, pool, books, metrics, request_id=record.request_id, session_id=row.session_id
    )
    _restore(session.core, record, row.sequence)
    session.started_at = record.started_at
    if record.upstream_session_id:
        session.started = Started(
            session_id=record.upstream_session_id, ws_url="", room_url="", viewer_token="", max_duration_s=None
        )
    session.finished.set()
    return session


def _restore(core: Session, record: Record, sequence: int) -> None:
    core.state = SessionState.ENDED
    core.created_at, core.ready_at, core.ended_at = record.created_at, record.ready_at, record.ended_at
    core.end_reason, core.upstream_reason = record.end_reason or EndReason.CALLER_LOST, record.upstream_reason
    core.log.last_sequence = sequence
    usage, speech = record.usage, core.speech
    speech.utterance_count, speech.played_s = usage.utterance_count, usage.played_s
    speech.received_bytes, speech.dropped_bytes = usage.received_bytes, usage.dropped_bytes
