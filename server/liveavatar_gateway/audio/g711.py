"""G.711: telephony's two 8-bit encodings, decoded through one table lookup per sample, and mu-law encoded so.

Values are those of ITU-T G.711 (11/88), tables 1a to 2b, left-justified in 16 bits as in ITU-T G.191: mu-law
reaches 32 124, A-law 32 256.
"""

from typing import Final

import numpy as np
import numpy.typing as npt


def _mulaw_table() -> npt.NDArray[np.int16]:
    """Decode every mu-law byte: inverted, then sign, 3-bit segment, 4-bit step, biased by 132."""
    code = ~np.arange(256, dtype=np.uint8)
    segment, step = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    magnitude = ((step << 3) + 132 << segment) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> npt.NDArray[np.int16]:
    """Decode every A-law byte: even bits inverted, then sign, segment, 4-bit step; segment 0 is linear."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    segment, step = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    linear = (step << 4) + 8
    curved = (step << 4) + 264 << np.maximum(segment - 1, 0)
    magnitude = np.where(segment == 0, linear, curved)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


MULAW_TO_S16: Final = _mulaw_table()
"""16-bit sample of each mu-law byte: `MULAW_TO_S16[np.frombuffer(data, np.uint8)]`."""

ALAW_TO_S16: Final = _alaw_table()
"""16-bit sample of each A-law byte."""

for _table in (MULAW_TO_S16, ALAW_TO_S16):
    _table.flags.writeable = False


def _mulaw_codes() -> npt.NDArray[np.uint8]:
    """Encode every 16-bit sample to mu-law: clipped, biased by 132, then sign, segment and step, inverted."""
    samples = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(samples), 32_635) + 132
    segment = np.frexp(magnitude.astype(np.float64))[1].astype(np.int32) - 8
    step = magnitude >> (segment + 3) & 15
    sign = np.where(samples < 0, 0x80, 0)
    codes: npt.NDArray[np.uint8] = ((sign | segment << 4 | step) ^ 0xFF).astype(np.uint8)
    return codes


_S16_TO_MULAW: Final = _mulaw_codes()


def to_mulaw(pcm: bytes) -> bytes:
    """Encode 16-bit little-endian samples to mu-law."""
    return np.take(_S16_TO_MULAW, np.frombuffer(pcm, "<u2")).tobytes()
