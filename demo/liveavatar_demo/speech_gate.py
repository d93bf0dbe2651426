"""Gate that finds what a user said by its energy, without knowledge of words."""

import enum
import math
from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

_FULL_SCALE: Final = 32_768.0
_SAMPLE_BYTES: Final = 2
_SILENCE_DB: Final = -120.0
"""Level of digital silence, which has no logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """Levels and times of a gate. Levels are in dB of full scale."""

    rate_hz: int = 24_000
    """Sample rate of the mono 16-bit audio."""
    open_db: float = -42.0
    """Level that counts as the beginning of speech. Higher overhears quiet voices, lower repeats noise."""
    close_db: float = -48.0
    """Level that continues speech; below `open_db`, so that the end of a word does not flutter."""
    onset_s: float = 0.1
    """Loud time that begins speech, so that a click does not."""
    silence_s: float = 0.7
    """Silence that ends speech. Longer lets the user think, and delays each answer."""
    margin_s: float = 0.2
    """Audio kept before the first and after the last loud sound, where consonants are."""
    longest_s: float = 20.0
    """Longest speech, which ends then."""


class GateState(enum.Enum):
    """State of a gate."""

    SILENT = enum.auto()
    """The user says nothing."""
    SPEAKING = enum.auto()
    """The user speaks."""


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Beginning of speech."""

    began_s: float
    """Time of the first sound, seconds of the clock of `take`."""


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """End of speech."""

    began_s: float
    """Time of the first sound."""
    ended_s: float
    """Time of the last sound; the silence behind it does not count."""
    audio: bytes
    """Samples of the speech, with a margin on both sides."""


GateEvent: TypeAlias = SpeechBegan | SpeechEnded


class SpeechGate:
    """Finds speech in the audio of one user. Pure: audio and times come in, events come out.

    Invariant: events alternate, beginning with `SpeechBegan`; the audio that is kept has a bound.
    """

    def __init__(self, config: GateConfig | None = None) -> None:
        self._config = config or GateConfig()
        self._margin_bytes = self._size_bytes(self._config.margin_s)
        self._before_bytes = self._size_bytes(self._config.margin_s + self._config.onset_s)
        self._state = GateState.SILENT
        self._pieces: deque[bytes] = deque()
        self._kept_bytes = 0
        self._loud_s = 0.0
        self._began_s = 0.0
        self._last_loud_s = 0.0
        self._quiet_bytes = 0

    @property
    def state(self) -> GateState:
        """Present state."""
        return self._state

    def take(self, pcm: bytes, captured_s: float) -> list[GateEvent]:
        """Take the next samples and return what they began or ended.

        Args:
            pcm: Mono 16-bit samples, 10 to 100 ms.
            captured_s: Time of the first sample.
        """
        duration_s = len(pcm) / (self._config.rate_hz * _SAMPLE_BYTES)
        now_s = captured_s + duration_s
        level_db = loudness_db(pcm)
        if self._state is GateState.SILENT:
            self._remember(pcm)
            self._loud_s = self._loud_s + duration_s if level_db >= self._config.open_db else 0.0
            # Sums of 20 ms are not exact.
            if self._loud_s < self._config.onset_s - 1e-6:
                return []
            self._state = GateState.SPEAKING
            self._began_s = now_s - self._loud_s
            self._last_loud_s = now_s
            self._quiet_bytes = 0
            return [SpeechBegan(self._began_s)]
        self._pieces.append(pcm)
        if level_db >= self._config.close_db:
            self._last_loud_s = now_s
            self._quiet_bytes = 0
        else:
            self._quiet_bytes += len(pcm)
        is_over = now_s - self._last_loud_s >= self._config.silence_s - 1e-6
        return self.close() if is_over or now_s - self._began_s >= self._config.longest_s else []

    def close(self) -> list[GateEvent]:
        """End speech, if there is any, because no more audio comes: the user has muted or left."""
        if self._state is GateState.SILENT:
            return []
        audio = b"".join(self._pieces)
        surplus_bytes = max(0, self._quiet_bytes - self._margin_bytes)
        self._state = GateState.SILENT
        self._pieces.clear()
        self._kept_bytes = 0
        self._loud_s = 0.0
        return [SpeechEnded(self._began_s, self._last_loud_s, audio[: len(audio) - surplus_bytes])]

    def _remember(self, pcm: bytes) -> None:
        """Keep the newest audio, where the first sound may be."""
        self._pieces.append(pcm)
        self._kept_bytes += len(pcm)
        while self._kept_bytes - len(self._pieces[0]) >= self._before_bytes:
            self._kept_bytes -= len(self._pieces.popleft())

    def _size_bytes(self, seconds: float) -> int:
        return int(seconds * self._config.rate_hz) * _SAMPLE_BYTES


def loudness_db(pcm: bytes) -> float:
    """Return the level of mono 16-bit samples, in dB of full scale."""
    samples = np.frombuffer(pcm, "<i2", count=len(pcm) // _SAMPLE_BYTES).astype(np.float64)
    power = float(np.mean(np.square(samples))) if len(samples) else 0.0
    return max(_SILENCE_DB, 10 * math.log10(power / _FULL_SCALE**2)) if power > 0 else _SILENCE_DB
