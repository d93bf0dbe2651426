"""States a session and its avatar can be in, and the moves between them that are allowed."""

from collections.abc import Mapping
from enum import Enum, unique
from typing import Final


@unique
class SessionState(Enum):
    """Where a session is in its life."""

    CREATING = "creating"
    CONNECTING = "connecting"
    READY = "ready"
    RECONNECTING = "reconnecting"
    ENDING = "ending"
    ENDED = "ended"


@unique
class Pose(Enum):
    """What the avatar does while the session is ready."""

    UNKNOWN = "unknown"
    IDLE = "idle"
    LISTENING = "listening"
    TALKING = "talking"


@unique
class EndReason(Enum):
    """Why a session ended."""

    CALLER_ENDED = "CALLER_ENDED"
    CALLER_LOST = "CALLER_LOST"
    IDLE = "IDLE"
    MAX_DURATION = "MAX_DURATION"
    UPSTREAM_ENDED = "UPSTREAM_ENDED"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    OUT_OF_CREDITS = "OUT_OF_CREDITS"
    DRAINED = "DRAINED"
    OPERATOR = "OPERATOR"
    CREATE_FAILED = "CREATE_FAILED"


@unique
class Outcome(Enum):
    """How an utterance ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


TRANSITIONS: Final[Mapping[SessionState, frozenset[SessionState]]] = {
    SessionState.CREATING: frozenset({SessionState.CONNECTING, SessionState.ENDING}),
    SessionState.CONNECTING: frozenset({SessionState.READY, SessionState.RECONNECTING, SessionState.ENDING}),
    SessionState.READY: frozenset({SessionState.RECONNECTING, SessionState.ENDING}),
    SessionState.RECONNECTING: frozenset({SessionState.READY, SessionState.ENDING}),
    SessionState.ENDING: frozenset({SessionState.ENDED}),
    SessionState.ENDED: frozenset(),
}
"""From each state, the states that may follow."""

UPSTREAM_END_REASONS: Final[Mapping[str, EndReason]] = {
    "IDLE_TIMEOUT": EndReason.IDLE,
    "MAX_DURATION_REACHED": EndReason.MAX_DURATION,
    "NO_CREDITS": EndReason.OUT_OF_CREDITS,
}
"""LiveAvatar's own end reasons that have one of ours; any other is UPSTREAM_ENDED.

Source: LiveAvatar OpenAPI schema, `SessionEndReasonEnum`.
"""


class IllegalTransition(AssertionError):
    """A bug: the state machine was asked for a move that its table does not have."""


def move(current: SessionState, following: SessionState) -> SessionState:
    """Return `following` when the table allows it.

    Raises:
        IllegalTransition: it does not.
    """
    if following not in TRANSITIONS[current]:
        raise IllegalTransition(f"{current.name} -> {following.name}")
    return following


def end_reason_of(upstream_reason: str) -> EndReason:
    """Translate LiveAvatar's word for the end of a session; an empty one means that it failed."""
    if not upstream_reason:
        return EndReason.UPSTREAM_FAILED
    return UPSTREAM_END_REASONS.get(upstream_reason, EndReason.UPSTREAM_ENDED)
