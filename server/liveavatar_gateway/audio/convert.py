"""Conversion of callers' audio formats to LiveAvatar's: 24 kHz mono s16le.

Samples are processed as float32 in 16-bit scale: decode, mix down, resample (soxr), round. soxr's own 16-bit
output is not used because it dithers; rounding here makes the result a function of the input alone. The output is
sample-identical for every division of the input into chunks and calls.

CPU per second of audio, in packets of 1 s on one server core, order of magnitude; calls of 100 ms cost about
0.2 ms more:

| from | ms |
|---|---|
| s16le, 24 kHz, mono (untouched) | 0.002 |
| anything else at 24 kHz | 0.1 |
| s16le, 22 050 Hz, mono | 0.3 |
| all others | 0.1 to 0.5 |

The conversion therefore runs on the event loop. The quality is soxr's HQ: LQ saves little and dulls consonants. HQ
delays 40 ms of a source of 16 kHz or more, and 75 to 80 ms of a lower rate, until more audio follows or the
utterance ends; MQ delays as much.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import soxr

from liveavatar_gateway.audio.formats import NATIVE_FORMAT, NATIVE_RATE_HZ, AudioFormat, Encoding
from liveavatar_gateway.audio.g711 import ALAW_TO_S16, MULAW_TO_S16
from liveavatar_gateway.audio.passthrough import Passthrough
from liveavatar_gateway.core.speech.utterance import Converter

_Samples: TypeAlias = npt.NDArray[np.float32]
"""Mono or interleaved samples in 16-bit scale: full scale is 32 768."""

_FULL_SCALE: Final = 32_768
_G711: Final = {
    Encoding.MULAW: MULAW_TO_S16.astype(np.float32),
    Encoding.ALAW: ALAW_TO_S16.astype(np.float32),
}


def converter(fmt: AudioFormat) -> Converter:
    """Return a converter for one utterance in `fmt`."""
    return Passthrough() if fmt == NATIVE_FORMAT else Resampling(fmt)


def convert_all(fmt: AudioFormat, data: bytes) -> bytes:
    """Convert a whole utterance at once, with the same result as for any sequence of chunks."""
    return converter(fmt).convert([data], last=True)


class Resampling:
    """Decodes, mixes down and resamples. Invariant: no call follows `last`."""

    def __init__(self, fmt: AudioFormat) -> None:
        self._fmt = fmt
        self._resampler: soxr.ResampleStream | None = None
        if fmt.rate_hz != NATIVE_RATE_HZ:
            self._resampler = soxr.ResampleStream(fmt.rate_hz, NATIVE_RATE_HZ, 1, dtype="float32", quality="HQ")

    def convert(self, chunks: Sequence[bytes], *, last: bool) -> bytes:
        """Convert the utterance's next bytes, see `core.utterance.Converter`."""
        samples = _mono(_decode(self._fmt.encoding, b"".join(chunks)), self._fmt.channels)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        return _to_s16le(samples)


def _decode(encoding: Encoding, data: bytes) -> _Samples:
    """Decode samples. NaN becomes silence, floats beyond full scale are clipped."""
    if encoding is Encoding.PCM_S16LE:
        return np.frombuffer(data, "<i2").astype(np.float32)
    if encoding is Encoding.PCM_F32LE:
        samples: _Samples = np.nan_to_num(np.frombuffer(data, "<f4"), nan=0.0, posinf=1.0, neginf=-1.0)
        np.clip(samples, -1.0, 1.0, out=samples)
        samples *= _FULL_SCALE
        return samples
    return np.take(_G711[encoding], np.frombuffer(data, np.uint8))


def _mono(samples: _Samples, channels: int) -> _Samples:
    """Average interleaved channels: a sum could clip, and a single channel could lose a voice."""
    if channels == 1:
        return samples
    left, right = samples[0::2], samples[1::2]
    return (left + right) * np.float32(0.5)


def _to_s16le(samples: _Samples) -> bytes:
    """Round to 16 bits. Overshoot of the resampler is clipped, never wrapped."""
    return np.clip(np.rint(samples), -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2").tobytes()
