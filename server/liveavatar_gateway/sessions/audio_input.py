"""Input side of a caller's audio format."""

from liveavatar_gateway.audio.containers import detect_container, may_be_container
from liveavatar_gateway.audio.convert import converter
from liveavatar_gateway.audio.formats import AudioFormat
from liveavatar_gateway.core.speech.utterance import AudioInput


def audio_input_of(audio_format: AudioFormat, *, max_chunk_bytes: int) -> AudioInput:
    """Return the input for audio of a format, in chunks of at most `max_chunk_bytes`."""
    return AudioInput(
        byte_rate=audio_format.byte_rate,
        frame_bytes=audio_format.frame_bytes,
        max_chunk_bytes=max_chunk_bytes,
        new_converter=lambda: converter(audio_format),
        detect_container=detect_container,
        may_be_container=may_be_container,
        format=audio_format.name,
    )
