"""Sessions that this process has, and those that ended here and stay readable for a while."""

import time
from collections import OrderedDict, defaultdict

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.sessions.session import SessionActor


class LocalSessions:
    """Sessions by id and by request, in the order in which they came."""

    def __init__(self, *, retention_s: float, max_ended: int) -> None:
        """Begin without sessions.

        Args:
            retention_s: Time that an ended session stays.
            max_ended: Largest number of ended sessions of one tenant that stay.
        """
        self._retention_s = retention_s
        self._max_ended = max_ended
        self._sessions: OrderedDict[str, SessionActor] = OrderedDict()
        self._requests: dict[tuple[str, str], SessionActor] = {}
        """Newest session of each tenant and request id."""
        self._ended: defaultdict[str, OrderedDict[str, float]] = defaultdict(OrderedDict)
        """Ended sessions of each tenant with the end of their retention, oldest first."""

    def add(self, session: SessionActor) -> None:
        """Add a session."""
        self._sessions[session.id] = session
        if session.request_id:
            self._requests[session.tenant, session.request_id] = session

    def get(self, session_id: str) -> SessionActor | None:
        """Return a session; None for a session that is not here, or that another process has taken over."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.lost_to is None else None

    def of_request(self, request_id: str, *, tenant: str) -> SessionActor | None:
        """Return the newest session of a tenant's request; None without a session."""
        return self._requests.get((tenant, request_id))

    def release_request(self, session: SessionActor) -> None:
        """Let another session follow for the same request."""
        request = session.tenant, session.request_id
        if self._requests.get(request) is session:
            del self._requests[request]

    def remove(self, session: SessionActor) -> None:
        """Remove a session that another process has, unless it has come back already."""
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
        self.release_request(session)

    def retain(self, session: SessionActor) -> None:
        """Keep an ended session until its retention is over."""
        self._ended[session.tenant][session.id] = time.monotonic() + self._retention_s
        self.remove_expired()

    def remove_expired(self) -> None:
        """Remove ended sessions whose retention is over, and the oldest above the largest number."""
        now_s = time.monotonic()
        for tenant, ended in list(self._ended.items()):
            while ended:
                session_id, until_s = next(iter(ended.items()))
                if until_s > now_s and len(ended) <= self._max_ended:
                    break
                del ended[session_id]
                if (expired := self._sessions.pop(session_id, None)) is not None:
                    self.release_request(expired)
            if not ended:
                del self._ended[tenant]

    def newest(self, *, tenant: str) -> list[SessionActor]:
        """Return all sessions of a tenant, newest first."""
        self.remove_expired()
        return [session for session in reversed(self._sessions.values()) if session.tenant == tenant]

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
