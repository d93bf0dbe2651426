"""Canned agent of a connector: notices turns of users, and answers each with the same sounds. Pure.

Assumed: a hosted agent answers after about half a second of silence, and falls silent when a user begins to speak.
"""

import array
import functools
import math
import sys
from enum import Enum, auto
from typing import Final

RATE_HZ: Final = 24_000
"""Sample rate of what the agent hears and says: signed 16-bit little-endian, mono."""
PITCHES_HZ: Final = (294.0, 392.0, 294.0, 392.0, 294.0)
"""Pitch of each syllable of the answer."""

_LOUD: Final = 500.0
"""Root mean square above which a frame is speech; a quiet microphone has a few tens."""
_TURN: Final = RATE_HZ // 5
"""Shortest speech that is a turn, samples; less is a click."""
_PAUSE: Final = RATE_HZ // 2
"""Silence that ends a turn, samples."""
_SYLLABLE_S: Final = 0.4
_GAP_S: Final = 0.1
_LOUDNESS: Final = 9_000


class Reaction(Enum):
    """Reaction to what was heard."""

    HUSH = auto()
    """A user began to speak: fall silent."""
    ANSWER = auto()
    """A user has finished: answer."""


class HostedAgent:
    """Listener of one room. Users may speak at once; the turn of each counts."""

    def __init__(self) -> None:
        self._voiced: dict[str, int] = {}
        """Speech of the present turn of each user who is speaking."""
        self._silent: dict[str, int] = {}
        self.turn_count = 0

    def hear(self, user: str, pcm: bytes) -> Reaction | None:
        """Take audio of a user: a frame of 10 ms or longer."""
        samples = _samples(pcm)
        if not samples:
            return None
        count = len(samples)
        if math.sqrt(sum(sample * sample for sample in samples) / count) >= _LOUD:
            return self._on_voice(user, count)
        return self._on_silence(user, count)

    def gone(self, user: str) -> Reaction | None:
        """Take note that no more audio of a user comes: whoever leaves or mutes has finished."""
        return self._on_silence(user, _PAUSE)

    def _on_voice(self, user: str, count: int) -> Reaction | None:
        before = self._voiced.get(user, 0)
        self._voiced[user] = before + count
        self._silent[user] = 0
        return Reaction.HUSH if before < _TURN <= before + count else None

    def _on_silence(self, user: str, count: int) -> Reaction | None:
        if user not in self._voiced:
            return None
        self._silent[user] += count
        if self._silent[user] < _PAUSE:
            return None
        del self._silent[user]
        if self._voiced.pop(user) < _TURN:
            return None
        self.turn_count += 1
        return Reaction.ANSWER


@functools.cache
def answer() -> bytes:
    """Return the answer: one tone for each syllable, with soft edges and a short pause between two."""
    count, edge = round(_SYLLABLE_S * RATE_HZ), 0.02 * RATE_HZ
    samples = array.array("h")
    for pitch_hz in PITCHES_HZ:
        for at in range(count):
            softness = min(1.0, at / edge, (count - 1 - at) / edge)
            samples.append(round(_LOUDNESS * softness * math.sin(2 * math.pi * pitch_hz * at / RATE_HZ)))
        samples.extend([0] * round(_GAP_S * RATE_HZ))
    return _little_endian(samples).tobytes()


def _samples(pcm: bytes) -> "array.array[int]":
    return _little_endian(array.array("h", pcm))


def _little_endian(samples: "array.array[int]") -> "array.array[int]":
    """Convert between the machine's order of bytes and that of audio, in place."""
    if sys.byteorder == "big":
        samples.byteswap()
    return samples
