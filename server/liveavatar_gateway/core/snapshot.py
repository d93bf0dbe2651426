"""Snapshot from which another process resumes a session."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.speech.utterance import AudioInput


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceSnapshot:
    """Utterance of which LiveAvatar has the beginning; the rest of its audio was lost with the former process."""

    id: str
    """The caller's id of the utterance."""
    upstream_id: str
    """The `event_id` of the utterance on LiveAvatar's socket."""
    audio_input: AudioInput
    """Format of its audio."""
    taken_bytes: int
    """Bytes of the caller's format that LiveAvatar has: the caller continues there."""
    sent_s: float
    """Seconds of audio that LiveAvatar has."""
    started: bool = False
    """True when its start was reported."""
    end_sent: bool = False
    """True when its end was sent."""
    interrupted: bool = False
    """True when an interrupt of the utterance was accepted and not confirmed by LiveAvatar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSnapshot:
    """State of a session that another process drove before."""

    id: str
    created_at: datetime
    ready_at: datetime | None = None
    """Time at which the avatar became ready; None when it never did."""
    last_sequence: int = 0
    """Sequence number of its latest event; the next event has the number after it."""
    expires_in_s: float | None = None
    """Seconds from now to the limit of its avatar; None without a limit."""
    expires_at: datetime | None = None
    """Time of the limit, wall-clock."""
    utterances: Sequence[UtteranceSnapshot] = ()
    """Utterances that had not ended and of which LiveAvatar has audio, in order."""
    ended_utterances: Sequence[UtteranceEnded] = ()
    """Utterances that ended last: their ids are refused, and a stream that resumes one gets its result."""
    utterance_count: int = 0
    received_bytes: int = 0
    dropped_bytes: int = 0
    upstream_bytes: int = 0
    played_s: float = 0.0
    interruption_count: int = 0
    reconnect_count: int = 0
    rotation_count: int = 0
