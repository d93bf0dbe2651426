"""G.711: telephony's two 8-bit encodings, decoded through one table lookup per sample.

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
