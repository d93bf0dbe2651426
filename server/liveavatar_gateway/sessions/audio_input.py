"""Input side of a caller's audio format."""

import asyncio
import importlib
import threading
from typing import Final

from liveavatar_gateway.audio.containers import detect_container, may_be_container
from liveavatar_gateway.audio.formats import NATIVE_FORMAT, AudioFormat
from liveavatar_gateway.audio.passthrough import Passthrough
from liveavatar_gateway.core.speech.utterance import AudioInput, Converter

_LOADED: Final = threading.Event()
"""Set once the import has ended; a module is in `sys.modules` before that."""


async def load_conversion() -> None:
    """Import what converts audio, in a thread: an import of 0.1 s on the event loop would delay all speech.

    A gateway whose callers send LiveAvatar's own format starts sooner and takes 25 MB less.
    """
    # Only the first callers need a thread: slow resolutions of names may occupy all threads.
    if not _LOADED.is_set():
        await asyncio.to_thread(_load)


def _load() -> None:
    importlib.import_module("liveavatar_gateway.audio.convert")
    _LOADED.set()


def _converter(audio_format: AudioFormat) -> Converter:
    if audio_format == NATIVE_FORMAT:
        return Passthrough()
    from liveavatar_gateway.audio.convert import converter  # noqa: PLC0415 - see `load_conversion`

    return converter(audio_format)


def audio_input_of(audio_format: AudioFormat, *, max_chunk_bytes: int) -> AudioInput:
    """Return the input for audio of a format, in chunks of at most `max_chunk_bytes`.

    On the event loop of a gateway, `load_conversion` goes before the first format that is not LiveAvatar's.
    """
    return AudioInput(
        byte_rate=audio_format.byte_rate,
        frame_bytes=audio_format.frame_bytes,
        max_chunk_bytes=max_chunk_bytes,
        new_converter=lambda: _converter(audio_format),
        detect_container=detect_container,
        may_be_container=may_be_container,
        format=audio_format.name,
    )
