"""Observers of all sessions of a process: they keep no session alive and slow none down."""

from typing import Protocol

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.sessions.session import SessionActor


class Observer(Protocol):
    """Receiver of short notices. None of the methods may raise or wait, so the work is done later."""

    def on_session(self, session: SessionActor) -> None:
        """Take note of a session that is new here."""

    def on_news(self, session_id: str) -> None:
        """Take note that the log of a session has grown, or that the session has left this process."""

    def fail(self, error: GatewayError) -> None:
        """End the watch with an error: one of the methods above failed, and none is called any more."""

    def on_close(self) -> None:
        """Take note that the process exits: nothing more will happen."""
