"""States of sessions and utterances, and the tables of their allowed transitions."""

from collections.abc import Mapping
from enum import Enum, unique
from typing import Final, TypeVar

_State = TypeVar("_State", bound=Enum)


@unique
class SessionState(Enum):
    """Stage of a session's life."""

    CREATING = "creating"
    CONNECTING = "connecting"
    READY = "ready"
    RECONNECTING = "reconnecting"
    ENDING = "ending"
    ENDED = "ended"


@unique
class Pose(Enum):
    """Pose of the avatar while the session is ready."""

    UNKNOWN = "unknown"
    IDLE = "idle"
    LISTENING = "listening"
    TALKING = "talking"


@unique
class EndReason(Enum):
    """Reason for the end of a session."""

    CALLER_ENDED = "CALLER_ENDED"
    CALLER_LOST = "CALLER_LOST"
    IDLE = "IDLE"
    MAX_DURATION = "MAX_DURATION"
    UPSTREAM_ENDED = "UPSTREAM_ENDED"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    OUT_OF_CREDITS = "OUT_OF_CREDITS"
    DRAINED = "DRAINED"
    OPERATOR = "OPERATOR"
    TENANT_SUSPENDED = "TENANT_SUSPENDED"
    CREATE_FAILED = "CREATE_FAILED"
    NO_VIEWERS = "NO_VIEWERS"
    AGENT_HUNG_UP = "AGENT_HUNG_UP"


@unique
class Outcome(Enum):
    """Result of an utterance."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@unique
class InputState(Enum):
    """Stage of an utterance's audio on its way in from the caller."""

    UNDECIDED = "undecided"
    """The first bytes may still be the header of a file."""
    OPEN = "open"
    SEALED = "sealed"
    """No more audio comes. Some audio still waits here, if only in the converter."""
    FLUSHED = "flushed"
    """No more audio comes, and no audio waits here."""


@unique
class SendState(Enum):
    """Stage of an utterance on its way to LiveAvatar."""

    WAITING = "waiting"
    """No audio of the utterance was sent to LiveAvatar."""
    SENDING = "sending"
    """Audio of the utterance was sent to LiveAvatar."""
    END_SENT = "end sent"
    """All of the utterance was sent, its end included."""
    COMMITTED = "committed"
    """LiveAvatar has all of the utterance, its end included."""


@unique
class PlaybackState(Enum):
    """Stage of an utterance at LiveAvatar."""

    PENDING = "pending"
    """LiveAvatar has confirmed no audio of the utterance."""
    ACCEPTED = "accepted"
    """LiveAvatar has a part of the utterance."""
    PLAYING = "playing"
    """The first sound was played under the present upstream id, so the audio must not be sent again as a whole."""
    PLAYED = "played"
    """Ended after its first sound."""
    UNPLAYED = "unplayed"
    """Ended without a sound."""


@unique
class PauseState(Enum):
    """Stage of a pause of speech."""

    RUNNING = "running"
    """Speech is sent as it comes."""
    PAUSING = "pausing"
    """LiveAvatar was sent the interrupt that silences the avatar, or is to be sent it; no audio is sent."""
    PAUSED = "paused"
    """The avatar is silent, and no audio is sent."""
    CONTINUING = "continuing"
    """Speech continues as soon as LiveAvatar has carried out the interrupt of the pause."""


@unique
class TimeoutAction(Enum):
    """Action at the timeout of a pause."""

    CONTINUE = "continue"
    INTERRUPT = "interrupt"


@unique
class ContinueCause(Enum):
    """Cause of the end of a pause."""

    COMMAND = "command"
    TIMEOUT = "timeout"
    INTERRUPT = "interrupt"


SESSION_TRANSITIONS: Final[Mapping[SessionState, frozenset[SessionState]]] = {
    SessionState.CREATING: frozenset({SessionState.CONNECTING, SessionState.ENDING}),
    SessionState.CONNECTING: frozenset({SessionState.READY, SessionState.RECONNECTING, SessionState.ENDING}),
    SessionState.READY: frozenset({SessionState.RECONNECTING, SessionState.ENDING}),
    SessionState.RECONNECTING: frozenset({SessionState.READY, SessionState.ENDING}),
    SessionState.ENDING: frozenset({SessionState.ENDED}),
    SessionState.ENDED: frozenset(),
}
"""States of a session, each with those that may follow."""

HOSTED_TRANSITIONS: Final[Mapping[SessionState, frozenset[SessionState]]] = {
    SessionState.CREATING: frozenset({SessionState.CONNECTING, SessionState.ENDING}),
    SessionState.CONNECTING: frozenset({SessionState.READY, SessionState.ENDING}),
    SessionState.READY: frozenset({SessionState.ENDING}),
    # Without a socket nothing can be lost.
    SessionState.RECONNECTING: frozenset(),
    SessionState.ENDING: frozenset({SessionState.ENDED}),
    SessionState.ENDED: frozenset(),
}
"""The same for a session whose avatar a hosted agent drives, without a command socket."""

INPUT_TRANSITIONS: Final[Mapping[InputState, frozenset[InputState]]] = {
    InputState.UNDECIDED: frozenset({InputState.OPEN, InputState.SEALED, InputState.FLUSHED}),
    InputState.OPEN: frozenset({InputState.SEALED, InputState.FLUSHED}),
    InputState.SEALED: frozenset({InputState.FLUSHED}),
    # An interrupt of another utterance dropped this one too, so it is sent again from its beginning.
    InputState.FLUSHED: frozenset({InputState.SEALED}),
}
"""States of an utterance's input, each with those that may follow."""

SEND_TRANSITIONS: Final[Mapping[SendState, frozenset[SendState]]] = {
    SendState.WAITING: frozenset({SendState.SENDING}),
    SendState.SENDING: frozenset({SendState.END_SENT, SendState.WAITING}),
    # A socket that is lost before the end was confirmed leads back to SENDING.
    SendState.END_SENT: frozenset({SendState.COMMITTED, SendState.SENDING, SendState.WAITING}),
    SendState.COMMITTED: frozenset({SendState.WAITING}),
}
"""States of an utterance's sending, each with those that may follow."""

PLAYBACK_TRANSITIONS: Final[Mapping[PlaybackState, frozenset[PlaybackState]]] = {
    # A paused utterance is PENDING again after its first sound, so it may end as PLAYED from here.
    PlaybackState.PENDING: frozenset(
        {PlaybackState.ACCEPTED, PlaybackState.PLAYING, PlaybackState.PLAYED, PlaybackState.UNPLAYED}
    ),
    # An interrupt of another utterance that drops this audio too leads back to PENDING.
    PlaybackState.ACCEPTED: frozenset(
        {PlaybackState.PENDING, PlaybackState.PLAYING, PlaybackState.PLAYED, PlaybackState.UNPLAYED}
    ),
    # A pause leads back to PENDING.
    PlaybackState.PLAYING: frozenset({PlaybackState.PENDING, PlaybackState.PLAYED}),
    PlaybackState.PLAYED: frozenset(),
    PlaybackState.UNPLAYED: frozenset(),
}
"""States of an utterance's playback, each with those that may follow."""

PAUSE_TRANSITIONS: Final[Mapping[PauseState, frozenset[PauseState]]] = {
    PauseState.RUNNING: frozenset({PauseState.PAUSING, PauseState.PAUSED}),
    PauseState.PAUSING: frozenset({PauseState.PAUSED, PauseState.CONTINUING, PauseState.RUNNING}),
    PauseState.PAUSED: frozenset({PauseState.RUNNING}),
    PauseState.CONTINUING: frozenset({PauseState.RUNNING, PauseState.PAUSING}),
}
"""States of a pause, each with those that may follow."""

UPSTREAM_END_REASONS: Final[Mapping[str, EndReason]] = {
    "IDLE_TIMEOUT": EndReason.IDLE,
    "MAX_DURATION_REACHED": EndReason.MAX_DURATION,
    "NO_CREDITS": EndReason.OUT_OF_CREDITS,
    "AGENT_HANG_UP": EndReason.AGENT_HUNG_UP,
}
"""LiveAvatar's end reasons, each with the gateway's; any other reason is UPSTREAM_ENDED.

Source: LiveAvatar OpenAPI schema, `SessionEndReasonEnum`.
"""


class IllegalTransition(AssertionError):
    """Bug of the gateway: a transition that the table does not allow."""


def move(table: Mapping[_State, frozenset[_State]], current: _State, following: _State) -> _State:
    """Return `following` when the table allows the transition.

    Raises:
        IllegalTransition: the table does not allow it.
    """
    if following not in table[current]:
        raise IllegalTransition(f"{current.name} -> {following.name}")
    return following


def end_reason_of(upstream_reason: str) -> EndReason:
    """Translate LiveAvatar's end reason of a session; an empty reason means that the session failed."""
    if not upstream_reason:
        return EndReason.UPSTREAM_FAILED
    return UPSTREAM_END_REASONS.get(upstream_reason, EndReason.UPSTREAM_ENDED)
