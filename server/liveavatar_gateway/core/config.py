"""Settings of a session."""

from dataclasses import dataclass, field

from liveavatar_gateway.core.readiness import ReadinessConfig
from liveavatar_gateway.core.rotation_plan import RotationConfig
from liveavatar_gateway.core.speech.config import SpeechConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """Deadlines of a session, in seconds."""

    speech: SpeechConfig = field(default_factory=SpeechConfig)
    """Settings of speech."""
    readiness: ReadinessConfig = field(default_factory=ReadinessConfig)
    """Deadlines until the avatar is ready."""
    rotation: RotationConfig = field(default_factory=RotationConfig)
    """Times at which a standby avatar is prepared, where the caller wants rotation."""
    end_tail_s: float = 0.5
    """Delay between the last end of speech and the stop of its avatar, when the caller, a drain or a rotation ends
    it right after speech. Lower may cut the last sound in the room; higher is billed by LiveAvatar."""
    expiring_notice_s: float = 15.0
    """Lead of the `expiring` event before the session's limit, or before the end of a session that nobody uses."""
    expiry_grace_s: float = 1.0
    """Delay after the limit until the gateway ends the session, because LiveAvatar may not report it."""
    event_log_size: int = 1024
    """Number of events that are kept for callers that resume."""
    hosted_poll_s: float = 5.0
    """Interval at which LiveAvatar is asked whether a session without a socket still runs, and greatest age of its
    answer for all sessions of an account. Lower notices the end sooner, such as that of an agent that hung up, and
    takes more of LiveAvatar's rate limit."""
