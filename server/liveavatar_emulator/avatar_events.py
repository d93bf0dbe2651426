"""Events of a session that its room avatar renders: audio to say, start and cut of speech, pose.

Times are seconds of the session's clock: the exact due times, however late an event is delivered.
"""

from dataclasses import dataclass

from liveavatar_emulator.protocol import Pose


@dataclass(frozen=True, slots=True)
class SpeechAudio:
    """Audio accepted into an utterance: signed 16-bit little-endian, mono, 24 000 Hz, any number of bytes."""

    utterance: int
    pcm: bytes
    resumes_at_s: float | None
    """Time at which an utterance that had run dry resumes; None for an utterance without a gap."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """First sample of an utterance is due."""

    utterance: int
    at_s: float


@dataclass(frozen=True, slots=True)
class SpeechCut:
    """End of this utterance and of those before it: no sample of them is heard after `at_s`."""

    through: int
    at_s: float


@dataclass(frozen=True, slots=True)
class PoseChanged:
    """New pose of the avatar."""

    pose: Pose


AvatarEvent = SpeechAudio | SpeechStarted | SpeechCut | PoseChanged
