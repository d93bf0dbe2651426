"""Credit for waiting audio: counted in bytes of the caller's format, shared by all utterances."""

from collections.abc import Sequence

from liveavatar_gateway.core.speech.utterance import AudioInput, Utterance


class Credit:
    """Division of `max_buffered_s` seconds of waiting audio among utterances, whose formats may differ."""

    def __init__(self, max_buffered_s: float) -> None:
        self._max_buffered_s = max_buffered_s

    def left_bytes(self, active: Sequence[Utterance], audio_input: AudioInput) -> int:
        """Return how many bytes of a format may come besides those received so far, in whole samples."""
        free_s = self._max_buffered_s - sum(utterance.charged_s for utterance in active)
        frames = int(max(0.0, free_s) * audio_input.byte_rate) // audio_input.frame_bytes
        return frames * audio_input.frame_bytes

    def share(self, active: Sequence[Utterance]) -> None:
        """Set how much each open utterance may buffer: all that the other utterances leave free.

        Called when audio was cut, so that receiving a chunk costs one comparison.
        """
        total_s = sum(utterance.charged_s for utterance in active)
        for utterance in active:
            if not utterance.sealed:
                free_s = self._max_buffered_s - (total_s - utterance.charged_s)
                # Rounded to the nearest, although `left_bytes` rounds down: a float error must not revoke granted
                # credit.
                utterance.window = round(max(0.0, free_s) * utterance.audio_input.byte_rate)
