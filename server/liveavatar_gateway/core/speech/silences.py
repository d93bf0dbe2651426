"""Silences in speech, at which a paused utterance can continue without cutting a word."""

import struct
from operator import mul
from typing import Final

_FRAME_BYTES: Final = 960
"""20 ms at 24 kHz, 16 bit, mono."""
_SHORTEST_FRAMES: Final = 4
"""Shortest silence, 80 ms: the closure before a plosive inside a word is mostly shorter."""
_QUIET: Final = 0.005
"""Energy of silence relative to the loudest frame around it: 23 dB below."""
_INAUDIBLE: Final = 100.0
"""Mean square of a frame that is silent whatever is around it: an amplitude of 10 among 32 767."""


def last_silence(pcm: bytes) -> int:
    """Return the position at which speech continues after the last silence, bytes.

    Args:
        pcm: Speech up to the position that was heard, 24 kHz s16le, mono, whole samples.

    Returns:
        The beginning of the last frame of the silence, so that a moment of silence precedes the word; the end of
        the audio when there is no silence, or when the audio ends in one.
    """
    size = len(pcm)
    first = size % _FRAME_BYTES
    energies = [_energy(pcm[start : start + _FRAME_BYTES]) for start in range(first, size, _FRAME_BYTES)]
    limit = max(_INAUDIBLE, _QUIET * max(energies, default=0.0))
    quiet_count = 0
    for index in reversed(range(len(energies))):
        quiet_count = quiet_count + 1 if energies[index] <= limit else 0
        if quiet_count == _SHORTEST_FRAMES:
            last = index + _SHORTEST_FRAMES - 1
            return size if last == len(energies) - 1 else first + last * _FRAME_BYTES
    return size


def _energy(frame: bytes) -> float:
    samples = struct.unpack(f"<{len(frame) // 2}h", frame)
    square_sum: int = sum(map(mul, samples, samples))
    return square_sum / len(samples)
