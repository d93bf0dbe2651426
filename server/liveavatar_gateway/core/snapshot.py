"""Snapshot from which another process resumes a session."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.speech.utterance import AudioInput
from liveavatar_gateway.core.states import PauseState, TimeoutAction


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
    waits: bool = False
    """True when a pause made LiveAvatar drop its audio: the utterance continues at `taken_bytes`."""
    played_s: float = 0.0
    """Seconds that were heard, for one that `waits`."""
    repeated_s: float = 0.0
    """Seconds that were heard a second time, for one that `waits`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseSnapshot:
    """Pause of a session's speech."""

    state: PauseState
    utterance_id: str = ""
    """Utterance that is paused; empty without one."""
    repeated_s: float = 0.0
    """Length of the step back, seconds."""
    left_s: float | None = None
    """Time to the timeout of the pause; None without a timeout."""
    at_timeout: TimeoutAction = TimeoutAction.CONTINUE
    """Action at the timeout."""


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
    repeated_s: float = 0.0
    pause: PauseSnapshot | None = None
    """Pause of the speech; None while speech is not paused."""
