"""What a session tells its avatar in the room: what to say, from when, until when, and in which pose.

Times are seconds of the session's clock, the exact moments at which things were due, however late they are
told.
"""

from dataclasses import dataclass

from liveavatar_emulator.protocol import Pose


@dataclass(frozen=True, slots=True)
class Speech:
    """Audio was accepted into an utterance: signed 16-bit little-endian, mono, 24 000 Hz, any number of bytes."""

    utterance: int
    pcm: bytes
    resumes_at_s: float | None
    """When the utterance had run dry: the moment at which it goes on. None when it goes on without a gap."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """An utterance's first sample is due."""

    utterance: int
    at_s: float


@dataclass(frozen=True, slots=True)
class SpeechCut:
    """Nothing of this utterance and those before it is heard after `at_s`."""

    through: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Posed:
    """The avatar takes a pose."""

    pose: Pose


Cue = Speech | SpeechStarted | SpeechCut | Posed
