"""Recorded speech, byte for byte, cut into chunks with a schedule.

Every sample's two lowest bits are noise, which is inaudible. So no two stretches of speech are equal, not even of
silence, and a lost, repeated or swapped piece always shows in a digest.
"""

import hashlib
import random
import wave
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

BYTE_RATE: Final = 48_000
"""Bytes per second: 24 kHz, mono, signed 16-bit little-endian."""
RECORDINGS: Final = tuple(Path(str(files("liveavatar_demo") / name)) for name in ("greeting.wav", "story.wav"))

_RATE_HZ: Final = BYTE_RATE // 2
_NOISE_SAMPLES: Final = 1 << 20
_NOISE_SEED: Final = 24_000
_AHEAD: Final = 0.7
# A synthesizer's pieces are never later than this share of real time, so they cause no underrun by themselves.


@dataclass(frozen=True, slots=True)
class Text:
    """Stretch of the recordings. The same values give the same bytes in every process."""

    start_sample: int
    noise_sample: int
    size_bytes: int

    @property
    def seconds(self) -> float:
        """Length of the speech."""
        return self.size_bytes / BYTE_RATE


class Voice:
    """The recordings as an endless loop."""

    def __init__(self, recordings: Sequence[Path] = RECORDINGS) -> None:
        """Read them.

        Raises:
            ValueError: one is not mono 16-bit PCM.
        """
        self._speech = np.concatenate([_samples(path) for path in recordings]) & ~3
        self._noise = np.random.default_rng(_NOISE_SEED).integers(0, 4, _NOISE_SAMPLES, dtype=np.int16)

    def pick(self, rng: random.Random, seconds: float) -> Text:
        """Choose speech of a length, in whole samples."""
        size_bytes = max(1, round(seconds * _RATE_HZ)) * 2
        return Text(rng.randrange(len(self._speech)), rng.randrange(_NOISE_SAMPLES), size_bytes)

    def pcm(self, text: Text) -> bytes:
        """Return the text's bytes. Takes about 0.1 ms per 10 s."""
        count = text.size_bytes // 2
        speech = _looped(self._speech, text.start_sample, count)
        return (speech | _looped(self._noise, text.noise_sample, count)).tobytes()

    def sha256(self, text: Text, size_bytes: int) -> str:
        """Return the digest of the text's first bytes."""
        return hashlib.sha256(self.pcm(text)[:size_bytes]).hexdigest()


@dataclass(frozen=True, slots=True)
class Delivery:
    """Chunks of an utterance, with their schedule."""

    ends: "array[int]"
    """End of each chunk, bytes."""
    dues: "array[float]"
    """Time at which each chunk is due, seconds after the first. Never falls."""

    def faster(self, times: float) -> "Delivery":
        """Return the same chunks, due several times as fast."""
        return Delivery(self.ends, array("d", (due_s / times for due_s in self.dues)))

    def covered(self, size_bytes: int) -> int:
        """Return the index of the chunk that completes the first `size_bytes`; the last if they are too few."""
        low, high = 0, len(self.ends) - 1
        while low < high:
            middle = (low + high) // 2
            if self.ends[middle] < size_bytes:
                low = middle + 1
            else:
                high = middle
        return low


def real_time(size_bytes: int, *, chunk_ms: int) -> Delivery:
    """Return the delivery of a real-time source: chunks of one size, each due when the chunk before is spoken."""
    step = BYTE_RATE * chunk_ms // 1000
    ends = array("q", (min(end, size_bytes) for end in range(step, size_bytes + step, step)))
    return Delivery(ends, array("d", (index * chunk_ms / 1000 for index in range(len(ends)))))


def burst(size_bytes: int, rng: random.Random) -> Delivery:
    """Return a synthesizer's delivery: pieces of 0.1 to 0.4 s with jitter, two to eight times real time."""
    speed = rng.uniform(2.0, 8.0)
    ends, dues = array("q"), array("d")
    end, due_s = 0, 0.0
    while end < size_bytes:
        dues.append(due_s)
        piece = round(rng.uniform(0.1, 0.4) * _RATE_HZ) * 2
        end = min(end + piece, size_bytes)
        ends.append(end)
        hiccup_s = rng.uniform(0.1, 0.3) if rng.random() < 0.05 else 0.0
        pause_s = piece / BYTE_RATE / speed * rng.uniform(0.3, 1.7) + hiccup_s
        due_s = max(due_s, min(due_s + pause_s, end / BYTE_RATE * _AHEAD))
    return Delivery(ends, dues)


def at_once(size_bytes: int, *, chunk_ms: int) -> Delivery:
    """Return a delivery with all chunks due at once, so that only the credit limits it."""
    ends = real_time(size_bytes, chunk_ms=chunk_ms).ends
    return Delivery(ends, array("d", bytes(8 * len(ends))))


def _samples(path: Path) -> npt.NDArray[np.int16]:
    with wave.open(str(path), "rb") as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise ValueError(f"{path} is not mono 16-bit PCM")
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        resampled: npt.NDArray[np.int16] = soxr.resample(samples, file.getframerate(), _RATE_HZ)
        return resampled


def _looped(samples: npt.NDArray[np.int16], start: int, count: int) -> npt.NDArray[np.int16]:
    """`count` samples from `start` on, going on at the beginning after the end."""
    if start + count <= len(samples):
        return samples[start : start + count]
    pieces = [samples[start:]]
    missing = count - len(pieces[0])
    pieces += [samples] * (missing // len(samples))
    pieces.append(samples[: missing % len(samples)])
    return np.concatenate(pieces)
