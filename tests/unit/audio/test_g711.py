"""G.711 against encoders written from the standard's own words."""

import numpy as np
import pytest

from liveavatar_gateway.audio.g711 import ALAW_TO_S16, MULAW_TO_S16, to_mulaw


def _mulaw_encode(sample: int) -> int:
    """Compress as G.711 section 3.2: clip, bias, find the segment, invert."""
    magnitude = min(abs(sample), 32_635) + 132
    segment = magnitude.bit_length() - 8
    code = segment << 4 | magnitude >> segment + 3 & 15
    return ~(code | (0x80 if sample < 0 else 0)) & 0xFF


def _alaw_encode(sample: int) -> int:
    """Compress as G.711 section 3.1: the first two segments are linear, even bits inverted."""
    magnitude = min(sample if sample >= 0 else ~sample, 32_767)
    segment = max(magnitude.bit_length() - 8, 0)
    code = segment << 4 | magnitude >> (segment + 3 if segment else 4) & 15
    return (code | (0x80 if sample >= 0 else 0)) ^ 0x55


@pytest.mark.parametrize(
    ("byte", "sample"),
    [
        (0x00, -32_124),
        (0x80, 32_124),
        (0xFF, 0),
        (0x7F, 0),
        (0xFE, 8),
        (0x7E, -8),
        (0xEF, 132),
        (0x8F, 16_764),
    ],
)
def test_mulaw_gives_the_values_of_the_standard(byte, sample):
    assert MULAW_TO_S16[byte] == sample


@pytest.mark.parametrize(
    ("byte", "sample"),
    [
        (0xD5, 8),
        (0x55, -8),
        (0xAA, 32_256),
        (0x2A, -32_256),
        (0xC5, 264),
        (0xD4, 24),
        (0x80, 5_504),
        (0x00, -5_504),
    ],
)
def test_alaw_gives_the_values_of_the_standard(byte, sample):
    assert ALAW_TO_S16[byte] == sample


@pytest.mark.parametrize(
    ("table", "encode", "peak", "bias", "finest"),
    [(MULAW_TO_S16, _mulaw_encode, 32_124, 132, 0), (ALAW_TO_S16, _alaw_encode, 32_256, 0, 8)],
)
def test_every_sample_survives_within_half_a_step(table, encode, peak, bias, finest):
    """A segment has 16 steps and is as wide as all below it, so half a step is at most 1/32 of the level."""
    samples = np.arange(-peak, peak + 1)
    heard = table[[encode(int(sample)) for sample in samples]].astype(int)
    assert np.all(np.abs(heard - samples) <= np.maximum((np.abs(samples) + bias) / 32, finest))
    assert np.all(np.diff(heard) >= 0), "decoding keeps the order of levels"


@pytest.mark.parametrize(("table", "encode"), [(MULAW_TO_S16, _mulaw_encode), (ALAW_TO_S16, _alaw_encode)])
def test_decoded_bytes_encode_to_themselves(table, encode):
    again = [encode(int(sample)) for sample in table]
    differing = {byte for byte in range(256) if again[byte] != byte}
    assert differing <= {0x7F}, "mu-law has two zeros, nothing else is ambiguous"


def test_tables_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        MULAW_TO_S16[0] = 0


def test_every_sample_is_encoded_as_the_standard_says():
    samples = np.arange(-32_768, 32_768).astype("<i2")
    assert to_mulaw(samples.tobytes()) == bytes(_mulaw_encode(int(sample)) for sample in samples)
