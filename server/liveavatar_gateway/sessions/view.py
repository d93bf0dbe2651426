"""State of a session for display."""

from dataclasses import dataclass
from datetime import datetime

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.states import EndReason, Pose, SessionState
from liveavatar_gateway.sessions.record import Usage
from liveavatar_gateway.sessions.spec import SessionSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """State of one session at one moment, read-only."""

    id: str
    tenant: str
    """Tenant of the session; empty for a session of anonymous callers."""
    spec: SessionSpec
    state: SessionState
    pose: Pose
    attached: bool
    """True while an `Attach` stream is open."""
    upstream_session_id: str
    """LiveAvatar's id of the avatar that speaks, or spoke last; empty before the first."""
    created_at: datetime
    ready_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None
    """End of the session by LiveAvatar's limit; None without one."""
    max_duration_s: float | None
    """Limit of the avatar from its start; None without one."""
    end_reason: EndReason | None
    upstream_reason: str
    """LiveAvatar's reason for the end; empty if it gave none."""
    error: GatewayError | None
    billed_s: float
    usage: Usage
    """Usage up to now, the audible part of the utterance that plays included."""
    last_sequence: int
    """Number of the last event."""
    paused: bool = False
    """True while speech is paused."""
