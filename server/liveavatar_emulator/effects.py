"""Effects that a session returns and its driver executes. Pure."""

from dataclasses import dataclass

from liveavatar_emulator.avatar_events import AvatarEvent


@dataclass(frozen=True, slots=True)
class Send:
    """Write this text frame to the attached socket, if any."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the attached socket, if any."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChargeMinute:
    """Charge the minute that has begun, or end the session with NO_CREDITS."""

    at_s: float


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Free the slot of the session, which has ended, and complete its record."""

    reason: str
    at_s: float
    speak_end_missing: bool = False
    """True if the avatar was still in the talking pose, with all audio played and no `agent.speak_end`."""


Effect = Send | Close | ChargeMinute | SessionEnded | AvatarEvent
