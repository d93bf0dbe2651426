"""From any format a caller may send to the one LiveAvatar takes: 24 kHz mono s16le.

Samples go through float32 in 16-bit scale: decode, mix down, resample (soxr), round. soxr's own 16-bit output
is not used since it dithers; rounding here keeps the result a function of the input alone. Output is
sample-identical however the input is cut into chunks and chunks are grouped into calls.

CPU per second of audio, in packets of 1 s on one server core, order of magnitude; calls of 100 ms cost about
0.2 ms more:

| from | ms |
|---|---|
| s16le, 24 kHz, mono (untouched) | 0.002 |
| anything else at 24 kHz | 0.1 |
| s16le, 22 050 Hz, mono | 0.3 |
| all others | 0.1 to 0.5 |

So it runs on the event loop. The quality is soxr's HQ: LQ saves nothing that matters and dulls consonants. HQ
holds back 40 ms of a source of 16 kHz and more, 75 to 80 ms of a slower one, until more follows or the
utterance ends; MQ holds back as much.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import soxr

from liveavatar_gateway.audio.formats import NATIVE_FORMAT, NATIVE_RATE_HZ, AudioFormat, Encoding
from liveavatar_gateway.audio.g711 import ALAW_TO_S16, MULAW_TO_S16
from liveavatar_gateway.core.speech.utterance import Converter

_Samples: TypeAlias = npt.NDArray[np.float32]
"""One channel or interleaved ones, in 16-bit scale: full scale is 32 768."""

_FULL_SCALE: Final = 32_768
_G711: Final = {
    Encoding.MULAW: MULAW_TO_S16.astype(np.float32),
    Encoding.ALAW: ALAW_TO_S16.astype(np.float32),
}


def converter(fmt: AudioFormat) -> Converter:
    """Make the converter of one utterance in `fmt`."""
    return Passthrough() if fmt == NATIVE_FORMAT else Resampling(fmt)


def convert_all(fmt: AudioFormat, data: bytes) -> bytes:
    """Convert a whole utterance at once; gives the very bytes that any sequence of chunks gives."""
    return converter(fmt).convert([data], last=True)


class Passthrough:
    """Leaves audio that is in LiveAvatar's format as it is, without a copy where it comes in one piece."""

    def convert(self, chunks: Sequence[bytes], *, last: bool) -> bytes:  # noqa: ARG002 - nothing is held back
        """Join the chunks."""
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Resampling:
    """Decodes, mixes down and resamples. Invariant: after `last` nothing more is taken."""

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
    """Read samples. A float that is no number becomes silence, one beyond full scale is clipped."""
    if encoding is Encoding.PCM_S16LE:
        return np.frombuffer(data, "<i2").astype(np.float32)
    if encoding is Encoding.PCM_F32LE:
        samples: _Samples = np.nan_to_num(np.frombuffer(data, "<f4"), nan=0.0, posinf=1.0, neginf=-1.0)
        np.clip(samples, -1.0, 1.0, out=samples)
        samples *= _FULL_SCALE
        return samples
    return np.take(_G711[encoding], np.frombuffer(data, np.uint8))


def _mono(samples: _Samples, channels: int) -> _Samples:
    """Average interleaved channels; a sum would clip, and one channel alone would lose a voice."""
    if channels == 1:
        return samples
    left, right = samples[0::2], samples[1::2]
    return (left + right) * np.float32(0.5)


def _to_s16le(samples: _Samples) -> bytes:
    """Round to 16 bits. Resampling can overshoot full scale; that is clipped, never wrapped."""
    return np.clip(np.rint(samples), -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2").tobytes()
