"""Observers of all sessions of a process, such as streams of `WatchSessions`."""

from collections.abc import Callable
from typing import Protocol

import structlog

from liveavatar_gateway.core.errors import GatewayError, InternalError
from liveavatar_gateway.sessions.services import new_id
from liveavatar_gateway.sessions.session import SessionActor

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Watcher of sessions that keeps none alive. Its methods neither wait nor raise."""

    def on_session(self, session: SessionActor) -> None:
        """Take note of a session that is new here."""

    def on_news(self, session_id: str) -> None:
        """Take note that the event log of a session has grown, or that the session has left this process."""

    def fail(self, error: GatewayError) -> None:
        """End the watch with an error; no further calls follow."""

    def on_close(self) -> None:
        """Take note that the process exits."""


class Observers:
    """Set of observers. A fault of an observer ends its own watch, and reaches no session."""

    def __init__(self) -> None:
        self._all: set[Observer] = set()

    def __contains__(self, observer: object) -> bool:
        return observer in self._all

    def add(self, observer: Observer) -> None:
        """Notify an observer from now on."""
        self._all.add(observer)

    def discard(self, observer: Observer) -> None:
        """Notify an observer no longer. Idempotent."""
        self._all.discard(observer)

    def on_session(self, session: SessionActor) -> None:
        """Notify all of a session that is new here."""
        for observer in list(self._all):
            self._notify(observer, observer.on_session, session)

    def on_news(self, session_id: str) -> None:
        """Notify all that the event log of a session has grown, or that the session has left this process."""
        for observer in list(self._all):
            self._notify(observer, observer.on_news, session_id)

    def close(self) -> None:
        """Notify all that the process exits."""
        for observer in list(self._all):
            self._notify(observer, observer.on_close)

    def _notify(self, observer: Observer, method: Callable[..., None], *args: object) -> None:
        try:
            method(*args)
        except Exception as fault:  # noqa: BLE001 - a fault of an observer must not reach sessions
            incident = new_id()
            _log.error("observer.failed", incident=incident, exc_info=fault)
            self._all.discard(observer)
            observer.fail(InternalError("a fault of the gateway", incident=incident))
