"""Reads the demo's recordings and writes what the avatar said; both are plain 16-bit PCM WAV files."""

import wave
from pathlib import Path

from liveavatar_gateway.audio.formats import NATIVE_RATE_HZ, AudioFormat, Encoding


def read(path: Path) -> tuple[AudioFormat, bytes]:
    """Return a recording's format and its samples."""
    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != Encoding.PCM_S16LE.sample_bytes:
            raise ValueError(f"{path} has {8 * file.getsampwidth()} bits per sample, the demo speaks 16-bit PCM")
        audio_format = AudioFormat(Encoding.PCM_S16LE, file.getframerate(), file.getnchannels())
        return audio_format, file.readframes(file.getnframes())


def write(path: Path, pcm: bytes) -> None:
    """Write 24 kHz mono s16le, making the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(Encoding.PCM_S16LE.sample_bytes)
        file.setframerate(NATIVE_RATE_HZ)
        file.writeframes(pcm)
