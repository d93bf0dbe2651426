"""Formats in which users can be heard."""

import pytest

from liveavatar_gateway.audio.formats import NATIVE_FORMAT, AudioFormat, Encoding
from liveavatar_gateway.audio.output import RATES_HZ, encoder, require_listenable
from liveavatar_gateway.core.errors import AudioFormatUnsupported


@pytest.mark.parametrize("encoding", [Encoding.PCM_S16LE, Encoding.MULAW])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_users_are_heard_in_pcm_and_mulaw_at_each_rate(encoding, rate_hz):
    require_listenable(AudioFormat(encoding, rate_hz, 1))


@pytest.mark.parametrize(
    ("fmt", "field"),
    [
        (AudioFormat(Encoding.ALAW, 8_000, 1), "header.format.encoding"),
        (AudioFormat(Encoding.PCM_S16LE, 44_100, 1), "header.format.sample_rate_hz"),
        (AudioFormat(Encoding.PCM_S16LE, 24_000, 2), "header.format.channel_count"),
    ],
)
def test_another_format_is_refused_with_its_field(fmt, field):
    with pytest.raises(AudioFormatUnsupported) as refused:
        require_listenable(fmt)
    assert refused.value.field == field


def test_pcm_is_passed_on_and_mulaw_has_a_byte_for_each_sample():
    assert encoder(NATIVE_FORMAT)(b"\x01\x02") == b"\x01\x02"
    assert encoder(AudioFormat(Encoding.MULAW, 8_000, 1))(bytes(4)) == b"\xff\xff"
