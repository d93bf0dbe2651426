"""Formats of users' audio on its way to a listener."""

from collections.abc import Callable
from typing import Final

from liveavatar_gateway.audio.formats import AudioFormat, Encoding
from liveavatar_gateway.core.errors import AudioFormatUnsupported

RATES_HZ: Final = (8_000, 16_000, 24_000, 48_000)
"""Sample rates for listeners: a room's audio is decoded once for each rate that is in use."""
_ENCODINGS: Final = (Encoding.PCM_S16LE, Encoding.MULAW)


def require_listenable(fmt: AudioFormat) -> None:
    """Refuse a format that listeners cannot have.

    Raises:
        AudioFormatUnsupported: it is another one. Its `field` is the path in `ListenHeader`.
    """
    if fmt.encoding not in _ENCODINGS:
        names = ", ".join(_ENCODINGS)
        raise AudioFormatUnsupported(
            f"users cannot be heard in {fmt.encoding}; choose one of {names}",
            field="header.format.encoding",
            encoding=fmt.encoding,
            supported_encodings=names,
        )
    if fmt.rate_hz not in RATES_HZ:
        rates = ", ".join(map(str, RATES_HZ))
        raise AudioFormatUnsupported(
            f"users cannot be heard at {fmt.rate_hz} Hz; choose one of {rates}",
            field="header.format.sample_rate_hz",
            sample_rate_hz=fmt.rate_hz,
            supported_sample_rates_hz=rates,
        )
    if fmt.channels != 1:
        raise AudioFormatUnsupported(
            "users are heard in mono; leave channel_count out",
            field="header.format.channel_count",
            channel_count=fmt.channels,
        )


def encoder(fmt: AudioFormat) -> Callable[[bytes], bytes]:
    """Return the conversion of mono 16-bit samples to a listener's encoding.

    On the event loop of a gateway, `load_conversion` goes before the first encoding that is not PCM_S16LE.
    """
    if fmt.encoding is Encoding.PCM_S16LE:
        return _unchanged
    from liveavatar_gateway.audio.g711 import to_mulaw  # noqa: PLC0415 - see above

    return to_mulaw


def _unchanged(pcm: bytes) -> bytes:
    return pcm
