"""What is known of a session that another process drove: enough to go on with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.speech.utterance import AudioInput


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceSnapshot:
    """An utterance of which LiveAvatar has the beginning; what waited behind that is gone with its process."""

    id: str
    """The caller's name for it."""
    upstream_id: str
    """The `event_id` it has on LiveAvatar's socket."""
    intake: AudioInput
    """How its audio is read."""
    taken_bytes: int
    """How much of it LiveAvatar has, bytes of the caller's format: the caller goes on here."""
    sent_s: float
    """The same in seconds of audio."""
    started: bool = False
    """Whether its start was told."""
    end_sent: bool = False
    """Whether LiveAvatar was told that it is whole."""
    interrupted: bool = False
    """Whether somebody has cut it, and it is not known that LiveAvatar did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSnapshot:
    """A session as the process before left it."""

    id: str
    created_at: datetime
    ready_at: datetime | None = None
    """When the avatar became ready; None when it never was."""
    last_sequence: int = 0
    """Of its events, which are numbered on from here."""
    expires_in_s: float | None = None
    """From now to its limit."""
    expires_at: datetime | None = None
    """The limit by the wall clock."""
    utterances: Sequence[UtteranceSnapshot] = ()
    """Those that had not ended, in their order, and of which LiveAvatar has some."""
    ended_utterances: Sequence[UtteranceEnded] = ()
    """The latest that ended: their ids are used up, and who comes back to one is told how it ended."""
    utterance_count: int = 0
    received_bytes: int = 0
    dropped_bytes: int = 0
    upstream_bytes: int = 0
    played_s: float = 0.0
    interruption_count: int = 0
    reconnect_count: int = 0
    rotation_count: int = 0
