"""States of a session, of a socket's outbox and of a room avatar, each with its transition table. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Generic, TypeVar


class Phase(StrEnum):
    """Phase of a session. READY accepts commands; MUTED has reached its duration limit with an open socket."""

    WAITING = "waiting"
    READY = "ready"
    MUTED = "muted"
    ENDED = "ended"


class OutboxState(StrEnum):
    """State of one socket's outbox. CLOSING holds a close frame that CLOSED has handed to the writer."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    RESET = "reset"
    OVERFLOWED = "overflowed"


class AvatarState(StrEnum):
    """State of a room avatar. LOST means that the avatar could not join, or left against its session's will."""

    JOINING = "joining"
    JOINED = "in the room"
    LEFT = "left"
    LOST = "lost"


S = TypeVar("S", bound=StrEnum)

PHASES: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.WAITING: frozenset({Phase.READY, Phase.MUTED, Phase.ENDED}),
    Phase.READY: frozenset({Phase.MUTED, Phase.ENDED}),
    Phase.MUTED: frozenset(),
    Phase.ENDED: frozenset(),
}
OUTBOX_STATES: Final[Mapping[OutboxState, frozenset[OutboxState]]] = {
    OutboxState.OPEN: frozenset({OutboxState.CLOSING, OutboxState.RESET, OutboxState.OVERFLOWED}),
    OutboxState.CLOSING: frozenset({OutboxState.CLOSED, OutboxState.RESET}),
    OutboxState.CLOSED: frozenset(),
    OutboxState.RESET: frozenset(),
    OutboxState.OVERFLOWED: frozenset(),
}
AVATAR_STATES: Final[Mapping[AvatarState, frozenset[AvatarState]]] = {
    AvatarState.JOINING: frozenset({AvatarState.JOINED, AvatarState.LEFT, AvatarState.LOST}),
    AvatarState.JOINED: frozenset({AvatarState.LEFT, AvatarState.LOST}),
    AvatarState.LEFT: frozenset(),
    AvatarState.LOST: frozenset(),
}


class InvalidTransition(RuntimeError):
    """Change of state that its transition table does not have: a defect of the emulator."""


class State(Generic[S]):
    """Current state of one object, changed only along its transition table."""

    def __init__(self, initial: S, transitions: Mapping[S, frozenset[S]]) -> None:
        self._transitions = transitions
        self.value = initial

    def move(self, new: S) -> None:
        """Enter the state `new`.

        Raises:
            InvalidTransition: the table has no such step.
        """
        if new not in self._transitions[self.value]:
            raise InvalidTransition(f"{type(new).__name__}: no step from {self.value} to {new}")
        self.value = new
