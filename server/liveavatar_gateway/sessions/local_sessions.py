"""Sessions that this process has, and those that ended here and stay readable for a while."""

import time
from collections import OrderedDict

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.sessions.session import SessionActor


class LocalSessions:
    """Sessions by id and by request, in the order in which they came."""

    def __init__(self, *, retention_s: float, max_ended: int) -> None:
        """Begin without sessions.

        Args:
            retention_s: Time that an ended session stays.
            max_ended: Largest number of ended sessions that stay.
        """
        self._retention_s = retention_s
        self._max_ended = max_ended
        self._sessions: OrderedDict[str, SessionActor] = OrderedDict()
        self._requests: dict[str, SessionActor] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()

    def add(self, session: SessionActor) -> None:
        """Add a session."""
        self._sessions[session.id] = session
        if session.request_id:
            self._requests[session.request_id] = session

    def get(self, session_id: str) -> SessionActor | None:
        """Return a session; None for a session that is not here, or that another process has taken over."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.lost_to is None else None

    def of_request(self, request_id: str) -> SessionActor | None:
        """Return the newest session of a request; None without a session."""
        return self._requests.get(request_id)

    def release_request(self, session: SessionActor) -> None:
        """Let another session follow for the same request."""
        if self._requests.get(session.request_id) is session:
            del self._requests[session.request_id]

    def remove(self, session: SessionActor) -> None:
        """Remove a session that another process has, unless it has come back already."""
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
        self.release_request(session)

    def retain(self, session: SessionActor) -> None:
        """Keep an ended session until its retention is over."""
        self._ended[session.id] = time.monotonic() + self._retention_s
        self.remove_expired()

    def remove_expired(self) -> None:
        """Remove ended sessions whose retention is over, and the oldest above the largest number."""
        now_s = time.monotonic()
        while self._ended:
            session_id, until_s = next(iter(self._ended.items()))
            if until_s > now_s and len(self._ended) <= self._max_ended:
                return
            del self._ended[session_id]
            if (expired := self._sessions.pop(session_id, None)) is not None:
                self.release_request(expired)

    def newest(self) -> list[SessionActor]:
        """Return all sessions, newest first."""
        self.remove_expired()
        return list(reversed(self._sessions.values()))

    def living(self) -> list[SessionActor]:
        """Return the sessions that have not ended."""
        return [session for session in self._sessions.values() if not session.finished.is_set()]


def page(sessions: list[SessionActor], token: str, size: int) -> tuple[list[SessionActor], str]:
    """Return a page of sessions, and the token of the next page.

    Raises:
        InvalidField: the token is unknown.
    """
    start = 0
    if token:
        position = next((index for index, session in enumerate(sessions) if session.id == token), None)
        if position is None:
            raise InvalidField("page_token is unknown; list from the start", field="page_token")
        start = position + 1
    entries = sessions[start : start + size]
    return entries, entries[-1].id if start + size < len(sessions) else ""
