"""Supported audio formats, and the native format of LiveAvatar."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from liveavatar_gateway.core.errors import AudioFormatUnsupported

MIN_RATE_HZ: Final = 8_000
"""Lowest supported sample rate: telephony."""

MAX_RATE_HZ: Final = 48_000
"""Highest supported sample rate: studio and WebRTC."""

MAX_CHANNELS: Final = 2
"""Highest supported number of channels; stereo is mixed down."""

NATIVE_RATE_HZ: Final = 24_000
"""LiveAvatar's sample rate.

Source: docs.liveavatar.com/docs/lite-mode/events, "agent.speak".
"""

NATIVE_BYTE_RATE: Final = 48_000
"""Bytes per second of LiveAvatar's format: 24 000 mono samples of 2 bytes."""


class Encoding(StrEnum):
    """Sample encoding; values are the names in `audio.proto` without their prefix."""

    PCM_S16LE = "PCM_S16LE"
    PCM_F32LE = "PCM_F32LE"
    MULAW = "MULAW"
    ALAW = "ALAW"

    @property
    def sample_bytes(self) -> int:
        """Size of one sample of one channel, bytes."""
        return _SAMPLE_BYTES[self]


_SAMPLE_BYTES: Final = {
    Encoding.PCM_S16LE: 2,
    Encoding.PCM_F32LE: 4,
    Encoding.MULAW: 1,
    Encoding.ALAW: 1,
}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Raw audio format. Use `checked` for a caller's values."""

    encoding: Encoding
    rate_hz: int
    """Samples per second and channel."""
    channels: int
    """1, or 2 interleaved."""

    @classmethod
    def checked(
        cls,
        encoding: str | None = None,
        rate_hz: int | None = None,
        channels: int | None = None,
    ) -> Self:
        """Return the format of a caller's header; empty and 0 mean the default, 24 kHz mono s16le.

        Args:
            encoding: Name of an `Encoding`.
            rate_hz: 8000 to 48 000, for G.711 too.
            channels: 1 or 2, for G.711 too.

        Raises:
            AudioFormatUnsupported: a value is not supported. Its `field` is the path in `AudioHeader`.
        """
        rate_hz = rate_hz or NATIVE_RATE_HZ
        channels = channels or 1
        try:
            known = Encoding(encoding or Encoding.PCM_S16LE)
        except ValueError:
            names = ", ".join(Encoding)
            raise AudioFormatUnsupported(
                f"encoding {encoding} is not supported; send one of {names}",
                field="header.format.encoding",
                encoding=encoding,
                supported_encodings=names,
            ) from None
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise AudioFormatUnsupported(
                f"a sample rate of {rate_hz} Hz is not supported; send {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz",
                field="header.format.sample_rate_hz",
                sample_rate_hz=rate_hz,
                min_sample_rate_hz=MIN_RATE_HZ,
                max_sample_rate_hz=MAX_RATE_HZ,
            )
        if not 1 <= channels <= MAX_CHANNELS:
            raise AudioFormatUnsupported(
                f"{channels} channels are not supported; send 1 (mono) to {MAX_CHANNELS} (stereo)",
                field="header.format.channel_count",
                channel_count=channels,
                min_channel_count=1,
                max_channel_count=MAX_CHANNELS,
            )
        return cls(known, rate_hz, channels)

    @property
    def name(self) -> str:
        """Name of the format, such as "PCM_S16LE 24000 Hz 1 ch"."""
        return f"{self.encoding} {self.rate_hz} Hz {self.channels} ch"

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the format of a `name`.

        Raises:
            ValueError: the name is invalid.
        """
        match name.split(" "):
            case [encoding, rate_hz, "Hz", channels, "ch"]:
                return cls(Encoding(encoding), int(rate_hz), int(channels))
        raise ValueError(f"{name!r} is not the name of an audio format")

    @property
    def frame_bytes(self) -> int:
        """Size of one sample of all channels, bytes; chunks hold a whole number of frames."""
        return self.encoding.sample_bytes * self.channels

    @property
    def byte_rate(self) -> int:
        """Bytes per second."""
        return self.frame_bytes * self.rate_hz


NATIVE_FORMAT: Final = AudioFormat(Encoding.PCM_S16LE, NATIVE_RATE_HZ, 1)
"""LiveAvatar's format, which is passed on unchanged."""
