"""Snapshot from which another process resumes a session."""

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
    """Format of its audio."""
    taken_bytes: int
    """Bytes of the caller's format that LiveAvatar has: the caller continues there."""
    sent_s: float
    """The same in seconds of audio."""
    started: bool = False
    """True when its start was reported."""
    end_sent: bool = False
    """True when its end was sent."""
    interrupted: bool = False
    """True when an interrupt of it was accepted and not confirmed by LiveAvatar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSnapshot:
    """A session as the process before left it."""

    id: str
    created_at: datetime
    ready_at: datetime | None = None
    """Time at which the avatar became ready; None when it never was."""
    last_sequence: int = 0
    """Of its events, which are numbered on from here."""
    expires_in_s: float | None = None
    """From now to its limit."""
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
