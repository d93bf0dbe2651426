"""Those who watch sessions without holding them: they keep none alive and slow none down."""

from typing import Protocol

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.sessions.session import SessionActor


class Observer(Protocol):
    """Is told that there is something to look at; looks when it has time. None of these may raise or wait."""

    def on_session(self, session: SessionActor) -> None:
        """A session is here that was not before."""

    def on_news(self, session_id: str) -> None:
        """The log of a session has grown, or the session is not here any more."""

    def fail(self, error: GatewayError) -> None:
        """End the watch with an error: one of the calls above failed, and no more follow."""

    def on_close(self) -> None:
        """Nothing more will happen here: the process exits."""
