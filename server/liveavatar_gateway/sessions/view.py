"""A session for display."""

import time
from dataclasses import dataclass, replace
from datetime import datetime

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.states import EndReason, Pose, SessionState
from liveavatar_gateway.sessions.avatars import Avatars
from liveavatar_gateway.sessions.record import Usage
from liveavatar_gateway.sessions.spec import SessionSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """State of one session at one moment, read-only."""

    id: str
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


def view_of(core: Session, spec: SessionSpec, avatars: Avatars, *, attached: bool) -> SessionView:
    """Return the present state of a living session."""
    started, speech, now_s = avatars.started, core.speech, time.monotonic()
    played_s = speech.totals.played_s + sum(one.position_s(speech.clock, now_s) for one in speech.active)
    return SessionView(
        id=core.id,
        spec=spec,
        state=core.state,
        pose=core.pose,
        attached=attached and not core.over,
        upstream_session_id=started.session_id if started else "",
        created_at=core.created_at,
        ready_at=core.ready_at,
        ended_at=core.ended_at,
        expires_at=avatars.expires_at,
        max_duration_s=started.max_duration_s if started else None,
        end_reason=core.end_reason,
        upstream_reason=core.upstream_reason,
        error=core.error,
        billed_s=avatars.billed.total_seconds(),
        usage=replace(avatars.usage(), played_s=played_s),
        last_sequence=core.log.last_sequence,
    )
