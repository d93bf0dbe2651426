"""Parts of the process that all its sessions share."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.sessions.billing import Billing
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.publisher import SessionListener
from liveavatar_gateway.sessions.reconnector import ReconnectConfig
from liveavatar_gateway.sessions.warm_pool import WarmPool
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.pool import Pool


def new_id() -> str:
    """Return a unique id."""
    return str(uuid.uuid4())


def utc_now() -> datetime:
    """Return the time of the wall clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionServices:
    """Shared parts, made once by the directory."""

    config: SessionConfig
    """Deadlines of a session."""
    reconnect: ReconnectConfig
    """Retries after the loss of a command socket."""
    retention_s: float
    """Time that the final record of a session is kept."""
    pool: Pool
    """Source of sessions at LiveAvatar."""
    warm: WarmPool
    """Sessions at LiveAvatar that are ready before their caller comes."""
    journals: JournalWriter
    """State of sessions that outlives this process."""
    billing: Billing
    """Counter of minutes and usage."""
    usage_label: str
    """Key of the session label under whose value usage is counted; empty for none."""
    metrics: Metrics
    listener: SessionListener
    """Receiver of the news of all sessions."""
