"""Audit of the ends of sessions, whatever ended them."""

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.states import SessionState
from liveavatar_gateway.registry.base import Payload
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.telemetry.audit import OK, AuditLog

ENDED = "session.ended"


class EndAudit:
    """Observer that writes a line for each session that ends in this process."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._living: dict[str, SessionActor] = {}

    def on_session(self, session: SessionActor) -> None:
        """Take note of a session that is new here."""
        if session.state is not SessionState.ENDED:
            self._living[session.id] = session

    def on_news(self, session_id: str) -> None:
        """Write the line of a session that has ended."""
        session = self._living.get(session_id)
        if session is None:
            return
        if session.state is SessionState.ENDED:
            del self._living[session_id]
            outcome = session.error.reason if session.error is not None else OK
            end_reason = session.end_reason.value if session.end_reason is not None else ""
            self._write(session_id, session.tenant, outcome, end_reason, session.request_id)
        elif session.lost_to is not None:
            del self._living[session_id]

    def on_swept(self, session_id: str, tenant: str, payload: Payload) -> None:
        """Write the line of a session of a dead process that was ended here; the payload is its final record."""
        self._write(session_id, tenant, OK, payload.get("end_reason"), payload.get("request_id"))

    def _write(self, session_id: str, tenant: str, outcome: str, end_reason: object, request_id: object) -> None:
        fields = {"session": session_id, "request_id": request_id, "end_reason": end_reason, "tenant": tenant}
        self._log.write(ENDED, outcome, fields)

    def fail(self, error: GatewayError) -> None:
        """Do nothing: the fault has been logged."""

    def on_close(self) -> None:
        """Do nothing: all sessions have ended."""
