"""Ends of sessions whose tenant has spent its budget, each at a border between two utterances."""

import asyncio
from collections.abc import Callable

import structlog

from liveavatar_gateway.core.errors import BudgetExhausted, EventsCompacted, GatewayError
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.session import SessionActor

_log = structlog.get_logger(__name__)


class BudgetEnds:
    """Observer that ends requested sessions when an utterance has ended, or at once if none is active."""

    def __init__(self, find: Callable[[str], SessionActor | None]) -> None:
        """Prepare; `find` returns a session of this process by its id."""
        self._find = find
        self._pending: dict[str, tuple[int, BudgetExhausted]] = {}
        """Last event at the request, and the error, by session."""

    def request(self, session_id: str, error: BudgetExhausted) -> None:
        """End a session at its next border. Idempotent."""
        session = self._find(session_id)
        if session is None or session.over or session_id in self._pending:
            return
        _log.info("session.budget_spent", session=session_id, tenant=error.metadata.get("tenant", ""))
        self._pending[session_id] = (session.log.last_sequence, error)
        self._end_at_border(session_id)

    def on_session(self, session: SessionActor) -> None:
        """Do nothing: a new session has paid for its first minute."""

    def on_news(self, session_id: str) -> None:
        """End the session if it was requested and an utterance has ended since."""
        if session_id in self._pending:
            # Later, since the session is in the middle of publishing its news.
            asyncio.get_running_loop().call_soon(self._end_at_border, session_id)

    def _end_at_border(self, session_id: str) -> None:
        session = self._find(session_id)
        after, error = self._pending.get(session_id, (0, None))
        if session is None or session.over or error is None:
            self._pending.pop(session_id, None)
            return
        if session.speaks and not _has_border(session, after):
            return
        del self._pending[session_id]
        with bulkhead("session.end_failed", session.id):
            session.end(EndReason.OPERATOR, error=error)

    def fail(self, error: GatewayError) -> None:
        """Do nothing: the log has the fault."""

    def on_close(self) -> None:
        """Do nothing: the process ends its sessions."""


def _has_border(session: SessionActor, after: int) -> bool:
    try:
        return any(isinstance(entry.event, UtteranceEnded) for entry in session.log.after(after))
    except EventsCompacted:
        return True
