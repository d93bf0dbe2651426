"""Settings of a session."""

from dataclasses import dataclass, field

from liveavatar_gateway.core.readiness import ReadinessConfig
from liveavatar_gateway.core.rotation_plan import RotationConfig
from liveavatar_gateway.core.speech.config import SpeechConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """Deadlines of a session, in seconds."""

    speech: SpeechConfig = field(default_factory=SpeechConfig)
    """How speech is sent."""
    readiness: ReadinessConfig = field(default_factory=ReadinessConfig)
    """How long the avatar may take until it is ready."""
    rotation: RotationConfig = field(default_factory=RotationConfig)
    """How early a fresh avatar is prepared, where the caller wants one."""
    end_tail_s: float = 0.5
    """How long after the last end of speech LiveAvatar is told to stop, when the caller ends the session right
    after that. Lower may cut the last sound in the room; higher is paid for."""
    expiring_notice_s: float = 15.0
    """How long before the session's limit `expiring` is sent."""
    expiry_grace_s: float = 1.0
    """How long after its limit a session is ended here: LiveAvatar may merely fall silent then."""
    event_log_size: int = 1024
    """Events kept for resuming."""
